"""The type of an attack, a row of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arena import Arena

UNREAD: Final = (8.0, 32.0)
"""``times`` and ``memory`` for a client that does not read: its queue must stay bounded."""

CHUNK: Final = 1 << 20


class Attack(NamedTuple):
    """One kind of hostile client.

    :ivar run: drives the sockets; called again when the server closes them.
    :ivar times: factor of its time limit, if it needs preparation.
    :ivar memory: allowed growth of the attacked node, in MiB; 0: the default.
    """

    name: str
    group: str
    summary: str
    run: Callable[[Arena], None]
    times: float = 1.0
    memory: float = 0.0


def filled(unit: bytes, size: int = CHUNK) -> bytes:
    """Repeat a unit to about ``size`` bytes."""
    return unit * max(1, size // len(unit))
