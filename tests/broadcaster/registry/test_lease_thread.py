"""The lease of a node whose event loop stands still: a thread renews it, up to a bound."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.registry import lease as leases
from legato.broadcaster.registry.lease_thread import LeaseThread
from legato.protocol import wire
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import client, local_settings
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

LEASE = 2.0
FOR_EVER = 1000.0
"""Leases."""


class Stalling:
    """See :mod:`.stalling_node`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, release: Path) -> None:
        self.port = port
        self._process = process
        self._release = release

    async def stall(self) -> None:
        self._process.send_signal(signal.SIGUSR1)
        assert await self.line() == "stalled"

    async def release(self) -> None:
        self._release.touch()
        assert await self.line() == "released"

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT):
            return (await self._process.stdout.readline()).decode().strip()


@contextlib.asynccontextmanager
async def stalling(url: str, way: str, release: Path, hang_leases: float) -> AsyncIterator[Stalling]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.broadcaster.registry.stalling_node"),
        *(url, str(LEASE), str(hang_leases), way, str(release)),
        stdout=asyncio.subprocess.PIPE,
    )
    node = Stalling(process, 0, release)
    try:
        node.port = int(await node.line())
        yield node
    finally:
        process.kill()
        await process.wait()


async def state_of(redis: Any, name: str) -> str:
    return (await redis.get(wire.lease_key(name)) or b"").decode()


async def eventually(ask: Callable[[], Any], expected: Any) -> None:
    async with asyncio.timeout(WAIT):
        while await ask() != expected:  # noqa: ASYNC110 - Redis announces nothing
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def other_node(url: str) -> AsyncIterator[Any]:
    settings = local_settings(
        server=Server(port=0, drain_seconds=0, lease_seconds=LEASE), redis=Redis(url=url)
    )
    async with running(settings) as server:
        yield server.node.registry._others


@pytest.mark.parametrize("way", ["python", "call"])
async def test_a_node_whose_loop_stands_still_is_not_taken_for_dead(valkey_url, tmp_path, way):
    async with (
        other_node(valkey_url) as judge,
        redis_client(valkey_url) as redis,
        stalling(valkey_url, way, tmp_path / "release", FOR_EVER) as node,
        client(node.port) as ann,
    ):
        await ann.subscribe("private-a")
        (name,) = list(await judge.states())
        await node.stall()
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 3 * LEASE and judge._may_judge())
        assert await judge.dead() == []
        assert await state_of(redis, name) == leases.OPEN
        await node.release()
        await ann.send("pusher:ping")
        assert (await ann.receive())["event"] == "pusher:pong"
        assert list(await judge.states()) == [name]


@pytest.mark.parametrize(("way", "hang_leases"), [("alone", FOR_EVER), ("python", 1.5)])
async def test_a_loop_that_hangs_loses_its_lease_and_its_clients_start_anew(
    valkey_url, tmp_path, way, hang_leases
):
    """Without a thread as soon as the lease has lapsed, with one when the loop hangs past the bound."""
    async with (
        other_node(valkey_url) as judge,
        redis_client(valkey_url) as redis,
        stalling(valkey_url, way, tmp_path / "release", hang_leases) as node,
        client(node.port) as ann,
    ):
        await ann.subscribe("private-a")
        (name,) = list(await judge.states())
        await node.stall()
        await eventually(lambda: state_of(redis, name), leases.GONE)
        await node.release()
        assert (await ann.receive())["data"]["code"] == 4100
        assert await ann.closed() == 4100


# --- what the loop is told of what the thread has found


@contextlib.asynccontextmanager
async def watched(url: str, name: str = "watched") -> AsyncIterator[tuple[leases.Lease, Any]]:
    """A lease that nobody renews but by hand, and a second client of Redis."""
    async with redis_client(url) as one, redis_client(url) as other:
        lease = leases.Lease(one, name, 60, lambda: leases.FULL)
        assert await lease.renew() is leases.Renewal.REVIVED
        yield lease, other


async def test_a_renewal_beside_the_loop_prolongs_the_lease_in_the_state_that_was_told(valkey_url):
    async with watched(valkey_url) as (lease, redis):
        await redis.pexpire(lease.key, 5000)
        lease._until = lease.clock() + 5
        assert lease.runs_out
        assert await lease.renew_beside(redis) is leases.Renewal.KEPT
        assert not lease.runs_out
        assert await redis.pttl(lease.key) > 30_000
        assert await state_of(redis, "watched") == leases.FULL
        assert await lease.renew() is leases.Renewal.KEPT


async def test_the_loop_hears_that_the_thread_has_revived_the_lease(valkey_url):
    async with watched(valkey_url) as (lease, redis):
        await redis.delete(lease.key)
        assert await lease.renew_beside(redis) is leases.Renewal.REVIVED
        assert lease.doubtful
        assert await lease.renew() is leases.Renewal.REVIVED
        assert not lease.doubtful
        assert await lease.renew() is leases.Renewal.KEPT


async def test_the_loop_hears_that_the_thread_has_found_the_lease_gone(valkey_url):
    async with watched(valkey_url) as (lease, redis):
        await redis.set(lease.key, leases.GONE)
        assert await lease.renew_beside(redis) is leases.Renewal.GONE
        assert lease.doubtful
        assert not lease.held
        assert await lease.renew() is leases.Renewal.GONE


async def test_what_the_thread_hears_of_an_old_name_says_nothing_of_the_new_one(valkey_url):
    async with watched(valkey_url) as (lease, redis):

        class Slow:
            """The loop finds the lease gone while the thread's question is on its way."""

            def pipeline(self, **options: Any) -> Any:
                pipeline = redis.pipeline(**options)
                execute = pipeline.execute

                async def later() -> Any:
                    answers = await execute()
                    lease.rename()
                    return answers

                pipeline.execute = later
                return pipeline

        assert await lease.renew_beside(Slow()) is leases.Renewal.GONE
        assert not lease.held


async def test_the_thread_leaves_a_lease_alone_that_the_loop_renews(valkey_url):
    made = 0

    def counted() -> Any:
        nonlocal made
        made += 1
        return redis_client(valkey_url)

    async with watched(valkey_url) as (lease, redis):
        thread = LeaseThread(lease, counted)
        thread._pause = 0.001
        looks = 0

        async def look(_redis: Any) -> None:
            nonlocal looks
            looks += 1
            await looked(_redis)

        looked, thread._look = thread._look, look  # type: ignore[method-assign]
        await redis.pexpire(lease.key, 30_000)
        thread.start()
        await until(lambda: looks > 3)
        assert await redis.pttl(lease.key) <= 30_000
        lease._until = lease.clock() + 1
        await until(lambda: not lease.runs_out)
        assert await redis.pttl(lease.key) > 30_000
        await thread.close()
        await thread.close()
        assert made == 1
        assert not any(one.name == "lease" for one in threading.enumerate())


async def test_a_thread_without_redis_tries_on_and_ends_when_told(tmp_path, valkey_url, caplog):
    async with watched(valkey_url) as (lease, _):
        thread = LeaseThread(lease, lambda: redis_client(f"unix://{tmp_path}/nobody"))
        thread._pause = 0.001
        lease._until = lease.clock() + 1
        thread.start()
        thread._timer.cancel()
        thread._beat -= 2 * lease.seconds
        await until(lambda: "a thread cannot renew the node's lease" in caplog.text)
        assert lease.runs_out
        await thread.close()
        assert not any(one.name == "lease" for one in threading.enumerate())
