"""One broadcaster node: its connections, its hub, its bus, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from legato.protocol import errors, messages, presence, users
from legato.protocol.channels import SERVER_TO_USER, Channel
from legato.protocol.redis.cancellation import end_task
from legato.protocol.session import Relay, Session, SignIn, Subscribe
from legato.protocol.wire import CACHED, CONNECTIONS, RECONNECT, TERMINATE, Envelope

from .apps.directory import Directory
from .bus.base import BusError
from .channels import watchlists
from .channels.cache import CachedChannels
from .channels.counts import SubscriptionCounts
from .channels.fanout import Fanout
from .channels.hub import Hub
from .channels.presence import Rosters
from .channels.subscriber import Key, Subscriber
from .channels.watchlists import Watchlists
from .clients import drain
from .clients.admission import Entrance
from .clients.chores import Chores
from .clients.client import LEFT
from .clients.timer_wheel import Wheel
from .observability.loop_delay import LoopDelay
from .redis_client import redis_client
from .registry import lease as leases
from .registry.base import Joined, Left, LocalRegistry, Registry
from .registry.codec import Owner
from .registry.redis import RedisRegistry
from .replies.healer import Healer
from .replies.resync import Recovery
from .slices import slices
from .transport.budget import Budget
from .transport.frames import text_frame
from .transport.throttle import Turns
from .webhooks import dispatcher as webhooks
from .webhooks.dispatcher import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator

    from legato.protocol.apps import App
    from legato.protocol.errors import PusherError
    from legato.protocol.holdback import Gone
    from legato.protocol.presence import Member
    from legato.protocol.redis.pipeline import Named

    from .bus.base import Bus, BusChannel
    from .clients.client import Asked, Client
    from .config import Settings
    from .replies.snapshot import Look
    from .replies.store import Replies

logger: Final = logging.getLogger("legato.node")

FLUSH_SECONDS: Final = 2.0
"""How long the end waits for what clients have said to be published."""

REGISTRY_SECONDS: Final = 4.0
"""How long the end waits for Redis to take the lease back."""

SUBSCRIBED: Final = Subscribe(Channel("answered"))
"""Stands for all that were answered and have no member: what asked for them is needed no more."""

COMMANDS: Final = {TERMINATE: errors.TERMINATED, RECONNECT: errors.RECONNECT}
"""What ends the connections that have a channel."""


class Node:
    """The composition that every connection and every request works with.

    :param replies: the chat's state in Redis, None when chat is off.
    """

    def __init__(
        self, settings: Settings, bus: Bus, replies: Replies | None, redis: Named | None = None
    ) -> None:
        self.settings = settings
        self.bus = bus
        self.replies = replies
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.wall = time.time
        self.fanout = Fanout(self.loop.call_soon)
        self.hub = Hub(self.loop.call_soon, self.fanout)
        self.opened = bus.subscribe
        self.hub.start(self)
        self.registry = self._registry(redis)
        self.peers = drain.Peers(self.registry)
        self.entrance = Entrance(self)
        self.fence = drain.Fence(bus.subscribe)
        self.turns = Turns(self.loop.call_soon)
        self.budget = Budget(self.loop.call_soon)
        self.chores = Chores(self.loop.call_soon)
        self.wheel = Wheel(self.loop)
        self.loop_delay = LoopDelay(self.loop.call_later)
        self.webhooks = Webhooks(settings.apps, None if redis is None else self._confirm_departure)
        self.apps = Directory(settings.apps)
        self.connections: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.subscriptions = 0
        self.subscriptions_refused = 0
        self._most_subscriptions = settings.server.max_subscriptions or sys.maxsize
        self.accepted = 0
        self.client_events = 0
        self.slow_connections = 0
        self.slow_closed = 0
        self.leaving = False
        self.draining = False
        self.open: set[Client] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.Task[None] | None = None
        self.healer = (
            None if replies is None else Healer(replies, self.hub, self.now, self._spawn, self.fence.passed)
        )
        self.cached = CachedChannels(self.registry, self.hub)
        self.rosters = Rosters(self.registry, self.hub)
        self.recovery = Recovery(self.healer, self.cached, self.rosters, self._spawn)
        self._counts = SubscriptionCounts(
            self.registry,
            self.webhooks,
            wanted=lambda app_id: self.apps.has(app_id, "subscription_count"),
            local=self.hub.count,
            post=self._post,
            later=self._spawn_later,
        )
        self._watchlists = Watchlists(
            self.hub,
            self.registry,
            wanted=lambda app_id: self.apps.has(app_id, "watchlist"),
            post=self._post,
            spawn=self._spawn,
        )

    def _registry(self, redis: Named | None) -> Registry:
        if redis is None:
            return LocalRegistry(self._deliver)
        return RedisRegistry(
            redis,
            leases.new_name(),
            Owner(self.lapsed, lambda app_id: self.apps.has(app_id, "webhooks"), self._joined, self._state),
            self.settings.server.lease_seconds,
            partial(redis_client, self.settings.redis.url, self.settings.redis.prefix),
        )

    async def start(self) -> None:
        """Join the bus.

        :raises BusError: it cannot be reached.
        """
        await self.webhooks.start()
        await self.bus.start(self)
        await self.registry.start(self._left)
        if self.healer is not None:
            self._sweep = self.loop.create_task(self.healer.sweep())
        if self.settings.metrics.enabled:
            self.loop_delay.start()

    async def close(self) -> None:
        """Leave the bus. Departures that are held back go to another node, or are told if there is none."""
        self.wheel.close()
        self.loop_delay.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self.chores.done()
        if self._sweep is not None:
            await end_task(self._sweep)
        if not await self.peers.ask():
            self.webhooks.release()
        if self._tasks and self.peers.patient:
            await asyncio.wait(self._tasks, timeout=FLUSH_SECONDS)
        try:
            async with asyncio.timeout(REGISTRY_SECONDS):
                await self.registry.close(whole=not self.chores)
        except TimeoutError:
            logger.warning("the node's lease is left to lapse: Redis does not answer")
        await self.webhooks.close(webhooks.CLOSE_SECONDS if self.peers.patient else FLUSH_SECONDS)
        for task in list(self._tasks):
            await end_task(task)
        await self.bus.close()

    def lost(self, keys: Collection[Key]) -> None:
        self.hub.suspend(keys)
        self.fence.lost(keys)

    def message(self, channel: BusChannel, envelope: Envelope) -> None:
        if envelope.stream is not None and self.healer is not None:
            self.healer.take(channel, envelope)
        else:
            self._deliver(channel.key, envelope)

    def _deliver(self, key: Key, envelope: Envelope) -> None:
        if not envelope.command:
            self.rosters.take(key, envelope)
        elif envelope.command in COMMANDS:
            clients = [cast("Client", subscriber) for subscriber in self.hub.subscribers(key)]
            self.dismiss_all(clients, COMMANDS[envelope.command])
        elif envelope.command == CACHED:
            self.cached.take(key, envelope)
        else:
            self.hub.deliver(key, envelope.payload, envelope.except_socket_id)

    def confirmed(self, key: Key) -> None:
        """The bus delivers the channel."""
        if self.healer is not None:
            self.healer.open(key)
        missed = self.hub.confirm(key)
        self.fence.confirmed(key)
        if missed:
            self.recovery.missed(key)

    def vacated(self, key: Key) -> None:
        """The channel has lost its last subscriber here."""
        if self.healer is not None:
            self.healer.drop(key)
        self.cached.drop(key)
        self.bus.unsubscribe(key)
        self.fence.confirmed(key)

    # --- applications

    async def set_apps(self, apps: tuple[App, ...]) -> None:
        """Go on with these: from now on every look-up and every open connection is by them."""
        if apps == tuple(self.apps.by_id.values()):
            return
        logger.info("applications: %s", ", ".join(app.id for app in apps) or "none")
        self.apps.replace(apps)
        self.webhooks.set_apps(apps)
        unwelcome: dict[PusherError, list[Client]] = {}
        async for part in slices(list(self.open)):
            for client in part:
                session = client.session
                error = None if session is None else self._change_app(client, session)
                if error is not None:
                    unwelcome.setdefault(error, []).append(client)
        for error, clients in unwelcome.items():
            self.dismiss_all(clients, error)

    def _change_app(self, client: Client, session: Session) -> PusherError | None:
        """Why the client cannot stay; None if it goes on by the settings of now."""
        app = self.apps.by_id.get(session.app.id)
        if app is None:
            return errors.UNKNOWN_APP
        if not app.enabled:
            return errors.APP_DISABLED
        session.app = app
        self.entrance.count(client, app)
        return None

    # --- connections

    @property
    def takes_nobody(self) -> bool:
        """Whether no connection is let in."""
        limit = self.settings.server.max_connections
        return self.draining or 0 < limit <= len(self.open)

    def _state(self) -> str:
        if self.leaving:
            return leases.LEAVING
        return leases.FULL if self.takes_nobody else leases.OPEN

    def enter(self, client: Client, session: Session) -> None:
        """Count an accepted connection and watch over it."""
        self.accepted += 1
        app_id = session.app.id
        self.connections[app_id] = count = self.connections[app_id] + 1
        self.registry.connected(app_id, count)
        self.open.add(client)
        self.wheel.add(client, session.deadline)

    def leave(self, client: Client, session: Session) -> None:
        """Undo :meth:`enter`, and every subscription: nothing more reaches the client, the rest by and by."""
        app_id = session.app.id
        self.connections[app_id] = count = self.connections[app_id] - 1
        self.registry.connected(app_id, count)
        self.open.discard(client)
        keys, client.keys = client.keys, {}
        if self.chores.take(len(keys)):
            for key, effect in keys.items():
                self._drop(client, key, effect, disconnect=True)
        else:
            if session.app.max_connections:  # somebody may wait for the place
                key = Key(session.app.id, CONNECTIONS)
                if key in keys:
                    self._drop(client, key, keys.pop(key), disconnect=True)
            if not self.chores.put(self._departure(client, keys, self.registry.name)):
                self.hub.depart(client)

    def _departure(self, client: Client, keys: dict[Key, Asked], name: str) -> Iterator[None]:
        """Subscriptions end, one at each step. ``name`` is the one under which the registry has them."""
        for key, effect in keys.items():
            self.hub.unsubscribe(client, key)
            if effect is not LEFT:
                self.end(client, key, effect, disconnect=True, name=name)
            yield
        self.hub.departed(client)

    def dismiss(self, client: Client, error: PusherError) -> None:
        """Close a connection for a reason of the server's, behind what was published before."""
        self.hub.catch_up(client)
        client.close(error)

    def dismiss_all(self, clients: Collection[Client], error: PusherError) -> None:
        """:meth:`dismiss` for many: all of them have left from now on, and are told so by and by."""

        def goodbyes() -> Iterator[None]:
            for client in clients:
                self.dismiss(client, error)
                yield

        if not self.chores.put(goodbyes()):
            for client in clients:
                self.hub.catch_up(client)
                client.leave()

    # --- subscriptions

    def subscribe(self, client: Client, key: Key, effect: Subscribe) -> None:
        """Carry out the effect; the answer comes when the channel delivers (protocol section 4.4)."""
        if key not in client.keys:
            if self.subscriptions >= self._most_subscriptions:
                self._refuse_in_turn(client, key, effect)
                return
            if not effect.first:  # refused while this one waited for its turn
                self._refuse(client, key, effect, self._members_reason(client))
                return
            self.subscriptions += 1
        client.keys[key] = effect
        if effect.member is not None:
            self.rosters.came(key, effect.member, client.socket_id)
        if client.order.begin(key):
            client.hold_up()
        self.hub.subscribe(client, key)

    def unsubscribe(self, client: Client, session: Session, channel: str) -> None:
        """Carry out the effect."""
        key = Key(session.app.id, channel)
        if key in client.keys:
            self._drop(client, key, client.keys.pop(key), disconnect=False)

    def _drop(self, client: Client, key: Key, effect: Asked, *, disconnect: bool) -> None:
        self.hub.unsubscribe(client, key)
        if effect is not LEFT:
            self.end(client, key, effect, disconnect=disconnect)

    def end(self, client: Client, key: Key, effect: Asked, *, disconnect: bool, name: str = "") -> None:
        """The subscription ends for everybody else; the channel is still delivered to the client.

        :param name: under which the registry has it, if not its present one.
        """
        member = None
        if isinstance(effect, Subscribe):
            self.subscriptions -= 1
            if (member := effect.member) is not None:
                self.rosters.went(key, member, client.socket_id)
        if not key.channel.startswith(watchlists.CHANNELS):
            self.registry.leave(
                key,
                client.socket_id,
                member,
                lambda left: self._left(key, member, left, disconnect=disconnect),
                disconnect=disconnect,
                name=name,
            )

    def ready(self, subscriber: Subscriber, key: Key) -> None:
        """The channel delivers: join it with all nodes, then answer.

        Not before: whoever has the answer may rely on being counted everywhere.
        """
        client = cast("Client", subscriber)
        match client.keys.get(key):
            case Subscribe() as effect:
                self._join(client, key, effect)
            case SignIn() as effect:
                self._join_as_user(client, key, effect)
            case None:
                self.hub.admit(client, key, b"")

    def _join(self, client: Client, key: Key, effect: Subscribe) -> None:
        member = effect.member
        assert client.session is not None  # noqa: S101 - one that has left has no key in the hub
        limit = client.session.app.max_presence_members
        look = None if self.healer is None else self.healer.look(key)

        def done(joined: Joined) -> None:
            if not joined.full:  # at once: a departure, and what the welcome finds, are told after it
                self._tell_joined(key, member, joined)
            if client.keys.get(key) is effect:  # else it has left meanwhile
                client.settle(key, lambda: self._answer(client, key, effect, joined, look))
            else:
                self._after_welcome(key, member, joined)

        self.registry.join(key, client.socket_id, member, limit, done)

    def _answer(self, client: Client, key: Key, effect: Subscribe, joined: Joined, look: Look | None) -> None:
        if joined.full:
            del client.keys[key]
            self.subscriptions -= 1
            self.hub.unsubscribe(client, key)
            if effect.member is not None:
                self.rosters.went(key, effect.member, client.socket_id)
            self._refuse(client, key, effect, self._members_reason(client))
            return
        roster = () if effect.member is None else (presence.roster_data(joined.members),)
        welcome = effect.channel.cache or look is not None
        if effect.member is None and not welcome:
            client.keys[key] = SUBSCRIBED
        self._admit(client, key, messages.subscription_succeeded(key.channel, *roster))
        if welcome:
            self._spawn(self._welcome(client, key, effect, joined, look))
        else:
            self._after_welcome(key, effect.member, joined)

    def _admit(self, client: Client, key: Key, reply: bytes) -> None:
        self.hub.admit(client, key, text_frame(reply))

    def _refuse_in_turn(self, client: Client, key: Key, effect: Subscribe) -> None:
        """The process has as many subscriptions as it may."""
        self.subscriptions_refused += 1
        reason = f"The server has {self._most_subscriptions} subscriptions already"
        client.order.begin(key)
        client.settle(key, lambda: self._refuse(client, key, effect, reason))

    def _members_reason(self, client: Client) -> str:
        limit = 0 if client.session is None else client.session.app.max_presence_members
        return f"The channel has {limit} members already"

    def _refuse(self, client: Client, key: Key, effect: Subscribe, reason: str) -> None:
        """A limit is reached (section 4.5)."""
        if client.session is not None:
            client.session.dropped(key.channel, effect.member)
            client.send(messages.subscription_error(key.channel, "LimitReached", reason, 4100))

    async def _welcome(
        self, client: Client, key: Key, effect: Subscribe, joined: Joined, look: Look | None
    ) -> None:
        """What follows the answer: the cached event, replies that stream already, then the count."""
        cached: list[bytes] = []
        snapshots: list[bytes] = []
        try:
            cached = await self._cached(key) if effect.channel.cache else []
            if self.healer is not None and look is not None:
                snapshots = await self.healer.snapshots(key, look)
        except BusError as error:
            logger.warning("no snapshot for a new subscriber: %s", error)
        if client.keys.get(key) is effect:
            for frame in cached:
                client.send(frame)
            if snapshots:  # behind what the channel has delivered: they say what follows that
                self.hub.admit(client, key, b"".join(map(text_frame, snapshots)))
        self._after_welcome(key, effect.member, joined)

    async def _cached(self, key: Key) -> list[bytes]:
        cached = await self.registry.recall(key)
        self.cached.welcomed(key, 0 if cached is None else cached.version)
        if cached is None:
            self.webhooks.cache_miss(*key)
            return [messages.cache_miss(key.channel)]
        return [messages.channel_event(cached.event, key.channel, cached.data)]

    def _tell_joined(self, key: Key, member: Member | None, joined: Joined) -> None:
        if joined.first and not joined.back:
            self.webhooks.channel_occupied(*key)
        if member is not None and joined.first_of_user and not joined.user_back:
            self.webhooks.member_added(*key, member.id)

    def _after_welcome(self, key: Key, member: Member | None, joined: Joined) -> None:
        if member is None:
            self._counts.changed(key, joined.subscriptions)

    def _confirm_departure(self, departure: Gone, answer: Callable[[bool], None]) -> None:
        """Whether nobody has come back on another node."""
        (app_id, channel), user_id = departure
        self.registry.release(Key(app_id, channel), user_id, answer)

    def _left(self, key: Key, member: Member | None, left: Left, *, disconnect: bool = True) -> None:
        if key.channel == CONNECTIONS:
            return
        if key.channel.startswith(SERVER_TO_USER):
            if left.last:
                self._watchlists.tell_watchers(key, "offline")
            return
        if member is not None and left.last_of_user:
            self.webhooks.member_removed(*key, member.id, disconnect=disconnect)
        if member is None and (left.last or left.subscriptions):
            self._counts.changed(key, left.subscriptions)
        if left.last:
            self.webhooks.channel_vacated(*key, disconnect=left.held)

    # --- client events

    def relay(self, client: Client, session: Session, effect: Relay) -> None:
        """A client event to all other subscribers, on every node (section 6)."""
        key = Key(session.app.id, effect.channel)
        payload = messages.client_event(effect.event, effect.channel, effect.data, effect.user_id)
        self.client_events += 1
        data = effect.data or None
        self.webhooks.client_event(*key, effect.event, data, client.socket_id, effect.user_id)
        self._post(key, Envelope(payload, client.socket_id))

    def _post(self, key: Key, envelope: Envelope) -> None:
        """Publish without waiting; a message that the bus does not take is lost, as section 6 allows."""
        self._spawn(self._publish(key, envelope))

    async def _publish(self, key: Key, envelope: Envelope) -> None:
        try:
            await self.bus.publish([(key, envelope)])
        except BusError as error:
            logger.warning("a message of a client is lost: %s", error)

    # --- users

    def sign_in(self, client: Client, session: Session, effect: SignIn) -> None:
        """The client gets its user's events from now on, and those of whom it watches (section 7)."""
        key = Key(session.app.id, users.user_channel(effect.user.id))
        client.keys[key] = effect
        client.order.begin(key)
        self.hub.subscribe(client, key)

    def _join_as_user(self, client: Client, key: Key, effect: SignIn) -> None:
        def done(joined: Joined) -> None:
            if joined.first:
                self._watchlists.tell_watchers(key, "online")
            client.settle(key, lambda: self._signed_in(client, key, effect))

        self.registry.join(key, client.socket_id, None, 0, done)

    def _signed_in(self, client: Client, key: Key, effect: SignIn) -> None:
        self._admit(client, key, effect.reply)
        self._watchlists.watch(client, key, effect.user.watchlist)

    def lapsed(self) -> None:
        """The others have taken this node for dead: its connections start anew."""
        self.dismiss_all(list(self.open), errors.LEASE_LAPSED)
        self.entrance.close(errors.LEASE_LAPSED)

    def _joined(self) -> Iterator[tuple[Key, str, Member | None]]:
        """What this node holds in the registry."""
        for client in list(self.open):
            for key, effect in list(client.keys.items()):
                counts = effect is not LEFT and not key.channel.startswith(watchlists.CHANNELS)
                if counts and not self.hub.waits(client, key):
                    yield key, client.socket_id, effect.member if isinstance(effect, Subscribe) else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _spawn_later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.loop.call_later(seconds, lambda: self._spawn(work()))

    def unready(self) -> str | None:
        """Why no new clients should come to this node now; None if they may."""
        reasons = (
            (self.leaving, "draining"),
            (not self.bus.connected, "not connected to Redis"),
            (not self.registry.held, "the node's lease is not held"),
            (self.registry.stuck, "Redis does not take subscriptions"),
        )
        return next((reason for holds, reason in reasons if holds), None)
