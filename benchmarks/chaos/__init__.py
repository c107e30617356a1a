"""The delivery proof: real processes under seeded faults, and an auditor that holds every token to account.

It ships with the ``legato`` command, so it must not depend on the rest of the tests. What happens is planned
(:mod:`.plan`) and judged (:mod:`.audit`) by pure functions; everything between is real.
"""
