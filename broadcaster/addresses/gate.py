"""The limits on connections of one address: how many at once, and how many new ones per minute."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .allowances import Allowances
    from .refusals import AddressRefusals

MOST: Final = "max_connections_per_address"
NEW: Final = "max_new_connections_per_address"


class CountedClient(Protocol):
    """A client. Its ``caller`` is empty if it is not known, and unset if it came before there were limits.

    Then it is not limited.
    """

    caller: str


class ConnectionGate:
    """Admits clients by their address.

    :ivar most: connections of one address at once; 0 for no limit.
    :ivar new: new connections per minute, also those that are refused for another reason; None for no limit.
    """

    def __init__(self, most: int, new: Allowances | None, refusals: AddressRefusals) -> None:
        self.most = most
        self.new = new
        self._refusals = refusals
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        """Addresses with a connection."""
        return len(self._open)

    def arrives(self, client: CountedClient) -> bool:
        """Whether a client that has just connected may go on."""
        address, new = _address(client), self.new
        if not address:
            return True
        if new is not None:
            if new.wait(address):
                self._refusals.note(NEW, address)
                return False
            new.take(address)
        return self._has_room(address)

    def enter(self, client: CountedClient) -> bool:
        """Count a client that is admitted, if it may be. :meth:`leave` has to follow then."""
        address = _address(client)
        if not address:
            return True
        if not self._has_room(address):
            return False
        self._open[address] += 1
        return True

    def leave(self, client: CountedClient) -> None:
        """Undo :meth:`enter`."""
        address = _address(client)
        if address:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _has_room(self, address: str) -> bool:
        if not self.most or self._open.get(address, 0) < self.most:
            return True
        self._refusals.note(MOST, address)
        return False


def _address(client: CountedClient) -> str:
    return getattr(client, "caller", "")
