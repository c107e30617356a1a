"""Pipelines on connections of their own: the answers are redis-py's, and nobody gets another's."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import pytest
import redis as sync_redis
from redis import exceptions
from redis.asyncio import Redis

from legato.broadcaster.redis_client import redis_client
from legato.protocol.redis.pipeline import SPARES, LeanPipeline
from legato.worker import redis_clients as clients
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import until


@pytest.fixture
def server():
    with RedisServer(BINARIES["valkey"]) as started:
        yield started


@pytest.fixture
def ways(monkeypatch) -> Counter[str]:
    """How many pipelines went which way."""
    counted: Counter[str] = Counter()
    lean, full = LeanPipeline.execute, LeanPipeline.__bases__[0].execute

    async def executed(self, *args, **options):
        counted["all"] += 1
        return await lean(self, *args, **options)

    async def redis_py(self, *args, **options):
        counted["redis-py"] += 1
        return await full(self, *args, **options)

    monkeypatch.setattr(LeanPipeline, "execute", executed)
    monkeypatch.setattr(LeanPipeline.__bases__[0], "execute", redis_py)
    return counted


def fill(pipe) -> None:
    """A bit of everything: shaped answers, errors, nothing, much."""
    pipe.set("a", "1")
    pipe.get("a")
    pipe.get("none")
    pipe.lpush("a", "x")
    pipe.hset("h", mapping={"x": "1", "y": "2"})
    pipe.hgetall("h")
    pipe.sadd("s", "m", "n")
    pipe.smembers("s")
    pipe.zadd("z", {"m": 1.5})
    pipe.xadd("x", {"f": b"v" * 100_000}, id="1-1")
    pipe.xrange("x")
    pipe.execute_command("EVAL", "return {1, redis.call('GET', KEYS[1])}", 1, "a")
    pipe.execute_command("NO SUCH COMMAND")
    pipe.expire("a", 100)


def seen(answers) -> list[str]:
    return [repr(answer) for answer in answers]


async def test_answers_are_those_of_redis_py(server, ways):
    async with redis_client(server.url) as lean:
        pipe = lean.pipeline(transaction=False)
        fill(pipe)
        found = await pipe.execute(raise_on_error=False)
        assert ways == {"all": 1}
        pipe = lean.pipeline(transaction=False)
        assert await pipe.zrange("z", 0, -1, withscores=True).execute() == [[(b"m", 1.5)]]
        assert ways["redis-py"] == 1  # its answer is shaped by what was asked
        await lean.flushdb()
    async with Redis.from_url(server.url, protocol=2) as full:
        pipe = full.pipeline(transaction=False)
        fill(pipe)
        assert seen(found) == seen(await pipe.execute(raise_on_error=False))


async def test_what_only_redis_py_can_do_is_left_to_it(server, ways):
    async with redis_client(server.url) as redis:
        async with redis.pipeline(transaction=False) as pipe:
            assert await pipe.execute() == []
        async with redis.pipeline(transaction=True) as pipe:
            assert await pipe.set("a", "1").get("a").execute() == [True, b"1"]
        assert ways == {"all": 2, "redis-py": 2}
        async with redis.pipeline(transaction=False) as pipe:
            with pytest.raises(exceptions.ResponseError):
                await pipe.lpush("a", "x").get("a").execute()
        assert ways["redis-py"] == 2


async def test_many_at_a_time_each_get_their_own_answers(server, ways):
    async with redis_client(server.url) as redis:

        async def echo(number: int) -> bool:
            pipe = redis.pipeline(transaction=False)
            for part in range(5):
                pipe.execute_command("ECHO", f"{number} {part}")
            return await pipe.execute() == [f"{number} {part}".encode() for part in range(5)]

        assert all(await asyncio.gather(*(echo(number) for number in range(3 * SPARES))))
        assert 0 < ways["redis-py"] <= 2 * SPARES


async def test_who_was_cancelled_leaves_no_answer_to_the_next(server):
    async with redis_client(server.url) as redis:
        with sync_redis.Redis.from_url(server.url) as admin:
            for number in range(5):
                admin.client_pause(300)
                pipe = redis.pipeline(transaction=False).execute_command("ECHO", f"lost {number}")
                lost = asyncio.create_task(pipe.execute())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                lost.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await lost
                pipe = redis.pipeline(transaction=False).execute_command("ECHO", f"found {number}")
                assert await pipe.execute() == [b"found %d" % number]


async def test_a_connection_that_the_server_closed_meanwhile_costs_nothing(server, ways):
    async with redis_client(server.url) as redis:
        with sync_redis.Redis.from_url(server.url) as admin:
            assert await redis.pipeline(transaction=False).set("a", "1").execute() == [True]
            admin.client_kill_filter(_type="normal", skipme=True)
            (line,) = redis._idle
            await until(line._reader.at_eof)
            assert await redis.pipeline(transaction=False).get("a").execute() == [b"1"]
    assert ways["redis-py"] == 0


async def test_a_connection_that_was_reset_meanwhile_costs_nothing(server):
    async with redis_client(server.url) as redis:
        assert await redis.pipeline(transaction=False).set("a", "1").execute() == [True]
        (line,) = redis._idle
        line._writer.transport.abort()
        assert await redis.pipeline(transaction=False).get("a").execute() == [b"1"]


async def test_after_a_long_silence_it_is_asked_first(server, monkeypatch):
    async with redis_client(server.url) as redis:
        with sync_redis.Redis.from_url(server.url) as admin:

            def pings() -> int:
                return admin.info("commandstats").get("cmdstat_ping", {}).get("calls", 0)

            assert await redis.pipeline(transaction=False).set("a", "1").execute() == [True]
            (line,) = redis._idle
            before = pings()
            assert await redis.pipeline(transaction=False).get("a").execute() == [b"1"]
            assert pings() == before
            monkeypatch.setattr(line, "next_health_check", 0.0)
            assert await redis.pipeline(transaction=False).get("a").execute() == [b"1"]
            assert pings() == before + 1


async def test_a_worker_repeats_once(server):
    async with clients.connect(server.url) as redis:
        assert await redis.pipeline(transaction=False).set("a", "1").execute() == [True]
        (line,) = redis._idle
        exchange, tries = line._exchange, list[Any]()

        async def lost(commands):
            tries.append(commands)
            if len(tries) == 1:
                raise exceptions.ConnectionError
            return await exchange(commands)

        line._exchange = lost
        assert await redis.pipeline(transaction=False).get("a").execute() == [b"1"]
        assert len(tries) == 2


async def test_a_server_that_is_gone_is_an_error_and_then_it_is_back(server):
    async with redis_client(server.url) as redis:
        assert await redis.pipeline(transaction=False).set("a", "1").execute() == [True]
        server.kill()
        for _ in range(2 * SPARES):
            with pytest.raises(exceptions.ConnectionError):
                await redis.pipeline(transaction=False).set("a", "1").execute()
        server.start()
        assert await redis.pipeline(transaction=False).set("a", "2").execute() == [True]


async def test_a_server_that_says_nothing_is_given_up(server, monkeypatch):
    async with redis_client(server.url) as redis:
        assert await redis.pipeline(transaction=False).set("a", "1").execute() == [True]
        (line,) = redis._idle
        monkeypatch.setattr(line, "socket_timeout", 0.1)
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(exceptions.TimeoutError, match="Timeout reading from"):
            await redis.pipeline(transaction=False).set("a", "2").execute()
        assert not line.is_connected
        os.kill(server.pid, signal.SIGCONT)
        assert await redis.pipeline(transaction=False).set("a", "3").execute() == [True]


async def test_nothing_stays_open(server):
    with sync_redis.Redis.from_url(server.url) as admin:
        before = admin.info("clients")["connected_clients"]
        async with redis_client(server.url) as redis:
            await asyncio.gather(
                *(redis.pipeline(transaction=False).set("a", "1").execute() for _ in range(2 * SPARES))
            )
            assert admin.info("clients")["connected_clients"] > before
        await until(lambda: admin.info("clients")["connected_clients"] == before)
