"""What every attack is: a row of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arena import Arena

UNREAD: Final = (8.0, 32.0)
"""``times`` and ``memory`` of a client that does not read: what waits for it must not pile up."""

CHUNK: Final = 1 << 20


class Attack(NamedTuple):
    """One kind of hostile client.

    :ivar run: drives the sockets; it is called again when the server closes them.
    :ivar times: how many times longer than others it may take, since it has to prepare something first.
    :ivar memory: what the attacked node may grow by, and keep, in MiB; 0: as usual.
    """

    name: str
    group: str
    summary: str
    run: Callable[[Arena], None]
    times: float = 1.0
    memory: float = 0.0


def filled(unit: bytes, size: int = CHUNK) -> bytes:
    """Whole units, about ``size`` bytes together."""
    return unit * max(1, size // len(unit))
