"""Doors: the log of a reply in the words of protocols that front ends already speak. No I/O, no clock.

A door is a translation from the pieces of a log (:mod:`legato.protocol.transcript`) to the messages of one
protocol. :mod:`.base` has what all share, :mod:`.projection` the rules that most of them follow.
"""
