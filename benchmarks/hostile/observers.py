"""Well-behaved clients that measure the effects of an attack."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from legato.benchmarks.load.http import ApiConnection
from legato.protocol.signatures import sign_channel

from . import tasks
from .by_http import HOSTILE, WHOLE
from .by_websocket import OBSERVED

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from typing import Self

    from legato.benchmarks.load.orders import LoadTarget

PING_EVERY: Final = 0.05
PUBLISH_EVERY: Final = 0.1
NEWCOMER_EVERY: Final = 0.5
GIVE_UP: Final = 60.0
"""Time-out of a new client, in seconds."""

CHANNELS: Final = ("observed", OBSERVED)
EVENT: Final = "seen"

_PING: Final = '{"event":"pusher:ping","data":{}}'


class Sample(NamedTuple):
    """One delay. ``due``: its scheduled start, in seconds of the monotonic clock."""

    due: float
    seconds: float


class ServerAddress(NamedTuple):
    """Where clients connect."""

    node: int
    target: LoadTarget
    tls: ssl.SSLContext | None

    @property
    def url(self) -> str:
        """For WebSockets."""
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://{self.target.host}:{self.target.port}/app/{self.target.key}?protocol=7&client=observer"


async def _paced(every: float) -> None:
    """Sleep until the next time of a schedule."""
    await asyncio.sleep(every - time.monotonic() % every)


class Other(Protocol):
    """An observer of an attack.

    :ivar faults: errors that a well-behaved client must never see.
    """

    faults: list[str]

    @property
    def waiting(self) -> Iterable[float]:
        """Scheduled times of everything that has not arrived."""

    async def __aenter__(self) -> Self:
        """Start."""

    async def __aexit__(self, *_: object) -> None:
        """Stop."""


class Follower:
    """A client that pings by schedule, and checks the events of all publishers.

    :ivar pings: delay of each pong, from the scheduled time of its ping.
    """

    def __init__(self, place: ServerAddress, name: str) -> None:
        self.place = place
        self.name = f"{name} on node {place.node + 1}"
        self.pings: list[Sample] = []
        self.late: list[Sample] = []
        self.faults: list[str] = []
        self.next: dict[int, int] = {}
        self._due: deque[float] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._join()
        self._tasks += [asyncio.create_task(self._read()), asyncio.create_task(self._ping())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await tasks.end(self._tasks)
        self._leave()

    @property
    def waiting(self) -> Iterable[float]:
        """Scheduled times of the pings without an answer."""
        return tuple(self._due)

    def subscription(self, channel: str, socket_id: str) -> dict[str, object]:
        """The message that subscribes to a channel."""
        target = self.place.target
        data = {"channel": channel}
        if channel == OBSERVED:
            data["auth"] = sign_channel(target.key, target.secret, socket_id, channel)
        return {"event": "pusher:subscribe", "data": data}

    async def _join(self) -> None:
        """Connect and subscribe."""
        raise NotImplementedError

    def _leave(self) -> None:
        """Close without waiting for a close frame, which a stuck server does not send."""
        raise NotImplementedError

    async def _say(self, text: str) -> None:
        """Send a message; also returns if the server has closed."""
        raise NotImplementedError

    async def _read(self) -> None:
        """Receive messages until the server closes."""
        raise NotImplementedError

    async def _ping(self) -> None:
        due = time.monotonic()
        while True:
            due += PING_EVERY
            await asyncio.sleep(due - time.monotonic())
            self._due.append(due)
            self.late.append(Sample(due, time.monotonic() - due))
            await self._say(_PING)

    def _hear(self, text: str | bytes) -> None:
        message = json.loads(text)
        event = message["event"]
        if event == "pusher:pong":
            due = self._due.popleft()
            self.pings.append(Sample(due, time.monotonic() - due))
        elif event == EVENT:
            self._follow(**json.loads(message["data"]))
        elif event == HOSTILE and message["data"].encode() != WHOLE:
            self.faults.append(f"an event came without its data: {text!r:.200}")
        elif event == "pusher:error":
            self.faults.append(f"an error: {text!r:.200}")

    def _follow(self, of: int, n: int) -> None:
        wanted = self.next.get(of)
        if wanted is not None and n != wanted:
            self.faults.append(f"event {n} of publisher {of + 1} came where {wanted} was next")
        self.next[of] = n + 1


class ObservingClient(Follower):
    """A client over WebSocket."""

    def __init__(self, place: ServerAddress, number: int) -> None:
        super().__init__(place, f"observer {number}")
        self._socket: ClientConnection | None = None

    async def _join(self) -> None:
        self._socket = await connect(self.place.url, ssl=self.place.tls, ping_interval=None, proxy=None)
        greeting = json.loads(json.loads(await self._socket.recv())["data"])
        for channel in CHANNELS:
            await self._socket.send(json.dumps(self.subscription(channel, greeting["socket_id"])))
            await self._socket.recv()

    def _leave(self) -> None:
        if self._socket is not None:
            self._socket.transport.abort()

    async def _say(self, text: str) -> None:
        assert self._socket is not None  # noqa: S101 - it has joined
        with suppress(ConnectionClosed):
            await self._socket.send(text)

    async def _read(self) -> None:
        assert self._socket is not None  # noqa: S101 - as above
        try:
            while True:
                self._hear(await self._socket.recv())
        except ConnectionClosed as error:
            self.faults.append(f"disconnected: {error.rcvd or 'without a reason'}")


class Publisher:
    """A publisher of one event after the other, by schedule.

    :ivar accepted: accepted events.
    """

    def __init__(self, place: ServerAddress, number: int) -> None:
        self.number = number
        self.accepted = 0
        self.answers: list[Sample] = []
        self.faults: list[str] = []
        self._connection = ApiConnection(place.target, place.tls)
        self._due: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._publish())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101 - it was entered
        await tasks.end([self._task])
        self._connection.close()

    @property
    def waiting(self) -> Iterable[float]:
        """Scheduled time of the request without an answer."""
        return () if self._due is None else (self._due,)

    async def _publish(self) -> None:
        due = time.monotonic()
        while True:
            due += PUBLISH_EVERY
            await asyncio.sleep(due - time.monotonic())
            self._due = due
            data = json.dumps({"of": self.number, "n": self.accepted})
            body = json.dumps({"name": EVENT, "channel": CHANNELS[0], "data": data}).encode()
            try:
                status = await self._connection.post(body)
            except (OSError, TimeoutError) as error:
                self.faults.append(f"a publish failed: {type(error).__name__} {error}")
                return  # unknown whether the event was accepted, so later ones cannot be checked
            if status != 200:
                self.faults.append(f"a publish was answered {status}")
                return
            self.accepted += 1
            self.answers.append(Sample(due, time.monotonic() - due))
            self._due = None


class Newcomers:
    """Clients that connect by schedule, wait for the greeting, and disconnect."""

    def __init__(self, place: ServerAddress) -> None:
        self._place = place
        self.greetings: list[Sample] = []
        self.faults: list[str] = []
        self._due: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._come())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101 - it was entered
        await tasks.end([self._task])

    @property
    def waiting(self) -> Iterable[float]:
        """Scheduled time of the client without a greeting."""
        return () if self._due is None else (self._due,)

    async def _come(self) -> None:
        options: dict[str, Any] = {"ping_interval": None, "proxy": None, "close_timeout": 1}
        while True:
            await _paced(NEWCOMER_EVERY)
            self._due = time.monotonic()
            try:
                async with asyncio.timeout(GIVE_UP):
                    socket = await connect(
                        self._place.url, ssl=self._place.tls, open_timeout=GIVE_UP, **options
                    )
                    await socket.recv()
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake) as error:
                self.faults.append(f"a new client was not let in: {type(error).__name__} {error}")
            else:
                self.greetings.append(Sample(self._due, time.monotonic() - self._due))
                socket.transport.abort()
            self._due = None
