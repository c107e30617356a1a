"""The conformance suite: named cases over the wire against any server of the Pusher protocol.

It ships with the ``legato`` command, so it must not depend on the rest of the tests, and it knows a server
only by its WebSocket address, its HTTP API and the webhooks it sends: ``broadcaster`` is never imported.
Sections are those of the Pusher Channels protocol as the project's specification numbers them.
"""
