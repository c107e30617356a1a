"""Flags in either spelling are seen; nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from legato.worker.jobs import cancel as cancels
from legato.worker.jobs.cancel import CancelFlags
from tests.waiting import WAIT

if TYPE_CHECKING:
    from redis.asyncio import Redis


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "CANCEL_POLL_TIMEOUT_SECONDS", WAIT)


async def test_both_spellings_and_no_other_message(redis: Redis) -> None:
    await redis.set("stream_cancel:a", "1")
    await redis.set("stream_cancel:{b}", "1")
    await redis.set("stream_cancel:{d", "1")
    flags = CancelFlags(redis)
    assert await flags.those_set(["a", "b", "c", "d"]) == {"a", "b"}
    assert [await flags.is_set(message_id) for message_id in "abcd"] == [True, True, False, False]


async def test_nothing_asked_nothing_answered(redis: Redis) -> None:
    assert await CancelFlags(redis).those_set([]) == set()
