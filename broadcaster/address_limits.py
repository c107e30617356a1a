"""Limits of what is kept and read for limits per address, and is not a setting."""

from typing import Final

MAX_ADDRESSES: Final = 65_536
"""Addresses that one limit per minute remembers. For one more, the one that was idle longest is forgotten."""

ADDRESS_PERIOD_SECONDS: Final = 60.0
"""The minute of the limits per minute."""

MAX_TRUSTED_PROXIES: Final = 256
"""Entries of ``server.trusted_proxies``, each of which an address may be compared with."""

MAX_FORWARDED_BYTES: Final = 1024
"""How much of ``X-Forwarded-For`` is read, from its end: what trusted proxies added is there."""

CACHED_CALLERS: Final = 1024
"""Cached results of finding a client's address."""

IPV6_PREFIX_BITS: Final = 64
"""Bits of an IPv6 address that count: one customer has all addresses of such a network."""
