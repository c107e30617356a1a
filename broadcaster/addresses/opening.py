"""The limits per address that ``[server]`` configures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .allowances import Allowances
from .callers import Callers
from .failures import FailureLimit
from .gate import ConnectionGate
from .refusals import AddressRefusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.config import Server


class AddressLimits:
    """The limits per address of one process. Each is None if it is off, so that it costs nothing.

    :param now: a clock in seconds.
    :ivar callers: finds the addresses; None if nothing is limited by them.
    """

    def __init__(self, server: Server, now: Callable[[], float]) -> None:
        self.refusals = AddressRefusals(now)
        self.gate: ConnectionGate | None = None
        most, new = server.max_connections_per_address, server.max_new_connections_per_address
        if most or new:
            self.gate = ConnectionGate(most, Allowances(new, now) if new else None, self.refusals)
        self.tokens = self._failures(server, "max_failed_tokens_per_address", now)
        self.signatures = self._failures(server, "max_failed_signatures_per_address", now)
        limits = (self.gate, self.tokens, self.signatures)
        limited = any(limit is not None for limit in limits)
        self.callers = Callers(server.trusted_proxies) if limited else None

    def _failures(self, server: Server, name: str, now: Callable[[], float]) -> FailureLimit | None:
        per_minute = getattr(server, name)
        return FailureLimit(name, Allowances(per_minute, now), self.refusals) if per_minute else None
