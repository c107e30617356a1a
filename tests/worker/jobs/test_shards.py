"""A master of a Cluster that hangs delays what it has itself, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import RedisError

from legato.protocol import wire
from legato.protocol.redis.retry import Backend
from legato.worker import redis_clients as clients
from legato.worker.jobs import cancel as cancels
from legato.worker.jobs import shards
from legato.worker.jobs.cancel import CancelFlags
from legato.worker.jobs.consumer import REDIS_DOWN
from legato.worker.replies.batch import BatchedScript
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from redis.asyncio import Redis

    from tests.redis_clusters import Cluster, TcpServer

COUNT = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture
async def patient(redis_cluster: Cluster) -> AsyncIterator[Redis]:
    """A client that waits for an answer longer than any test."""
    redis = clients.connect(f"{redis_cluster.url}?socket_timeout=600")
    await redis.ping()
    yield redis
    await redis.aclose()


@pytest.fixture
def hang() -> Iterator[Callable[[TcpServer], None]]:
    """Stops servers until the end of the test."""
    stopped = []

    def stop(server: TcpServer) -> None:
        stopped.append(server.pid)
        os.kill(server.pid, signal.SIGSTOP)

    yield stop
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


def of(redis: Redis, server: TcpServer, keys: Callable[[str], Iterable[str]]) -> str:
    """A name whose ``keys`` are all on one server."""
    for number in range(10_000):
        owners = [shards.owner(redis, key) for key in keys(f"n{number}")]
        if all(owner is not None and owner.port == server.port for owner in owners):
            return f"n{number}"
    raise AssertionError("no such name")


def flagged(redis: Redis, cluster: Cluster) -> list[str]:
    """Ids of messages that have both their flags on the first master, and on the second."""
    return [of(redis, server, wire.cancel_flags) for server in cluster.masters[:2]]


async def test_appends_do_not_wait_for_a_master_that_hangs(
    redis_cluster: Cluster, patient: Redis, hang: Callable[[TcpServer], None]
) -> None:
    count = BatchedScript(patient, patient.register_script(COUNT))
    healthy, hung = (of(patient, server, lambda name: [name]) for server in redis_cluster.masters[:2])
    assert await asyncio.gather(count([healthy], [1]), count([hung], [1])) == [1, 1]
    hang(redis_cluster.masters[1])
    waiting = []
    async with asyncio.timeout(WAIT):
        for turn in range(2, 5):
            waiting.append(asyncio.create_task(count([hung], [1])))
            assert await asyncio.create_task(count([healthy], [1])) == turn
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_cancels_are_heard_while_a_master_hangs(
    redis_cluster: Cluster, patient: Redis, hang: Callable[[TcpServer], None]
) -> None:
    healthy, hung = flagged(patient, redis_cluster)
    flags = CancelFlags(patient)
    hang(redis_cluster.masters[1])

    async def heard() -> bool:
        return await flags.those_set([healthy, hung]) == {healthy}

    assert not await heard()
    await patient.set(wire.cancel_flags(healthy)[0], "1")
    await until(heard)
    assert len(flags.asking) == 1
    for task in flags.asking:
        task.cancel()
        await asyncio.wait({task})


async def test_what_a_master_answers_late_is_told_by_a_later_look(
    redis_cluster: Cluster, patient: Redis, hang: Callable[[TcpServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancels, "CANCEL_POLL_TIMEOUT_SECONDS", 0.01)
    _, late = flagged(patient, redis_cluster)
    flags = CancelFlags(patient)
    await patient.set(wire.cancel_flags(late)[1], "1")
    hang(redis_cluster.masters[1])
    assert await flags.those_set([late]) == set()
    os.kill(redis_cluster.masters[1].pid, signal.SIGCONT)

    async def heard() -> bool:
        return await flags.those_set([late]) == {late}

    await until(heard)


@pytest.fixture
async def half_dead(redis_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    """A client for which the second master's port is one where nobody listens."""
    redis = clients.connect(redis_cluster.url)
    await redis.ping()
    dead = f"127.0.0.1:{redis_cluster.masters[1].port}"
    node = redis.node  # type: ignore[attr-defined]

    def unreachable(address):  # type: ignore[no-untyped-def]
        return node(address._replace(port=1) if f"{address.host}:{address.port}" == dead else address)

    monkeypatch.setattr(redis, "node", unreachable)
    yield redis
    await redis.aclose()


async def test_cancels_are_heard_while_a_master_is_dead(
    redis_cluster: Cluster,
    half_dead: Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cancels, "CANCEL_POLL_TIMEOUT_SECONDS", WAIT)
    healthy, dead = flagged(half_dead, redis_cluster)
    flags = CancelFlags(half_dead)
    await half_dead.set(wire.cancel_flags(healthy)[0], "1")
    for _ in range(2):
        assert await flags.those_set([healthy, dead]) == {healthy}
    assert caplog.text.count("cancel flags of some replies cannot be read") == 1
    with pytest.raises(RedisError):
        await flags.those_set([dead])


async def test_one_message_is_not_taken_for_uncancelled_when_it_cannot_be_asked(
    redis_cluster: Cluster, half_dead: Redis
) -> None:
    healthy, dead = flagged(half_dead, redis_cluster)
    flags = CancelFlags(half_dead)
    assert await flags.is_set(healthy) is False
    assert (
        await Backend("Redis", REDIS_DOWN, logging.getLogger("legato.worker")).insist(
            lambda: flags.is_set(healthy)
        )
        is False
    )
    with pytest.raises(RedisError):
        await flags.is_set(dead)
