"""The admitted clients of this node, and how the server closes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.broadcaster.channels import watchlists
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.registry import lease
from legato.protocol.session import Subscribe
from legato.protocol.wire import CONNECTIONS

from .ends import ENDED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from legato.broadcaster.addresses.gate import ConnectionGate
    from legato.broadcaster.addresses.opening import AddressLimits, ConnectionBounds
    from legato.broadcaster.channels.departure import Departures
    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.registry.base import Registry
    from legato.protocol.errors import PusherError
    from legato.protocol.presence import Member
    from legato.protocol.session import Session

    from .client import Client
    from .deferred_work import DeferredWork
    from .figures import ConnectionFigures


class Clients:
    """The admitted clients.

    :param bounds: on the connections of this process.
    :ivar open: clients that have not left.
    :ivar most: the maximum number of connections of this process; 0 for no limit.
    :ivar gate: counts clients by their address; None if nothing was ever limited by it.
    :ivar leaving: the node is about to stop; load balancers should send new clients elsewhere.
    :ivar draining: the node accepts no new clients.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        departures: Departures,
        deferred: DeferredWork,
        figures: ConnectionFigures,
        bounds: ConnectionBounds,
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._departures = departures
        self.deferred = deferred
        self._figures = figures
        self.most = bounds.most
        self.gate: ConnectionGate | None = None
        bounds.addresses.follow(self._use_gate)
        self.open: set[Client] = set()
        self.leaving = False
        self.draining = False

    def _use_gate(self, addresses: AddressLimits) -> None:
        self.gate = addresses.gate

    @property
    def takes_nobody(self) -> bool:
        """Whether the node accepts no new clients."""
        return self.draining or 0 < self.most <= len(self.open)

    @property
    def state(self) -> str:
        """The state of this node, as published to the other nodes."""
        if self.leaving:
            return lease.LEAVING
        return lease.FULL if self.takes_nobody else lease.OPEN

    def enter(self, client: Client, session: Session) -> None:
        """Add and count an admitted client."""
        app_id, figures = session.app.id, self._figures
        figures.accepted += 1
        figures.by_app[app_id] = count = figures.by_app[app_id] + 1
        self._registry.connected(app_id, count)
        self.open.add(client)

    def leave(self, client: Client, session: Session) -> None:
        """Undo :meth:`enter`, and end all subscriptions. Delivery ends at once, the rest over a few turns."""
        app_id, by_app = session.app.id, self._figures.by_app
        by_app[app_id] = count = by_app[app_id] - 1
        self._registry.connected(app_id, count)
        self.open.discard(client)
        if self.gate is not None:
            self.gate.leave(client)
        keys, client.keys = client.keys, {}
        if self.deferred.take(len(keys)):
            for key, claim in keys.items():
                self._departures.drop(client, key, claim, disconnect=True)
            return
        if session.app.max_connections:  # at once: another client may wait for the quota
            key = Key(session.app.id, CONNECTIONS)
            if key in keys:
                self._departures.drop(client, key, keys.pop(key), disconnect=True)
        if not self.deferred.put(self._departures.one_by_one(client, keys, self._registry.name)):
            self._hub.depart(client)

    def dismiss(self, client: Client, error: PusherError) -> None:
        """Close a client on behalf of the server, after the frames that were published before."""
        self._hub.catch_up(client)
        client.close(error)

    def dismiss_all(self, clients: Collection[Client], error: PusherError) -> None:
        """:meth:`dismiss` many. All leave their channels at once; closing them may take a few turns."""

        def goodbyes() -> Iterator[None]:
            for client in clients:
                self.dismiss(client, error)
                yield

        if not self.deferred.put(goodbyes()):
            for client in clients:
                self._hub.catch_up(client)
                client.leave(error.code, error.message)

    def registered(self) -> Iterator[tuple[Key, str, Member | None]]:
        """Everything that this node has registered: channel, socket id, and member if any."""
        for client in list(self.open):
            for key, claim in list(client.keys.items()):
                counts = claim is not ENDED and not key.channel.startswith(watchlists.CHANNELS)
                if counts and not self._hub.waits(client, key):
                    yield key, client.socket_id, claim.member if isinstance(claim, Subscribe) else None
