"""The fence, the order and the once-only of everything written about one message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from legato.protocol import stream, wire
from legato.worker.replies.log import (
    Beside,
    Claim,
    FencedError,
    GapError,
    LogPart,
    MessageLog,
    Token,
    TokenLog,
)
from tests.worker.support import Ears, keys, logged, make_job

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from legato.worker.replies.log import LogRecord

JOB = make_job()
MESSAGE, LOG, ACTIVE = keys(JOB)
DONE = stream.Completed(7, "m1", 2).frame(JOB.channel)


def tokens(*texts: str, first: int = 0) -> list[Token]:
    return [
        Token(index, text, stream.TokenReceived(7, "m1", text, index).frame(JOB.channel))
        for index, text in enumerate(texts, first)
    ]


@pytest.fixture
def log(redis: Redis) -> TokenLog:
    return TokenLog(redis, tries=2, retention=3600)


async def texts(message: MessageLog) -> list[str]:
    return [entry.data.decode() for entry in (await message.read()).entries]


async def claimed(log: TokenLog, claim: str = "a") -> MessageLog:
    message = log.open(JOB, claim)
    await message.claim()
    return message


async def test_first_claim_makes_the_hash_of_a_job_that_another_program_queued(
    log: TokenLog, redis: Redis
) -> None:
    assert await log.open(JOB, "a").claim() == Claim("run", 1, 0, b"")
    assert await redis.hgetall(MESSAGE) == {
        b"user": b"7",
        b"state": b"streaming",
        b"attempt": b"1",
        b"claim": b"a",
        b"next": b"0",
        b"ticket": b"",
    }
    assert await redis.smembers(ACTIVE) == {b"m1"}


async def test_claim_lifts_the_time_limit_that_a_waiting_message_has(log: TokenLog, redis: Redis) -> None:
    await redis.hset(MESSAGE, mapping={"user": "7", "state": "queued"})
    await redis.expire(MESSAGE, 100)
    await claimed(log)
    assert await redis.ttl(MESSAGE) == -1


async def test_same_claim_again_burns_no_try(log: TokenLog) -> None:
    message = log.open(JOB, "a")
    assert await message.claim() == await message.claim() == Claim("run", 1, 0, b"")


async def test_third_claim_of_two_is_exhausted_and_stays_so_but_holds_the_fence(log: TokenLog) -> None:
    await claimed(log, "a")
    await claimed(log, "b")
    third = log.open(JOB, "c")
    assert (await third.claim()).verdict == "exhausted"
    assert (await third.claim()).verdict == "exhausted"
    await third.finish("failed", DONE, "sorry")
    assert (await log.open(JOB, "d").claim()).verdict == "finished"


async def test_claim_of_a_cancelled_message_says_so_and_holds_the_fence(log: TokenLog, redis: Redis) -> None:
    await redis.hset(MESSAGE, "cancel", "1")
    message = log.open(JOB, "a")
    assert (await message.claim()).verdict == "cancelled"
    await message.finish("cancelled", DONE)
    assert await redis.hget(MESSAGE, "state") == b"cancelled"


async def test_tokens_are_logged_and_published_once_in_order(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    async with Ears(redis, JOB) as ears:
        assert await message.append(tokens("one ", "two ")) is False
        assert await message.append(tokens("three", first=2)) is False
        await ears.all()
    assert ears.tokens == ["one ", "two ", "three"]
    assert [envelope.stream for envelope in ears.envelopes] == [("m1", 0), ("m1", 1), ("m1", 2)]
    assert await logged(redis, JOB) == ["one ", "two ", "three"]
    assert await texts(message) == ["one ", "two ", "three"]
    assert await redis.hget(MESSAGE, "next") == b"3"


async def test_repeated_and_overlapping_appends_add_only_what_is_new(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    async with Ears(redis, JOB) as ears:
        await message.append(tokens("a", "b"))
        await message.append(tokens("a", "b"))
        await message.append(tokens("x", "c", first=1))
        await ears.all()
    assert ears.tokens == await logged(redis, JOB) == ["a", "b", "c"]


async def test_gap_is_refused_and_changes_nothing(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    await message.append(tokens("a"))
    with pytest.raises(GapError, match="Redis has 1 entries"):
        await message.append(tokens("c", first=2))
    assert await logged(redis, JOB) == ["a"]


async def test_token_that_cannot_be_logged_is_not_published(log: TokenLog, redis: Redis) -> None:
    """Otherwise a reader could see a token that no log has."""
    message = await claimed(log)
    await redis.xadd(LOG, {wire.LOG_TEXT: "later"}, id="9-0")  # the stream takes no smaller id now
    async with Ears(redis, JOB) as ears:
        with pytest.raises(ResponseError, match="equal or smaller"):
            await message.append(tokens("a"))
        assert await ears.all() == []


async def test_append_tells_that_somebody_asked_to_cancel(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    await redis.hset(MESSAGE, "cancel", "1")
    assert await message.append(tokens("a")) is True


async def test_zombie_can_write_nothing_at_all(log: TokenLog, redis: Redis) -> None:
    """After another claim, every write of the first is refused and leaves no trace."""
    zombie = await claimed(log, "a")
    await zombie.append(tokens("a"))
    await claimed(log, "b")
    before = await redis.hgetall(MESSAGE)
    async with Ears(redis, JOB) as ears:
        for write in (
            zombie.append(tokens("b", first=1)),
            zombie.publish(DONE),
            zombie.decide(b"{}"),
            zombie.finish("complete", DONE),
            zombie.release(),
        ):
            with pytest.raises(FencedError):
                await write
        assert await ears.all() == []
    assert await redis.hgetall(MESSAGE) == before
    assert await logged(redis, JOB) == ["a"]


async def test_message_that_vanished_is_fenced(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    await redis.delete(MESSAGE)
    with pytest.raises(FencedError):
        await message.append(tokens("a"))


async def test_terminal_event_once_then_nothing(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    await message.append(tokens("a"))
    async with Ears(redis, JOB) as ears:
        await message.finish("complete", DONE)
        await message.finish("complete", DONE)
        with pytest.raises(FencedError):
            await message.append(tokens("b", first=1))
        with pytest.raises(FencedError):
            await message.decide(b"{}")
        with pytest.raises(FencedError):
            await message.release()
        await ears.all()
    assert await redis.xrange(LOG, wire.LOG_FINAL_ID) == []
    assert ears.ends == ["stream.completed"]
    (envelope,) = ears.envelopes
    assert (envelope.stream, envelope.command, envelope.detail) == (("m1", 1), wire.END, "complete")
    assert await redis.smembers(ACTIVE) == set()
    assert 3590 < await redis.ttl(MESSAGE) <= 3600
    assert 3590 < await redis.ttl(LOG) <= 3600


async def test_finish_makes_room_for_another_message_of_the_user(log: TokenLog, redis: Redis) -> None:
    opened = wire.open_key(JOB.app_id, JOB.channel)
    await redis.zadd(opened, {"m1": 9, "m2": 9})
    message = await claimed(log)
    await message.decide(b"{}")
    assert await redis.zcard(opened) == 2
    await message.finish("complete", DONE)
    assert await redis.zrange(opened, 0, -1) == [b"m2"]


async def test_what_is_told_says_where_it_belongs(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    await message.append(tokens("a", "b"))
    async with Ears(redis, JOB) as ears:
        await (await claimed(log, "b")).publish(stream.Started("m1", 2, "m").frame(JOB.channel))
        await ears.all()
    (envelope,) = ears.envelopes
    assert (envelope.stream, envelope.command) == (("m1", 2), wire.ASIDE)


async def test_the_first_beginning_of_a_reply_stays(log: TokenLog, redis: Redis) -> None:
    await (await claimed(log)).publish(DONE, begun=b"first")
    await (await claimed(log, "b")).publish(DONE, begun=b"second")
    assert await redis.hget(MESSAGE, "begun") == b"first"


async def test_the_newest_that_have_ended_are_remembered_for_a_while(log: TokenLog, redis: Redis) -> None:
    ended = wire.ended_key(JOB.app_id, JOB.channel)
    seconds, _ = await redis.time()
    await redis.zadd(ended, {"old": (seconds - wire.ENDED_SECONDS - 9) * 1000})
    await redis.zadd(ended, {f"e{n}": (seconds - 60) * 1000 + n for n in range(wire.MAX_ENDED)})
    await (await claimed(log)).finish("cancelled", DONE)
    kept = await redis.zrange(ended, 0, -1)
    assert kept == [*(f"e{n}".encode() for n in range(1, wire.MAX_ENDED)), b"m1"]
    assert abs(await redis.zscore(ended, "m1") - seconds * 1000) < 60_000
    assert 0 < await redis.ttl(ended) <= wire.ENDED_SECONDS


async def test_finish_keeps_the_error_for_people(log: TokenLog, redis: Redis) -> None:
    await (await claimed(log)).finish("failed", DONE, stream.FAILED_TEXT)
    assert await redis.hget(MESSAGE, "error") == stream.FAILED_TEXT.encode()


async def test_claim_of_a_finished_message_changes_nothing(log: TokenLog, redis: Redis) -> None:
    await (await claimed(log, "a")).finish("complete", DONE)
    before = await redis.hgetall(MESSAGE)
    assert (await log.open(JOB, "b").claim()).verdict == "finished"
    assert await redis.hgetall(MESSAGE) == before
    assert await redis.ttl(MESSAGE) > 0
    assert await redis.smembers(ACTIVE) == set()


async def test_decision_is_found_by_the_next_claim_and_cannot_be_changed(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log, "a")
    await message.append(tokens("a"))
    await message.decide(b'{"stopReason":"end_turn"}')
    await message.decide(b'{"stopReason":"other"}')
    assert await log.open(JOB, "b").claim() == Claim("run", 2, 1, b'{"stopReason":"end_turn"}')
    assert await texts(log.open(JOB, "b")) == ["a"]
    assert await redis.xrange(LOG, wire.LOG_FINAL_ID) == [
        (b"2-1", {wire.LOG_FINAL.encode(): b'{"stopReason":"end_turn"}'})
    ]


PART = LogPart(1, "reasoning", b"{}", 1, b"")
LAST = pytest.mark.parametrize("last", [*tokens("b", first=1), PART], ids=["token", "part"])


@LAST
async def test_append_does_the_rest_in_the_same_step_and_tells_readers_once(
    log: TokenLog, redis: Redis, last: LogRecord
) -> None:
    """A repeated call, whose answer was lost, publishes nothing again."""
    message, end = await claimed(log), b'{"stopReason":"end_turn"}'
    entries: list[LogRecord] = [*tokens("a"), last]
    beside = Beside(stream.Started("m1", 1, "puppet").frame(JOB.channel), b'{"input":3}', end)
    async with Ears(redis, JOB) as ears:
        for _ in range(2):
            await message.append(entries, beside)
        heard = [event for event, _ in await ears.all()]
    assert heard == ["stream.started", "token.received", "token.received"][: 3 if last is not PART else 2]
    assert await redis.hget(MESSAGE, "usage") == b'{"input":3}'
    assert await redis.xrange(LOG, wire.LOG_FINAL_ID) == [(b"2-1", {wire.LOG_FINAL.encode(): end})]
    await message.decide(end)
    await message.decide(b'{"stopReason":"other"}')
    assert await log.open(JOB, "b").claim() == Claim("run", 2, 2, end, b'{"input":3}')


@LAST
async def test_refused_append_does_nothing_of_the_rest(log: TokenLog, redis: Redis, last: LogRecord) -> None:
    message, beside = await claimed(log), Beside(DONE, b'{"input":3}', b"{}")
    async with Ears(redis, JOB) as ears:
        with pytest.raises(GapError):
            await message.append([last], beside)
        await claimed(log, "b")
        with pytest.raises(FencedError):
            await message.append([*tokens("a"), last], beside)
        assert await ears.all() == []
    assert await redis.hget(MESSAGE, "usage") is None
    assert not await redis.exists(LOG)


async def test_released_message_is_as_if_never_claimed(log: TokenLog, redis: Redis) -> None:
    for _ in range(5):
        assert await (await claimed(log)).release() is True
    assert await redis.hget(MESSAGE, "state") == b"queued"
    assert await redis.smembers(ACTIVE) == set()
    assert await log.open(JOB, "b").claim() == Claim("run", 1, 0, b"")


async def test_release_sent_twice_counts_once(log: TokenLog, redis: Redis) -> None:
    """The answer to the first may be lost with the connection; by the second, another may have claimed."""
    message = await claimed(log, "a")
    assert await message.release() is True
    before = await redis.hgetall(MESSAGE)
    assert await message.release() is True
    assert await redis.hgetall(MESSAGE) == before
    assert before[b"attempt"] == b"0"
    other = await claimed(log, "b")
    with pytest.raises(FencedError):
        await message.release()
    await other.append(tokens("a"))
    assert await logged(redis, JOB) == ["a"]


async def test_released_claim_can_write_nothing(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    await message.release()
    async with Ears(redis, JOB) as ears:
        for write in (
            message.append(tokens("a")),
            message.publish(DONE),
            message.decide(b"{}"),
            message.finish("complete", DONE),
        ):
            with pytest.raises(FencedError):
                await write
        assert await ears.all() == []
    assert await redis.exists(LOG) == 0


async def test_message_with_tokens_is_not_released(log: TokenLog) -> None:
    message = await claimed(log)
    await message.append(tokens("a"))
    assert await message.release() is False
    assert (await log.open(JOB, "b").claim()).attempt == 2


async def test_claims_at_once_leave_one_writer(log: TokenLog, redis: Redis) -> None:
    """Of many that claim and write at the same time, only the last claim's tokens are in the log."""
    messages = [log.open(JOB, f"c{number}") for number in range(20)]
    await asyncio.gather(*(message.claim() for message in messages))
    written = await asyncio.gather(
        *(message.append(tokens(f"by{number}")) for number, message in enumerate(messages)),
        return_exceptions=True,
    )
    assert [isinstance(result, FencedError) for result in written].count(False) == 1
    assert len(await logged(redis, JOB)) == 1


async def test_scripts_return_after_the_server_forgot_them(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    await redis.script_flush()
    await message.append(tokens("a"))
    assert await logged(redis, JOB) == ["a"]


async def test_a_call_that_nobody_decided_expires_and_a_decision_stands(log: TokenLog, redis: Redis) -> None:
    message = await claimed(log)
    approvals = wire.approvals_key(JOB.app_id, JOB.channel, JOB.message_id)
    await redis.hset(approvals, mapping={"c1": "", "c2": "decided"})
    assert [await message.expire("c1", value) for value in (b"late", b"later")] == [b"late", b"late"]
    assert await message.expire("c2", b"late") == b"decided"
    await claimed(log, "b")
    with pytest.raises(FencedError):
        await message.expire("c1", b"other")
    assert await redis.hgetall(approvals) == {b"c1": b"late", b"c2": b"decided"}
