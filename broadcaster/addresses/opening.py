"""The limits per address that ``[server]`` configures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .allowances import Allowances
from .callers import Callers
from .failures import FailureLimit
from .gate import ConnectionGate
from .refusals import AddressRefusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.config import Server
    from legato.broadcaster.observability.refusals import Refused


class AddressLimits:
    """The limits per address of one process. Each is None if it is off, so that it costs nothing.

    They may change: who keeps one of them follows the changes.

    :param now: a clock in seconds.
    :param refused: takes note of what is refused.
    :ivar callers: finds the addresses; None if nothing is limited by them.
    :ivar gate: limits connections. It stays once it is there, because it has counted clients.
    :ivar tokens: limits wrong tokens.
    :ivar signatures: limits wrong signatures.
    """

    def __init__(self, server: Server, now: Callable[[], float], refused: Refused) -> None:
        self._now = now
        self._followers: list[Callable[[AddressLimits], None]] = []
        self.refusals = AddressRefusals(refused)
        self.gate: ConnectionGate | None = None
        self.change(server)

    def follow(self, use: Callable[[AddressLimits], None]) -> None:
        """Call a function now and after each change."""
        self._followers.append(use)
        use(self)

    def change(self, server: Server) -> None:
        """Use these limits from now on. Those per minute begin anew; open connections stay counted."""
        most, new = server.max_connections_per_address, server.max_new_connections_per_address
        per_minute = Allowances(new, self._now) if new else None
        if self.gate is not None:
            self.gate.most, self.gate.new = most, per_minute
        elif most or new:
            self.gate = ConnectionGate(most, per_minute, self.refusals)
        self.tokens = self._failures(server, "max_failed_tokens_per_address")
        self.signatures = self._failures(server, "max_failed_signatures_per_address")
        limited = any(limit is not None for limit in (self.gate, self.tokens, self.signatures))
        self.callers = Callers(server.trusted_proxies) if limited else None
        for use in self._followers:
            use(self)

    def _failures(self, server: Server, name: str) -> FailureLimit | None:
        per_minute = getattr(server, name)
        return FailureLimit(name, Allowances(per_minute, self._now), self.refusals) if per_minute else None


class ConnectionBounds(NamedTuple):
    """The bounds on the connections of one process.

    :ivar most: of all addresses together; 0 for no limit.
    """

    most: int
    addresses: AddressLimits
