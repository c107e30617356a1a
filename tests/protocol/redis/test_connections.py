"""The clients that broadcaster and worker both have: what they send where, and that they send it once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions
from redis.asyncio.connection import Connection

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.bus.redis import RedisBus
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.redis_client import redis_client
from legato.protocol.redis.slots import slot_of
from legato.protocol.wire import Envelope
from legato.worker import redis_clients as clients
from legato.worker.jobs.consumer import REDIS_DOWN
from tests.broadcaster.bus.test_bus import Handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = Key("1", "private-a")
NAMES = [f"key-{n}" for n in range(40)]


class Breaker:
    """Speaks enough RESP to be connected to, and breaks off when it is told to publish."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.port = 0
        self.published: list[bytes] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            scheme = "redis+cluster" if self.mode == "cluster" else "redis"
            yield f"{scheme}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ValueError):
            while True:
                name, *arguments = await self._command(reader)
                if name == b"SPUBLISH":
                    self.published.append(arguments[1])
                    break
                writer.write(self._answer(name))
        writer.close()

    async def _command(self, reader: asyncio.StreamReader) -> list[bytes]:
        words = []
        for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
            length = int((await reader.readuntil(b"\r\n"))[1:])
            words.append((await reader.readexactly(length + 2))[:-2])
        return words

    def _answer(self, name: bytes) -> bytes:
        address = b"*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % self.port
        answers = {
            b"PING": b"+PONG\r\n",
            b"HELLO": b"*4\r\n+mode\r\n+%s\r\n+role\r\n+master\r\n" % self.mode.encode(),
            b"COMMAND": b"*1\r\n+known\r\n",
            b"CLUSTER": b"*1\r\n*3\r\n:0\r\n:16383\r\n" + address,
        }
        return answers.get(name, b"-ERR\r\n")


@pytest.mark.parametrize("mode", ["standalone", "cluster"])
async def test_what_may_have_been_published_is_never_sent_again(mode):
    breaker = Breaker(mode)
    async with breaker.listening() as url, redis_client(url) as redis:
        bus = RedisBus(redis)
        await bus.start(Handler())
        with pytest.raises(BusError, match="Redis did not accept the messages"):
            await bus.publish([(KEY, Envelope(b"x"))])
        await bus.close()
    assert breaker.published == [b"\nx"]


async def test_a_pipeline_is_split_by_nodes_and_answers_in_its_own_order(redis_cluster):
    async with redis_client(redis_cluster.url) as redis:
        async with redis.pipeline(transaction=False) as pipe:
            for name in NAMES:
                pipe.set(name, name)
                pipe.get(name)
                pipe.incr(name)
            answers = await pipe.execute(raise_on_error=False)
        assert answers[::3] == [True] * len(NAMES)
        assert answers[1::3] == [name.encode() for name in NAMES]
        assert all(isinstance(answer, exceptions.ResponseError) for answer in answers[2::3])
        async with redis.pipeline(transaction=False) as pipe:
            pipe.incr(NAMES[0])
            with pytest.raises(exceptions.ResponseError):
                await pipe.execute()


async def test_a_transaction_is_of_one_slot(redis_cluster):
    async with redis_client(redis_cluster.url) as redis:
        async with redis.pipeline() as pipe:
            answers = await pipe.set("{a}1", "x").set("{a}2", "y").execute()
        assert answers == [True, True]
        async with redis.pipeline() as pipe:
            with pytest.raises(exceptions.ClusterCrossSlotError):
                await pipe.set("a", "x").set("b", "y").execute()
        assert await redis.get("a") is None


async def test_a_key_is_found_wherever_it_is_while_its_slot_moves(redis_cluster):
    slot_ = slot_of(b"{moving}1")
    target = next(server for server in redis_cluster.masters if server is not redis_cluster.owner(slot_))
    async with redis_client(redis_cluster.url) as redis:
        await redis.set("{moving}1", "x")
        await asyncio.to_thread(redis_cluster.begin_move, slot_, target)
        assert await redis.get("{moving}1") == b"x"
        await asyncio.to_thread(redis_cluster.move_keys, slot_, target)
        assert await redis.get("{moving}1") == b"x"
        async with redis.pipeline(transaction=False) as pipe:
            assert await pipe.get("{moving}1").get("{moving}2").execute() == [b"x", None]
        await asyncio.to_thread(redis_cluster.end_move, slot_, target)
        async with redis.pipeline() as pipe:
            assert await pipe.get("{moving}1").get("{moving}2").execute() == [b"x", None]


async def test_nodes_that_are_gone_do_not_hide_the_others(redis_cluster):
    hosts = redis_cluster.url.partition("://")[2]
    async with redis_client(f"redis+cluster://127.0.0.1:1,{hosts}") as redis:
        assert await asyncio.gather(*(redis.set(name, "x") for name in NAMES)) == [True] * len(NAMES)
        redis.slots.suspect(redis.slots.masters[0])
        assert await redis.get(NAMES[0]) == b"x"


async def test_scripts_are_wherever_they_are_called(redis_cluster):
    async with redis_client(redis_cluster.url) as redis:
        script = redis.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
        assert [await script([name], ["x"]) for name in NAMES] == [b"OK"] * len(NAMES)
        with pytest.raises(exceptions.ResponseError):
            await redis.script_load("not Lua (")


async def test_a_master_without_its_replicas_is_worth_waiting_for(valkey_url):
    async with clients.connect(valkey_url) as redis:
        await redis.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(REDIS_DOWN) as caught:
                await redis.set("a", "x")
        finally:
            await redis.config_set("min-replicas-to-write", 0)
    assert "NOREPLICAS" in repr(caught.value) or "good replicas" in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [exceptions.ClusterDownError, exceptions.MovedError, exceptions.AskError, exceptions.TryAgainError],
)
def test_what_a_cluster_says_while_it_changes_is_worth_waiting_for(kind):
    assert issubclass(kind, REDIS_DOWN)


WORDS = st.text(st.characters(exclude_categories=["Cs"])) | st.binary() | st.integers() | st.floats()
COMMANDS = st.builds(
    lambda name, words: (name, *words), st.sampled_from(["GET", "XGROUP CREATE"]), st.lists(WORDS)
)


@given(st.lists(COMMANDS, max_size=3))
def test_commands_are_encoded_as_redis_py_encodes_them(commands):
    ours, theirs = a_connection(), Connection()
    for command in commands:
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))
    assert b"".join(ours.pack_commands(commands)) == b"".join(theirs.pack_commands(commands))


@pytest.mark.parametrize("word", [None, True, object(), ["a"]])
def test_a_word_that_cannot_be_encoded_is_refused(word):
    with pytest.raises(exceptions.DataError, match="SET"):
        a_connection().pack_command("SET", word)


def a_connection():
    return clients.connect("redis://127.0.0.1").connection_pool.make_connection()
