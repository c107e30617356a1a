"""Flags in either spelling are seen; nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cancels import CancelFlags

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_both_spellings_and_no_other_message(redis: Redis) -> None:
    await redis.set("stream_cancel:a", "1")
    await redis.set("stream_cancel:{b}", "1")
    await redis.set("stream_cancel:{d", "1")
    assert await CancelFlags(redis).those_set(["a", "b", "c", "d"]) == {"a", "b"}


async def test_nothing_asked_nothing_answered(redis: Redis) -> None:
    assert await CancelFlags(redis).those_set([]) == set()
