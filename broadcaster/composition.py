"""The composition root: wires the parts of a node, starts a server with them, and stops it in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from legato.protocol.redis import advice as redis_advice
from legato.protocol.redis.cancellation import end_task

from . import lifecycle
from .addresses.opening import AddressLimits, ConnectionBounds
from .api.app import HttpApp, web
from .api.chat_parts import chat_parts
from .api.http_api import HttpApi
from .api.token_guard import guarded
from .apps.directory import Directory
from .apps.opening import open_source
from .apps.source import UnreadableError
from .background import Background
from .bus.base import BusError
from .bus.best_effort import BestEffort
from .bus.fence import Fence
from .bus.local import LocalBus
from .bus.redis import RedisBus
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
from .channels.presence import MemberLists
from .channels.sign_in import SignIns
from .channels.subscriber import Key
from .channels.subscription import Subscriptions
from .channels.watchlists import Watchlists
from .channels.welcome import Welcome
from .clients.admission import Admission
from .clients.app_changes import AppChanges
from .clients.client import ClientContext, EffectHandlers
from .clients.clients import Clients
from .clients.deferred_work import DeferredWork
from .clients.drain import Drain
from .clients.figures import ConnectionFigures
from .clients.handover import Handover
from .clients.peers import Peers
from .clients.timer_wheel import Wheel
from .conversations.opening import open_conversations
from .doors.answers import OpenAnswers
from .draining_server import DrainingServer, uvicorn_config
from .lifecycle import Lifecycle, Shutdown
from .observability import metrics
from .observability.loop_delay import LoopDelay
from .observability.refusals import RefusalLog
from .redis_client import redis_client
from .registry.codec import RegistryOwner
from .registry.opening import open_registry
from .replies.healer import Healer
from .replies.resync import Recovery
from .replies.store import Replies
from .transport.budget import Budget
from .transport.listener import AddressError, descriptors, listen
from .transport.polling import Fallback
from .transport.throttle import StartThrottle
from .webhooks.dispatcher import Webhooks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable

    import uvicorn

    from legato.protocol.holdback import Gone
    from legato.protocol.presence import Member
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.wire import Envelope

    from .apps.source import AppWatcher
    from .bus.base import Bus
    from .config import Settings
    from .conversations.archive import Conversations
    from .registry.base import Registry

logger: Final = logging.getLogger("legato.broadcaster")


class StartError(Exception):
    """The server cannot start. The text is one line for the user."""


@dataclass(frozen=True, repr=False)
class Node:
    """The parts of one node. Only this module holds all of them, and gives each what it needs."""

    settings: Settings
    addresses: AddressLimits
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
    member_lists: MemberLists
    recovery: Recovery
    webhooks: Webhooks
    client_events: ClientEvents
    deferred: DeferredWork
    wheel: Wheel
    clients: Clients
    admission: Admission
    app_changes: AppChanges
    announcements: Announcements
    peers: Peers
    drain: Drain
    context: ClientContext
    background: Background
    throttle: StartThrottle
    loop_delay: LoopDelay
    lifecycle: Lifecycle
    shutdown: Shutdown
    answers: OpenAnswers
    connections: ConnectionFigures
    subscriptions: SubscriptionFigures
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """HTTP requests by endpoint and status."""
    conversations: Conversations | None = None
    """The stored conversations; None without a database."""
    source: AppWatcher | None = None
    """Applications beside those of the settings; None if there is no source of them."""


class Running(NamedTuple):
    """A server that accepts connections. ``metrics_port`` is 0 without metrics, or if it was taken."""

    node: Node
    port: int
    metrics_port: int
    ended: asyncio.Task[None]
    uvicorn: DrainingServer


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """A server that drains and stops when the block ends.

    :raises StartError: a port is taken, or Redis or the applications' database cannot be used.
    :raises SettingsError: ``[auth]`` or an address cannot be used, or there is no application.
    """
    with _start_errors():
        listener = listen(settings.server.host, settings.server.port, reuse_port=settings.server.reuse_port)
    with listener:
        async with _node(settings) as node:
            settings = node.settings
            server = DrainingServer(server_config(node), node.shutdown, settings.server.notice_seconds)
            with _metrics(node) as metrics_port:
                ended = asyncio.create_task(server.serve(sockets=descriptors(listener)))
                await asyncio.wait({ended, server.ready}, return_when=asyncio.FIRST_COMPLETED)
                port = listener.getsockname()[1]
                lifecycle.announce(settings, port)
                try:
                    yield Running(node, port, metrics_port, ended, server)
                finally:
                    server.should_exit = True
                    await ended


@contextlib.contextmanager
def _start_errors() -> Generator[None, None, None]:
    try:
        yield
    except (AddressError, BusError, UnreadableError) as error:
        raise StartError(str(error)) from error


@contextlib.asynccontextmanager
async def _node(settings: Settings) -> AsyncIterator[Node]:
    url = settings.redis.url
    connection = redis_client(url, settings.redis.prefix) if url else contextlib.nullcontext()
    async with (
        connection as redis,
        open_source(settings, redis) as source,
        open_conversations(settings.chat.database_url) as conversations,
    ):
        if source is not None:
            with _start_errors():
                settings = msgspec.structs.replace(settings, apps=await source.load())
        node = replace(_composed(settings, redis), conversations=conversations, source=source)
        with _start_errors():
            await node.lifecycle.start(node.delivery, node.announcements)
        if redis is not None:
            await redis_advice.warn(redis, logger)
        watch = None if source is None else asyncio.create_task(source.watch(node.app_changes.apply))
        try:
            yield node
        finally:
            if watch is not None:
                await end_task(watch)
            await node.lifecycle.close()


def _composed(settings: Settings, redis: Named | None) -> Node:
    if redis is None:
        logger.warning("no Redis configured: local bus, one process, chat is off")
        return compose(settings, LocalBus(), None)
    chat_app = settings.app(settings.chat.app).id
    return compose(settings, RedisBus(redis), Replies(redis, settings.chat, chat_app), redis)


def server_config(node: Node) -> uvicorn.Config:
    """What uvicorn needs in order to serve the node."""
    settings, context, figures = node.settings, node.context, node.requests
    ready = partial(lifecycle.unready, node.clients, node.bus, node.registry)
    chat = chat_parts(node.replies, node.conversations, node.bus, node.hub, node.background, node.answers)
    watched = (figures, node.addresses, context.refused)
    app = HttpApp(
        HttpApi(settings.server, node.apps, node.bus, node.registry, *watched),
        Fallback(context),
        guarded(web(settings, node.apps, chat, ready, figures, context.budget), node.addresses),
    )
    return uvicorn_config(settings.server, app, context, node.throttle)


@contextlib.contextmanager
def _metrics(node: Node) -> Generator[int, None, None]:
    settings = node.settings.metrics
    if not settings.enabled:
        yield 0
        return
    with _start_errors():
        port, stop = metrics.serve(_measured(node), settings.host, settings.port)
    if port:
        logger.info("metrics on http://%s:%d/metrics", settings.host, port)
    try:
        yield port
    finally:
        stop()


def _measured(node: Node) -> metrics.MeasuredParts:
    return metrics.MeasuredParts(
        connections=node.connections,
        refusals=node.addresses.refusals,
        subscriptions=node.subscriptions,
        requests=node.requests,
        hub=node.hub,
        fanout=node.fanout,
        bus=node.bus,
        recovery=node.recovery,
        healer=node.healer,
        member_lists=node.member_lists,
        cached=node.cached,
        client_events=node.client_events,
        webhooks=node.webhooks,
        replies=node.replies,
        answers=node.answers,
        loop_delay=node.loop_delay,
    )


def compose(settings: Settings, bus: Bus, replies: Replies | None, redis: Named | None = None) -> Node:
    """Wire the parts of a node.

    :param replies: the chat's state in Redis, None when chat is off.
    :param redis: None for a node of one process without Redis.
    """
    loop = asyncio.get_running_loop()
    server, apps, background = settings.server, Directory(settings.apps), Background(loop)
    connections, refused = ConnectionFigures(), RefusalLog(loop.call_later)
    subscribed, addresses = SubscriptionFigures(), AddressLimits(server, loop.time, refused)
    subscribed.limit(server.max_subscriptions)
    deferred, wheel = DeferredWork(loop.call_soon), Wheel(loop)
    fanout = Fanout(loop.call_soon)
    hub = Hub(loop.call_soon, fanout)

    # The registry calls parts that need the registry. They exist before the first such call.
    def publish(key: Key, envelope: Envelope) -> None:
        delivery.deliver(key, envelope)

    def mine() -> Iterable[tuple[Key, str, Member | None]]:
        return clients.registered()

    owner = RegistryOwner(
        lapsed=lambda: lifecycle.close_lapsed(clients, admission),
        holding=lambda app_id: apps.has(app_id, "webhooks"),
        mine=mine,
        state=lambda: clients.state,
    )
    registry = open_registry(settings, redis, owner, publish)
    webhooks = Webhooks(settings.apps, None if redis is None else partial(_confirm, registry))
    posting = BestEffort(bus, background.spawn)
    fence = Fence(bus.subscribe)
    healer = None if replies is None else Healer(replies, hub, loop.time, background.spawn, fence.passed)
    kinds = ChannelKinds(healer, CachedChannels(registry, hub), MemberLists(registry, hub))
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
    subscriptions = Subscriptions(hub, registry, kinds.member_lists, announcements, welcome, subscribed)
    sign_ins = SignIns(hub, registry, watchlists)
    departures = Departures(hub, registry, kinds.member_lists, announcements, subscribed)
    bounds = ConnectionBounds(server.max_connections, addresses)
    clients = Clients(hub, registry, departures, deferred, connections, bounds)
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
        refused=refused,
        admission=admission,
        clients=clients,
        effects=EffectHandlers(
            subscribe=subscriptions.subscribe,
            unsubscribe=departures.unsubscribe,
            sign_in=sign_ins.sign_in,
            relay=client_events.relay,
        ),
        addresses=addresses,
    )
    answers = OpenAnswers(settings.doors)
    loop_delay = LoopDelay(loop.call_later)
    measured = loop_delay if settings.metrics.enabled else None
    return Node(
        settings=settings,
        addresses=addresses,
        bus=bus,
        replies=replies,
        apps=apps,
        fanout=fanout,
        hub=hub,
        registry=registry,
        delivery=delivery,
        healer=healer,
        cached=kinds.cached,
        member_lists=kinds.member_lists,
        recovery=recovery,
        webhooks=webhooks,
        client_events=client_events,
        deferred=deferred,
        wheel=wheel,
        clients=clients,
        admission=admission,
        app_changes=AppChanges(apps, webhooks, clients, admission),
        announcements=announcements,
        peers=peers,
        drain=drain,
        context=context,
        background=background,
        throttle=StartThrottle(loop.call_soon),
        loop_delay=loop_delay,
        lifecycle=Lifecycle(bus, registry, webhooks, healer, measured, wheel, deferred, peers, background),
        shutdown=Shutdown(clients, peers, drain, partial(answers.drain, server.drain_seconds)),
        answers=answers,
        connections=connections,
        subscriptions=subscribed,
    )


def _confirm(registry: Registry, departure: Gone, answer: Callable[[bool], None]) -> None:
    """Ask the registry whether a departure is final, or the user came back on another node."""
    (app_id, channel), user_id = departure
    registry.release(Key(app_id, channel), user_id, answer)
