"""What the worker's tests share: jobs, a puppet for a model, ears on a channel."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.protocol import wire
from legato.protocol.jobs import Job, encode_job
from legato.protocol.redis import slots as cluster
from legato.protocol.redis.cluster import Cluster
from legato.protocol.stream import Usage
from legato.worker.providers import base
from legato.worker.replies.model import AttemptPolicy, Model
from legato.worker.replies.model_request import ModelRequest
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType
    from typing import Self

    from redis.asyncio import Redis

PATIENT = base.Patience(30, 30)

TERMINAL = frozenset({"stream.completed", "stream.failed", "stream.cancelled"})


def make_job(message: str = "Hello", message_id: str = "m1", **fields: Any) -> Job:
    values = {"app_id": "1", "user_id": 7, "queued_at": 1_700_000_000_000, **fields}
    return Job(message_id=message_id, message=message, **values)


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Puppet:
    """A model that says what the test puts into ``says``: events, or an error to raise. Silent otherwise."""

    model = "puppet"

    def __init__(self, *says: base.Event | base.ProviderError) -> None:
        self.says: asyncio.Queue[base.Event | base.ProviderError] = asyncio.Queue()
        self.asked: list[base.ProviderRequest] = []
        self.closed = asyncio.Event()
        for event in says:
            self.says.put_nowait(event)

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        self.asked.append(request)
        self.closed.clear()
        try:
            while True:
                event = await self.says.get()
                if isinstance(event, base.ProviderError):
                    raise event
                yield event
                if isinstance(event, base.Final):
                    return
        finally:
            self.closed.set()

    async def aclose(self) -> None:
        pass


class Stubborn(Puppet):
    """Says what it has to say, and then does not let its request be closed until it ``gives_in``.

    It refuses once: the end of the test's loop is a second time, and must not wait for ever.
    """

    def __init__(self, *says: base.Event | base.ProviderError) -> None:
        super().__init__(*says)
        self.gives_in = asyncio.Event()
        self.refused = asyncio.Event()

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        self.asked.append(request)
        while not self.says.empty():
            event = self.says.get_nowait()
            assert not isinstance(event, base.ProviderError)
            yield event
            if isinstance(event, base.Final):
                return
        try:
            await self.gives_in.wait()
        except asyncio.CancelledError:
            self.refused.set()
        await self.gives_in.wait()
        self.closed.set()


def model_of(provider: base.Provider, patience: base.Patience = PATIENT) -> Model:
    """A model that is asked once."""
    return Model(provider=provider, policy=AttemptPolicy(patience, 0), tries=1)


async def said(
    provider: base.Provider, request: base.ProviderRequest, patience: base.Patience = PATIENT
) -> tuple[list[base.Event], base.ProviderError | None]:
    """The events of one request, and the error that ends it."""
    seen: list[base.Event] = []
    asked = ModelRequest(model_of(provider, patience), request)
    try:
        async with asyncio.timeout(WAIT):
            while arrivals := await asked.take():
                seen += [event for _, event in arrivals]
    except base.ProviderError as error:
        return seen, error
    finally:
        await asked.close(WAIT)
    return seen, None


REQUEST = base.ProviderRequest("Hi")


async def events(
    provider: base.Provider, request: base.ProviderRequest = REQUEST, patience: base.Patience | None = None
) -> list[base.Event]:
    """The events of a request that succeeds."""
    seen, error = await said(provider, request, patience or base.Patience(9, 9))
    assert error is None
    return seen


async def failing(
    provider: base.Provider, patience: base.Patience | None = None, request: base.ProviderRequest = REQUEST
) -> tuple[list[base.Event], base.ProviderError]:
    """The events before the error, and the error."""
    seen, error = await said(provider, request, patience or base.Patience(9, 9))
    if error is not None:
        return seen, error
    pytest.fail(f"no error after {seen}")


STARTED = base.RequestAccepted("puppet-1")
END = base.Final("end_turn", Usage(input=3, output=2))


def _server_of(redis: Redis, channel: str) -> Redis:
    """Who has the channel. On a Cluster, the client has to have been used before."""
    if not isinstance(redis, Cluster):
        return redis
    owner = redis.slots.owner(cluster.slot_of(channel.encode()))
    assert owner is not None
    return redis.node(owner)


class Ears:
    """Everything published on a job's channel from now on, as ``(event, data)``, in order."""

    def __init__(self, redis: Redis, job: Job) -> None:
        self._redis = redis
        self._channel = wire.bus_channel(job.app_id, job.channel)
        self._pubsub = _server_of(redis, self._channel).pubsub()
        self.heard: list[tuple[str, Any]] = []
        self.envelopes: list[wire.Envelope] = []

    async def __aenter__(self) -> Self:
        await self._pubsub.ssubscribe(self._channel)
        await self._next("ssubscribe")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pubsub.aclose()

    async def until(self, *names: str) -> list[tuple[str, Any]]:
        """Listen up to the first event that has one of these names."""
        async with asyncio.timeout(WAIT):
            while not self.heard or self.heard[-1][0] not in names:
                self._hear(await self._next("smessage"))
        return self.heard

    async def all(self) -> list[tuple[str, Any]]:
        """Listen to what was published up to now."""
        await self._redis.execute_command("SPUBLISH", self._channel, b"now")
        while (data := await self._next("smessage")) != b"now":
            self._hear(data)
        return self.heard

    def _hear(self, data: bytes) -> None:
        envelope = wire.decode_envelope(data)
        self.envelopes.append(envelope)
        if envelope.command == wire.SKIP:
            return
        for frame in envelope.payload.split(b"\n"):
            message = msgspec.json.decode(frame)
            self.heard.append((message["event"], msgspec.json.decode(message["data"])))

    async def _next(self, kind: str) -> bytes:
        async with asyncio.timeout(WAIT):
            while True:
                message = await self._pubsub.get_message(timeout=1)
                if message and message["type"] == kind:
                    data: bytes = message["data"]
                    return data

    @property
    def tokens(self) -> list[str]:
        """The texts of the tokens; that their indexes are 0, 1, 2 ... is checked on the way."""
        received = [data for event, data in self.heard if event == "token.received"]
        assert [data["tokenIndex"] for data in received] == list(range(len(received)))
        return [data["token"] for data in received]

    @property
    def ends(self) -> list[str]:
        return [event for event, _ in self.heard if event in TERMINAL]


def keys(job: Job) -> tuple[str, str, str]:
    """Message, log and active key."""
    names = (job.app_id, job.channel)
    message_id = job.message_id
    return wire.message_key(*names, message_id), wire.log_key(*names, message_id), wire.active_key(*names)


async def logged(redis: Redis, job: Job) -> list[str]:
    """The texts in the log."""
    entries: Any = await redis.xrange(keys(job)[1], "1-0", "(2-0")
    assert [entry[0].decode() for entry in entries] == [wire.log_entry_id(at) for at in range(len(entries))]
    return [fields[b"t"].decode() for _, fields in entries]


async def enqueue(redis: Redis, job: Job, queue: str = "q") -> bytes:
    entry: bytes = await redis.xadd(wire.jobs_key(queue), {wire.JOB_FIELD: encode_job(job)})
    return entry
