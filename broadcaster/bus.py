"""How messages reach every node: a local bus for one process, and sharded pub/sub on Redis.

The contract, which one suite of tests holds both to:

* ``publish`` returns when the message is accepted; it raises :class:`BusError` when it was not, or may not
  have been. Messages of one publisher on one channel are delivered in the order of its calls.
* ``subscribe`` asks for a channel; ``confirmed`` is called for it, at once or later, and everything
  published from then on is passed to ``deliver``, the own node's messages too.
* Delivery is at most once. When the connection is lost, ``lost`` is called and ``gaps`` counts one; the
  subscriptions come back by themselves and ``confirmed`` is called again. What was published meanwhile is
  lost.
* After ``unsubscribe`` nothing is delivered. A node keeps the channel on Redis for a few seconds all the same
  (:mod:`broadcaster.linger`): whoever subscribes again in that time is confirmed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from protocol import wire

from .redis_connections import HONEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from protocol.wire import Envelope

    from .hub import Key

    Deliver = Callable[[Key, Envelope], None]
    Confirmed = Callable[[Key], None]

logger: Final = logging.getLogger("legato.bus")

MAX_OUTBOX: Final = 10_000
"""Messages that may wait for Redis; beyond, publishing fails at once."""

SUBSCRIBE_CHUNK: Final = 500
"""Channels per SSUBSCRIBE."""

HEALTH_SECONDS: Final = 10.0
"""Without a reply for this long the connection is asked for a PONG, and given up if none comes."""

RETRY_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)


class BusError(Exception):
    """The bus cannot be reached, or is over its bound. The text names no credentials."""


class Bus(Protocol):
    """See the module's contract."""

    @property
    def gaps(self) -> int:
        """How often the connection was lost."""

    async def start(self, deliver: Deliver, confirmed: Confirmed, lost: Callable[[], None]) -> None:
        """Connect.

        :raises BusError: there is nothing to connect to.
        """

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """Accept all, in order.

        :raises BusError: not all were accepted.
        """

    def subscribe(self, key: Key) -> None:
        """Ask for a channel."""

    def unsubscribe(self, key: Key) -> None:
        """Ask for a channel no more."""

    async def close(self) -> None:
        """Deliver nothing any more."""


class LocalBus:
    """One process, no Redis: publishing is delivering."""

    def __init__(self) -> None:
        self.gaps = 0
        self._channels: set[Key] = set()

    async def start(self, deliver: Deliver, confirmed: Confirmed, lost: Callable[[], None]) -> None:
        """Remember whom to call; a local bus is never lost."""
        del lost
        self._deliver = deliver
        self._confirmed = confirmed

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """Deliver at once to the own node."""
        for key, envelope in messages:
            if key in self._channels:
                self._deliver(key, envelope)

    def subscribe(self, key: Key) -> None:
        """Confirm at once."""
        self._channels.add(key)
        self._confirmed(key)

    def unsubscribe(self, key: Key) -> None:
        """Forget the channel."""
        self._channels.discard(key)

    async def close(self) -> None:
        """Forget everything."""
        self._channels.clear()


def redis_client(url: str) -> Redis:
    """A client that waits for a connection of its pool and never repeats a command by itself.

    A blind repeat would publish twice, so whoever calls decides.

    :raises ValueError, TypeError: the URL's scheme, or an option in it, is not one that redis-py knows.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "max_connections": 32,
        "timeout": 5,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "health_check_interval": 15,
        "retry": Retry(NoBackoff(), 0),
        **parse_url(url),
    }
    options["connection_class"] = HONEST[options.get("connection_class", Connection)]
    pool = BlockingConnectionPool(**options)
    pool.make_connection()  # type: ignore[no-untyped-call]  # not connected yet: checks what the URL asks for
    return Redis.from_pool(pool)


class RedisBus:
    """Sharded pub/sub: a node receives only what its own subscribers need.

    One task writes what is published, in pipelines that grow with the load; one task reads, on a
    connection of its own, and one writes its subscriptions.
    """

    def __init__(self, redis: Redis) -> None:
        self.gaps = 0
        self._redis = redis
        self._keys: dict[bytes, Key] = {}
        self._unconfirmed: Counter[bytes] = Counter()
        self._commands: deque[tuple[str, bytes]] = deque()
        self._command_ready = asyncio.Event()
        self._outbox: deque[tuple[list[tuple[str, bytes]], asyncio.Future[None]]] = deque()
        self._outbox_messages = 0
        self._outbox_ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connected = asyncio.Event()
        self._attempt = 0

    async def start(self, deliver: Deliver, confirmed: Confirmed, lost: Callable[[], None]) -> None:
        """Connect and stay connected."""
        self._deliver = deliver
        self._confirmed = confirmed
        self._lost = lost
        try:
            await self._redis.ping()
            known = await _known(self._redis, "SSUBSCRIBE")
        except (RedisError, OSError) as error:
            raise BusError(f"Redis cannot be reached: {reason_of(error)}") from error
        if not known:
            raise BusError("this Redis has no SSUBSCRIBE; Redis 7.0 or newer, or Valkey, is needed")
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]
        await self._connected.wait()

    async def close(self) -> None:
        """End the tasks; what still waits in the outbox fails."""
        for task in self._tasks:
            await end_task(task)
        while self._outbox:
            _settle(self._outbox.popleft()[1], BusError("the server stops"))

    # --- publishing

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """Queue for the next pipeline and wait for Redis to accept it."""
        if self._outbox_messages + len(messages) > MAX_OUTBOX:
            raise BusError("too many messages wait for Redis")
        batch = [(wire.bus_channel(*key), wire.encode_envelope(envelope)) for key, envelope in messages]
        accepted = asyncio.get_running_loop().create_future()
        self._outbox.append((batch, accepted))
        self._outbox_messages += len(batch)
        self._outbox_ready.set()
        await accepted

    async def _send(self) -> None:
        while True:
            await self._outbox_ready.wait()
            self._outbox_ready.clear()
            taken = list(self._outbox)
            self._outbox.clear()
            self._outbox_messages = 0
            failure: BusError | None = BusError("the server stops")
            try:
                failure = await self._send_pipeline([message for batch, _ in taken for message in batch])
            finally:
                for _, accepted in taken:
                    _settle(accepted, failure)

    async def _send_pipeline(self, batch: list[tuple[str, bytes]]) -> BusError | None:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for channel, data in batch:
                    pipeline.execute_command("SPUBLISH", channel, data)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            return BusError(f"Redis did not accept the messages: {reason_of(error)}")
        except Exception:  # a fault of ours must not leave every publisher waiting
            logger.exception("publishing broke off")
            return BusError("the messages could not be published")
        return None

    # --- subscribing

    def subscribe(self, key: Key) -> None:
        """Ask for a channel; it is confirmed when Redis answers."""
        name = wire.bus_channel(*key).encode()
        self._keys[name] = key
        self._command("SSUBSCRIBE", name)

    def unsubscribe(self, key: Key) -> None:
        """Ask for a channel no more."""
        name = wire.bus_channel(*key).encode()
        self._keys.pop(name, None)
        self._command("SUNSUBSCRIBE", name)

    def _command(self, command: str, name: bytes) -> None:
        if self._connected.is_set():
            if command == "SSUBSCRIBE":
                self._unconfirmed[name] += 1
            self._commands.append((command, name))
            self._command_ready.set()
        # Without a connection there is nothing to say: the next one starts with all channels.

    async def _receive(self) -> None:
        while True:
            try:
                async with self._connection() as connection:
                    await self._read(connection)
            except (RedisError, OSError) as error:
                logger.warning("Redis connection lost (%s), reconnecting", reason_of(error))
            except Exception:  # a fault of ours must not leave the node deaf
                logger.exception("reading from Redis broke off, reconnecting")
            if self._connected.is_set():
                self._connected.clear()
                self.gaps += 1
                self._lost()
            await asyncio.sleep(RETRY_SECONDS[min(self._attempt, len(RETRY_SECONDS) - 1)])
            self._attempt += 1

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        """A connection that has every channel subscribed, with a task that writes further commands."""
        connection: AbstractConnection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        self._commands.clear()
        self._unconfirmed.clear()
        self._connected.set()
        for name in self._keys:
            self._command("SSUBSCRIBE", name)
        writer = asyncio.create_task(self._write_commands(connection))
        try:
            yield connection
        finally:
            await end_task(writer)
            await connection.disconnect(nowait=True)

    async def _write_commands(self, connection: AbstractConnection) -> None:
        while True:
            await self._command_ready.wait()
            self._command_ready.clear()
            for command, names in _grouped(self._commands):
                await _say(connection, command, *names)

    async def _read(self, connection: AbstractConnection) -> None:
        asked = False
        while True:
            reply = await connection.read_response(
                timeout=HEALTH_SECONDS, disconnect_on_error=False, push_request=True
            )
            if reply is not None:
                asked = False
                self._attempt = 0
                self._on_reply(reply)
            elif asked:
                raise RedisConnectionError("no answer to a PING")
            else:
                asked = True
                await _say(connection, "PING")

    def _on_reply(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) != 3:
            return  # a PONG
        kind, name, data = reply
        key = self._keys.get(name)
        if kind == b"smessage":
            if key is not None:
                self._on_message(key, data)
        elif kind == b"ssubscribe":
            # A channel dropped and asked for again has two on the way: only the last one counts.
            self._unconfirmed[name] -= 1
            if self._unconfirmed[name] <= 0:
                del self._unconfirmed[name]
                if key is not None:
                    self._confirmed(key)

    def _on_message(self, key: Key, data: bytes) -> None:
        try:
            envelope = wire.decode_envelope(data)
        except wire.EnvelopeError as error:
            logger.warning("ignored a message on the bus: %s", error)
            return
        self._deliver(key, envelope)


async def ask(call: Awaitable[Any] | Any) -> Any:
    """What Redis answers, with its errors translated.

    :raises BusError: it does not answer, or refuses.
    """
    try:
        return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise BusError("Redis does not answer") from error


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel until it takes: before Python 3.12, ``wait_for`` inside redis-py can drop a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


async def _known(redis: Redis, command: str) -> bool:
    """Whether the server has a command. Asked by hand: redis-py's parser breaks on "no"."""
    connection: AbstractConnection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("COMMAND", "INFO", command)
        (answer,) = await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)
    return answer is not None


async def _say(connection: AbstractConnection, command: str, *names: bytes) -> None:
    # redis-py's own health check would read replies that are the reader's.
    await connection.send_command(command, *names, check_health=False)


def _settle(accepted: asyncio.Future[None], failure: BusError | None) -> None:
    if accepted.done():  # the publisher has gone
        return
    if failure is None:
        accepted.set_result(None)
    else:
        accepted.set_exception(failure)


def _grouped(commands: deque[tuple[str, bytes]]) -> Iterable[tuple[str, list[bytes]]]:
    """Empty ``commands``, joining neighbours of one kind: order is kept."""
    while commands:
        command, name = commands.popleft()
        names = [name]
        while commands and commands[0][0] == command and len(names) < SUBSCRIBE_CHUNK:
            names.append(commands.popleft()[1])
        yield command, names


def reason_of(error: BaseException) -> str:
    """One line without credentials: redis-py names hosts and ports in its errors, never passwords."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
