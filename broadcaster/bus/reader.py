"""Reads sharded channels over one connection to one Redis server, until the connection is lost."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Protocol

from redis.exceptions import ClusterDownError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from legato.broadcaster.limits import BUS_HEALTH_CHECK_SECONDS, CHANNELS_PER_SUBSCRIBE, MASTER_CHECK_SECONDS
from legato.protocol.redis.cancellation import end_task
from legato.protocol.redis.slots import slot_of
from legato.protocol.redis_url import Address

from .base import BusChannel
from .pubsub import NOT_ENOUGH_DATA, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis.asyncio.connection import AbstractConnection

    from legato.broadcaster.channels.subscriber import Key


class Listener(Protocol):
    """Receives what a feed reads. Names are those of sharded channels."""

    def heard(self, channel: BusChannel, data: bytes) -> None:
        """Take a message."""

    def confirmed(self, name: bytes) -> None:
        """Every message of the channel is received from now on."""

    def reached(self) -> None:
        """The connection is established."""

    def answered(self) -> None:
        """The server has answered on this connection."""

    def dropped(self, name: bytes) -> None:
        """The server has ended a subscription. The feed subscribes again, to learn the reason."""

    def moved(self, names: list[bytes], owner: Address) -> None:
        """Another server, ``owner``, has these channels. The feed has forgotten them."""

    def unserved(self, names: list[bytes]) -> None:
        """The server cannot serve these channels now. The feed has forgotten them."""


class Feed:
    """Subscribes to channels on one server, and passes on their messages.

    :param connection: used by this feed only; :meth:`run` connects it.
    :param sharded: the server belongs to a Cluster: a command names one channel, since slots differ.
    :ivar names: the subscribed channels.
    :ivar connected: whether the connection is established. Confirmations may still be missing.
    """

    def __init__(self, connection: AbstractConnection, listener: Listener, *, sharded: bool) -> None:
        self.names: dict[bytes, BusChannel] = {}
        self.connected = False
        self._connection = connection
        self._listener = listener
        self._sharded = sharded
        self._by_slot: dict[int, dict[bytes, None]] = {}
        self._subscribing: Counter[bytes] = Counter()
        self._unsubscribing: Counter[bytes] = Counter()
        self._commands: deque[tuple[str, bytes]] = deque()
        self._ready = asyncio.Event()
        self._heard = False

    def subscribe(self, name: bytes, key: Key) -> None:
        """Request a channel. It is confirmed when Redis answers."""
        self.names[name] = BusChannel(key)
        if self._sharded:
            self._by_slot.setdefault(slot_of(name), {})[name] = None
        self._command("SSUBSCRIBE", name)

    def unsubscribe(self, name: bytes) -> None:
        """End the subscription to a channel."""
        self._drop(name)
        self._command("SUNSUBSCRIBE", name)

    def _drop(self, name: bytes) -> bool:
        """Forget a channel. Returns whether it was subscribed."""
        if self.names.pop(name, None) is None:
            return False
        if self._sharded:
            slot = slot_of(name)
            of_slot = self._by_slot[slot]
            del of_slot[name]
            if not of_slot:
                del self._by_slot[slot]
        return True

    def _command(self, command: str, name: bytes) -> None:
        if self.connected:  # else `run` subscribes to all channels once it is
            (self._subscribing if command == "SSUBSCRIBE" else self._unsubscribing)[name] += 1
            self._commands.append((command, name))
            self._ready.set()

    async def run(self) -> None:
        """Connect, and read until the connection is lost. Raises the reason."""
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
            self.connected = True
            self._listener.reached()
            for name in self.names:
                self._command("SSUBSCRIBE", name)
            tasks = [asyncio.create_task(work) for work in (self._read(), self._watch(), self._write())]
            try:
                await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
                for task in tasks[:2]:
                    if task.done():
                        task.result()
            finally:
                for task in tasks:
                    await end_task(task)
        finally:
            await self._connection.disconnect(nowait=True)

    async def _write(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._commands:
                commands = list(_grouped(self._commands, 1 if self._sharded else CHANNELS_PER_SUBSCRIBE))
                try:
                    # redis-py's own health check would consume replies of the reader.
                    await self._connection.send_packed_command(
                        self._connection.pack_commands(commands), check_health=False
                    )
                except (RedisError, OSError):
                    return  # the connection is closed; the reader raises the reason

    async def _read(self) -> None:
        await listen(self._connection, self._hear)

    async def _watch(self) -> None:
        """Raise when the server stops answering, or is no longer a master."""
        asked, silent = False, 0.0
        wait = min(MASTER_CHECK_SECONDS, BUS_HEALTH_CHECK_SECONDS)
        while True:
            await asyncio.sleep(wait)
            if self._connection.should_reconnect():  # type: ignore[no-untyped-call]
                raise RedisConnectionError("the server is no longer a master")
            silent += wait
            if self._heard:
                self._heard, asked, silent = False, False, 0.0
            elif silent < BUS_HEALTH_CHECK_SECONDS:
                continue
            elif asked:
                raise RedisConnectionError("no answer to a PING")
            else:
                asked, silent = True, 0.0
                await self._connection.send_command("PING", check_health=False)

    def _hear(self, gets: Callable[[], Any]) -> None:
        """Process all replies of one read. Messages, the most frequent, are tested for first."""
        self._heard = True
        self._listener.answered()
        names, heard = self.names, self._listener.heard
        while (reply := gets()) is not NOT_ENOUGH_DATA:
            if isinstance(reply, list) and reply[0] == b"smessage":
                _, name, data = reply
                if (channel := names.get(name)) is not None:
                    heard(channel, data)
            else:
                self._on_reply(reply)

    def _on_reply(self, reply: Any) -> None:
        if not isinstance(reply, list):
            self._on_refusal(reply)
            return
        if len(reply) != 3:
            return  # a PONG
        kind, name, _ = reply
        if kind == b"ssubscribe":
            # After unsubscribe and subscribe, two confirmations are in flight: only the last one counts.
            self._subscribing[name] -= 1
            if self._subscribing[name] <= 0:
                del self._subscribing[name]
                if name in self.names:
                    self._listener.confirmed(name)
        elif kind == b"sunsubscribe":
            self._on_unsubscribed(name)

    def _on_refusal(self, reply: Any) -> None:
        match reply:
            case MovedError():
                self._on_moved(reply)
            case ClusterDownError():
                self._listener.unserved(self._forget(list(self._subscribing)))
            case Exception():
                raise reply

    def _on_unsubscribed(self, name: bytes) -> None:
        self._unsubscribing[name] -= 1
        unasked = self._unsubscribing[name] < 0
        if self._unsubscribing[name] <= 0:
            del self._unsubscribing[name]
        if unasked and name in self.names:
            self._listener.dropped(name)
            if name in self.names:
                self.subscribe(name, self.names[name].key)

    def _on_moved(self, error: MovedError) -> None:
        # Every command in flight for this slot gets the same error, so no other answer for the slot follows.
        for name in [name for name in self._unsubscribing if slot_of(name) == error.slot_id]:
            del self._unsubscribing[name]
        names = self._forget(self._by_slot.get(error.slot_id, ()))
        host = error.host or getattr(self._connection, "host", "")
        self._listener.moved(names, Address(host, error.port))

    def _forget(self, names: Iterable[bytes]) -> list[bytes]:
        """Forget channels. Returns those that were subscribed."""
        names = list(names)
        for name in names:
            del self._subscribing[name]
        return [name for name in names if self._drop(name)]


def _grouped(commands: deque[tuple[str, bytes]], together: int) -> Iterable[list[str | bytes]]:
    """Take up to :data:`CHANNELS_PER_SUBSCRIBE` commands; join consecutive ones of one kind. Keeps the order.

    :param together: the maximum number of channels in one command.
    """
    for _ in range(CHANNELS_PER_SUBSCRIBE):
        if not commands:
            return
        command, name = commands.popleft()
        group: list[str | bytes] = [command, name]
        while commands and commands[0][0] == command and len(group) <= together:
            group.append(commands.popleft()[1])
        yield group
