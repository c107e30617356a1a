"""All I/O with Redis that broadcaster and worker share. The one place in ``protocol`` that does I/O.

* :mod:`.connections`: a client of one server, of the master behind Sentinels, or of a Cluster. Start here.
* :mod:`.pipeline`, :mod:`.cluster`, :mod:`.slots`: what those clients are made of.
* :mod:`.scripts`: Lua scripts.
* :mod:`.parked`: jobs that wait for an approval.
* :mod:`.retry`: waits between attempts, and calls that are repeated until they succeed.
* :mod:`.errors`, :mod:`.cancellation`: errors as text; tasks that end when they are cancelled.
* :mod:`.advice`: warnings at the start.
* :mod:`.internals`: what is used of redis-py beyond its documented interface.

All times are in seconds. No rule of ``protocol`` imports this package.
"""
