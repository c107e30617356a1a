"""The delivery proof: real processes under seeded faults, and an auditor that checks every token.

It is part of the ``legato`` command, so it must not depend on the tests. Pure functions plan the run
(:mod:`.plan`) and check its record (:mod:`.audit`); everything in between is real.
"""
