"""Clients of Redis that broadcaster and worker share: the one place in ``protocol`` that does I/O."""
