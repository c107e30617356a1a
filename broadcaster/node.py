"""One broadcaster node: wires its parts, starts them, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from legato.protocol import errors

from .apps.directory import Directory
from .background import Background
from .bus.best_effort import BestEffort
from .bus.fence import Fence
from .channels.announcements import Announcements
from .channels.cache import CachedChannels
from .channels.client_events import ClientEvents
from .channels.counts import SubscriptionCounts
from .channels.delivery import Delivery
from .channels.demand import Demand
from .channels.departure import Departures
from .channels.fanout import Fanout
from .channels.figures import SubscriptionFigures
from .channels.hub import Hub
from .channels.kinds import ChannelKinds
from .channels.presence import Rosters
from .channels.sign_in import SignIns
from .channels.subscriber import Key
from .channels.subscription import Subscriptions
from .channels.watchlists import Watchlists
from .channels.welcome import Welcome
from .clients.admission import Admission
from .clients.app_changes import AppChanges
from .clients.chores import Chores
from .clients.client import ClientContext
from .clients.clients import Clients
from .clients.drain import Drain
from .clients.figures import ConnectionFigures
from .clients.handover import Handover
from .clients.peers import Peers
from .clients.timer_wheel import Wheel
from .limits import LEASE_RELEASE_SECONDS, SHUTDOWN_PUBLISH_SECONDS, WEBHOOK_CLOSE_SECONDS
from .observability.loop_delay import LoopDelay
from .redis_client import redis_client
from .registry import lease
from .registry.base import LocalRegistry, Registry
from .registry.codec import RegistryOwner
from .registry.redis import RedisRegistry
from .replies.healer import Healer
from .replies.resync import Recovery
from .transport.budget import Budget
from .transport.throttle import Turns
from .webhooks.dispatcher import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from legato.protocol.holdback import Gone
    from legato.protocol.presence import Member
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.wire import Envelope

    from .bus.base import Bus
    from .config import Settings
    from .replies.store import Replies

logger: Final = logging.getLogger("legato.node")


@dataclass(frozen=True, repr=False)
class Node:
    """The parts of one node. Only code that wires, starts or measures them holds all of them."""

    settings: Settings
    bus: Bus
    replies: Replies | None
    """The chat's state in Redis; None when chat is off."""
    apps: Directory
    fanout: Fanout
    hub: Hub
    registry: Registry
    delivery: Delivery
    healer: Healer | None
    cached: CachedChannels
    rosters: Rosters
    recovery: Recovery
    webhooks: Webhooks
    client_events: ClientEvents
    chores: Chores
    wheel: Wheel
    clients: Clients
    admission: Admission
    app_changes: AppChanges
    announcements: Announcements
    peers: Peers
    drain: Drain
    context: ClientContext
    background: Background
    turns: Turns
    loop_delay: LoopDelay
    connections: ConnectionFigures
    subscriptions: SubscriptionFigures
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """HTTP requests by endpoint and status."""

    async def start(self) -> None:
        """Join the bus.

        :raises BusError: the bus cannot be reached.
        """
        await self.webhooks.start()
        await self.bus.start(self.delivery)
        await self.registry.start(self.announcements.left)
        if self.healer is not None:
            self.healer.start()
        if self.settings.metrics.enabled:
            self.loop_delay.start()

    async def close(self) -> None:
        """Leave the bus. Another node takes over held-back departures; without one they are sent now."""
        self.wheel.close()
        self.loop_delay.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_PUBLISH_SECONDS):
                await self.chores.done()
        if self.healer is not None:
            await self.healer.close()
        if not await self.peers.ask():
            self.webhooks.release()
        if self.peers.patient:
            await self.background.wait(SHUTDOWN_PUBLISH_SECONDS)
        try:
            async with asyncio.timeout(LEASE_RELEASE_SECONDS):
                await self.registry.close(whole=not self.chores)
        except TimeoutError:
            logger.warning("Redis does not answer; the node's lease will expire by itself")
        await self.webhooks.close(WEBHOOK_CLOSE_SECONDS if self.peers.patient else SHUTDOWN_PUBLISH_SECONDS)
        await self.background.close()
        await self.bus.close()

    def lapsed(self) -> None:
        """Close all connections, so that they reconnect: the other nodes consider this node dead."""
        self.clients.dismiss_all(list(self.clients.open), errors.LEASE_LAPSED)
        self.admission.close(errors.LEASE_LAPSED)

    def unready(self) -> str | None:
        """Why this node should get no new clients now; None if it is ready."""
        reasons = (
            (self.clients.leaving, "draining"),
            (not self.bus.connected, "not connected to Redis"),
            (not self.registry.held, "the node's lease is not held"),
            (self.registry.stuck, "Redis does not take subscriptions"),
        )
        return next((reason for holds, reason in reasons if holds), None)


def compose(settings: Settings, bus: Bus, replies: Replies | None, redis: Named | None = None) -> Node:
    """Wire the parts of a node.

    :param replies: the chat's state in Redis, None when chat is off.
    :param redis: None for a node of one process without Redis.
    """
    loop = asyncio.get_running_loop()
    server, apps, background = settings.server, Directory(settings.apps), Background(loop)
    connections = ConnectionFigures()
    subscribed = SubscriptionFigures(server.max_subscriptions or sys.maxsize)
    chores, wheel = Chores(loop.call_soon), Wheel(loop)
    fanout = Fanout(loop.call_soon)
    hub = Hub(loop.call_soon, fanout)
    # The registry calls parts that need the registry. The node is complete before the first such call.
    registry = _registry(settings, apps, redis, lambda: node)
    webhooks = Webhooks(settings.apps, None if redis is None else partial(_confirm, registry))
    posting = BestEffort(bus, background.spawn)
    fence = Fence(bus.subscribe)
    healer = None if replies is None else Healer(replies, hub, loop.time, background.spawn, fence.passed)
    kinds = ChannelKinds(healer, CachedChannels(registry, hub), Rosters(registry, hub))
    recovery = Recovery(kinds, background.spawn)
    counts = SubscriptionCounts(
        registry,
        webhooks,
        wanted=lambda app_id: apps.has(app_id, "subscription_count"),
        local=hub.count,
        post=posting.post,
        later=background.spawn_later,
    )
    watchlists = Watchlists(
        hub,
        registry,
        wanted=lambda app_id: apps.has(app_id, "watchlist"),
        post=posting.post,
        spawn=background.spawn,
    )
    announcements = Announcements(webhooks, counts, watchlists)
    welcome = Welcome(hub, registry, kinds, announcements, background.spawn)
    subscriptions = Subscriptions(hub, registry, kinds.rosters, announcements, welcome, subscribed)
    sign_ins = SignIns(hub, registry, watchlists)
    departures = Departures(hub, registry, kinds.rosters, announcements, subscribed)
    clients = Clients(hub, registry, departures, chores, connections, server.max_connections)
    admission = Admission(server.path, apps, registry, clients, connections, loop)
    client_events = ClientEvents(posting, webhooks)
    delivery = Delivery(hub, kinds, recovery, fence, clients.dismiss_all)
    hub.start(Demand(hub, bus, kinds, fence, subscriptions, sign_ins))
    peers = Peers(registry)
    handover = Handover(hub, registry, departures, fence)
    drain = Drain(clients, admission, handover, peers, server.drain_seconds, loop.time)
    context = ClientContext(
        server=server,
        loop=loop,
        now=loop.time,
        budget=Budget(loop.call_soon),
        wheel=wheel,
        hub=hub,
        figures=connections,
        gate=admission,
        clients=clients,
        subscriptions=subscriptions,
        departures=departures,
        sign_ins=sign_ins,
        client_events=client_events,
    )
    node = Node(
        settings=settings,
        bus=bus,
        replies=replies,
        apps=apps,
        fanout=fanout,
        hub=hub,
        registry=registry,
        delivery=delivery,
        healer=healer,
        cached=kinds.cached,
        rosters=kinds.rosters,
        recovery=recovery,
        webhooks=webhooks,
        client_events=client_events,
        chores=chores,
        wheel=wheel,
        clients=clients,
        admission=admission,
        app_changes=AppChanges(apps, webhooks, clients, admission),
        announcements=announcements,
        peers=peers,
        drain=drain,
        context=context,
        background=background,
        turns=Turns(loop.call_soon),
        loop_delay=LoopDelay(loop.call_later),
        connections=connections,
        subscriptions=subscribed,
    )
    return node


def _registry(settings: Settings, apps: Directory, redis: Named | None, node: Callable[[], Node]) -> Registry:
    if redis is None:

        def publish(key: Key, envelope: Envelope) -> None:
            node().delivery.deliver(key, envelope)

        return LocalRegistry(publish)

    def lapsed() -> None:
        node().lapsed()

    def mine() -> Iterable[tuple[Key, str, Member | None]]:
        return node().clients.registered()

    def holding(app_id: str) -> bool:
        return apps.has(app_id, "webhooks")

    owner = RegistryOwner(lapsed, holding, mine, lambda: node().clients.state)
    connect = partial(redis_client, settings.redis.url, settings.redis.prefix)
    return RedisRegistry(redis, lease.new_name(), owner, settings.server.lease_seconds, connect)


def _confirm(registry: Registry, departure: Gone, answer: Callable[[bool], None]) -> None:
    """Ask the registry whether a departure is final, or the user came back on another node."""
    (app_id, channel), user_id = departure
    registry.release(Key(app_id, channel), user_id, answer)
