"""Reading the replies of a Redis connection, from the first one to the reason of the end."""

from __future__ import annotations

import asyncio

import pytest
import redis as sync_redis
import uvloop
from redis.exceptions import ConnectionError as LostError

from legato.broadcaster.bus.pubsub import NOT_ENOUGH_DATA, listen
from legato.broadcaster.limits import PUBSUB_READ_PAUSE_BYTES
from legato.broadcaster.redis_client import redis_client
from legato.protocol.redis.cancellation import end_task
from tests.conftest import SYSTEM
from tests.redis_clusters import TcpServer
from tests.waiting import until

PIECE, PIECES = b"x" * 65_536, 64


async def test_every_reply_is_passed_on_in_order_and_the_end_is_raised(valkey_url):
    heard: list = []

    def hear(gets) -> None:
        while (reply := gets()) is not NOT_ENOUGH_DATA:
            heard.append(reply)

    async with redis_client(valkey_url) as redis:
        connection = redis.connection_pool.make_connection()
        await connection.connect()
        listening = asyncio.ensure_future(listen(connection, hear))
        await connection.send_packed_command(
            connection.pack_commands([("SSUBSCRIBE", "a"), ("NONSENSE",), ("PING", "p")]), check_health=False
        )
        await until(lambda: len(heard) == 3)
        assert heard[0] == [b"ssubscribe", b"a", 1]
        assert isinstance(heard[1], Exception)
        assert heard[2] == [b"pong", b"p"]
        (own,) = [one["id"] for one in await redis.client_list() if one["ssub"] == "1"]
        await redis.client_kill_filter(_id=own)
        with pytest.raises(LostError, match="the server has closed the connection"):
            await listening
        await connection.disconnect(nowait=True)
        with pytest.raises(LostError):
            await listen(connection, hear)


async def test_a_connection_closed_before_listening_raises(valkey_url):
    async with redis_client(valkey_url) as redis:
        connection = redis.connection_pool.make_connection()
        await connection.connect()
        await connection.send_command("CLIENT", "ID", check_health=False)
        await redis.client_kill_filter(_id=str(await connection.read_response()))
        await until(connection._reader.at_eof)
        with pytest.raises(LostError, match="the server has closed the connection"):
            await listen(connection, lambda _gets: None)
        await connection.disconnect(nowait=True)


async def test_an_error_of_the_callback_is_raised_and_ends_reading(valkey_url):
    calls = []

    def hear(gets) -> None:
        calls.append(gets())
        raise ValueError("unbearable")

    async with redis_client(valkey_url) as redis:
        connection = redis.connection_pool.make_connection()
        await connection.connect()
        listening = asyncio.ensure_future(listen(connection, hear))
        await connection.send_command("SSUBSCRIBE", "a", check_health=False)
        with pytest.raises(ValueError, match="unbearable"):
            await listening
        await redis.execute_command("SPUBLISH", "a", "more")
        assert await redis.ping()
        assert len(calls) == 1
        await connection.disconnect(nowait=True)


def test_the_loop_runs_between_large_reads():
    """On uvloop, which reads repeatedly while more data is available than fits its buffer."""
    with TcpServer.started(SYSTEM) as server:
        reads = uvloop.run(_flood(f"redis://{server.address}"))
    assert max(size for _, size in reads) > PUBSUB_READ_PAUSE_BYTES
    assert len({turn for turn, _ in reads}) == len(reads)


async def _flood(url: str) -> list[tuple[int, int]]:
    """The loop turn and the approximate size of each read."""
    reads: list[tuple[int, int]] = []
    turn = 0
    loop = asyncio.get_running_loop()

    def tick() -> None:
        nonlocal turn
        turn += 1
        if not listening.cancelled():
            loop.call_soon(tick)

    def hear(gets) -> None:
        size = 0
        while (reply := gets()) is not NOT_ENOUGH_DATA:
            size += len(reply[2]) if reply[0] == b"smessage" else 0
        reads.append((turn, size))

    async with redis_client(url) as redis:
        connection = redis.connection_pool.make_connection()
        await connection.connect()
        listening = asyncio.ensure_future(listen(connection, hear))
        await connection.send_command("SSUBSCRIBE", "a", check_health=False)
        await until(lambda: reads)
        reads.clear()
        tick()
        with sync_redis.Redis.from_url(url) as publisher, publisher.pipeline(transaction=False) as pipeline:
            for _ in range(PIECES):
                pipeline.execute_command("SPUBLISH", "a", PIECE)
            pipeline.execute()  # the loop stands still, so what is published piles up
        await until(lambda: sum(size for _, size in reads) == PIECES * len(PIECE))
        await end_task(listening)
        await connection.disconnect(nowait=True)
    return reads
