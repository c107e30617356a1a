"""A reply in the words of Laravel's AI SDK: told once, in order, whoever writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol import parts, stream
from legato.protocol.doors.base import Opening
from legato.protocol.doors.laravel_ai import LaravelAi
from legato.protocol.parts import LogEntry
from legato.protocol.stream import Begun
from legato.worker.replies.dialect import DialectTranscript, begun_in_dialect, transcript_of
from legato.worker.replies.log import StoredLog
from legato.worker.replies.runner import Outcome
from legato.worker.replies.transcript import NewPart, Transcript, new_part
from tests.protocol.doors import lives
from tests.worker.replies.test_agent_writer import AgentStage, data_of, names, script
from tests.worker.replies.test_runner import MESSAGE, append_under_a_dead_claim, spoken
from tests.worker.replies.test_runner import stage as stage  # noqa: PLC0414 - a fixture
from tests.worker.support import Ears, Puppet, make_job

if TYPE_CHECKING:
    from legato.worker.replies.log import LogPart
    from tests.worker.replies.test_runner import Stage

JOB = make_job(dialect="laravel-ai")
BEGUN = Begun("claude-sonnet-4-6", "anthropic", 1790000000, dialect="laravel-ai")
SAID = ("Let me look.", *lives.WEATHER, None, "It is ", "18 °C.")


def write(transcript: DialectTranscript, *said: lives.Said) -> list[LogPart]:
    records = []
    for one in said:
        if isinstance(one, str):
            records.append(transcript.add_text(one))
        else:
            records.append(transcript.add(NewPart(parts.HIDDEN, b"") if one is None else new_part(one)))
    return records


def whole() -> list[bytes]:
    door = LaravelAi(JOB.channel)
    opening = Opening(JOB.message_id, JOB.user_id, BEGUN)
    return [
        *door.begin(opening),
        *door.feed(lives.Life(SAID, lives.COMPLETE).pieces),
        *door.end(lives.COMPLETE),
    ]


def lines(*payloads: bytes) -> list[bytes]:
    return [line for payload in payloads if payload for line in payload.split(b"\n")]


def stored(records: list[LogPart]) -> StoredLog:
    return StoredLog([LogEntry(one.kind, one.data, one.token_index) for one in records], {})


def begin(next_: int = 0, log: StoredLog | None = None) -> DialectTranscript:
    return DialectTranscript(JOB, next_, log, BEGUN)


def test_all_events_are_told_once_with_the_entries_and_the_end():
    transcript = begin()
    records = write(transcript, *SAID)
    assert lines(*(record.frame for record in records), transcript.end(lives.COMPLETE)) == whole()
    assert [record.index for record in records] == list(range(len(SAID)))
    assert [record.token_index for record in records if not record.kind] == [0, 1, 2]


def test_worker_that_takes_over_goes_on_where_the_other_stopped():
    for cut in range(len(SAID)):
        first = write(begin(), *SAID[:cut])
        second = begin(cut, stored(first))
        rest = write(second, *SAID[cut:])
        frames = (record.frame for record in (*first, *rest))
        assert lines(*frames, second.end(lives.COMPLETE)) == whole()


def test_entries_are_written_again_as_they_were():
    transcript = begin()
    records = write(transcript, *SAID)
    assert transcript.since(2, 4) == records[2:6]
    assert transcript.since(0, 99) == records
    assert lines(*(one.frame for one in records), transcript.end(lives.COMPLETE)) == whole()


def test_entries_that_were_never_written_are_not_counted():
    transcript = begin()
    records = write(transcript, *SAID[:4], "never", "written")
    transcript.truncate(4)
    rest = write(transcript, *SAID[4:])
    frames = (one.frame for one in (*records[:4], *rest))
    assert lines(*frames, transcript.end(lives.COMPLETE)) == whole()


def test_only_a_job_with_a_dialect_gets_it():
    assert type(transcript_of(make_job(), 0, None, b"")) is Transcript
    begun = begun_in_dialect(JOB, "m", "p", 3.7)
    assert stream.decode_begun(begun) == Begun("m", "p", 3, dialect="laravel-ai")
    asked = make_job(dialect="laravel-ai", model="other")
    assert stream.decode_begun(begun_in_dialect(asked, "m", "p", 3.7)).model == "other"


async def test_reply_is_streamed_in_the_dialect_alone(stage: Stage):
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(Puppet(*spoken("Hel", "lo")), JOB)
        await ears.all()
    assert [event for event, _ in ears.heard] == [
        *("stream_start", "text_start", "text_delta", "text_delta", "text_end", "stream_end")
    ]
    assert [data["index"] for _, data in ears.heard] == list(range(6))
    assert ears.heard[0][1]["provider"] == "puppet"
    assert stage.turns() == [("user", "Hello", "complete"), ("assistant", "Hello", "complete")]


async def test_takeover_begins_no_second_time(stage: Stage):
    await append_under_a_dead_claim(stage.redis, "Hel")
    begun = begun_in_dialect(JOB, "first", "p", 5)
    await stage.redis.hset(MESSAGE, "begun", begun)
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(Puppet(*spoken("lo")), JOB)
        await ears.all()
    assert [(event, data["index"]) for event, data in ears.heard] == [
        *(("text_delta", 3), ("text_end", 4), ("stream_end", 5))
    ]
    assert {data["timestamp"] for _, data in ears.heard} == {5}


async def test_reply_that_fails_before_it_begins_begins_with_its_end(stage: Stage):
    async with Ears(stage.redis, JOB) as ears:
        await stage.answer(Puppet(), make_job(dialect="laravel-ai", agent="unknown"))
        await ears.all()
    assert [event for event, _ in ears.heard] == ["stream_start", "stream_failed"]


async def test_reply_that_waits_for_an_approval_goes_on_under_the_next_number(redis, store):
    stage = AgentStage(redis, store)
    agent = stage.agent(stage.world.tools(needs_approval=True), show_tools="output", show_reasoning=True)
    job = script('reason=1 tokens=1 tool=pay:{"amount":3} echo', dialect="laravel-ai")
    async with Ears(redis, job) as ears:
        assert await stage.answer(agent, job) is Outcome.WAITING
        await ears.all()
        (asked,) = data_of(ears, "tool_approval_request")[0]["approvals"]
        await stage.decide(job, asked["id"], approve=True)
        assert await stage.answer(agent, job, ticket="2") is Outcome.DONE
        await ears.all()
    assert names(ears) == [
        *("stream_start", "reasoning_start", "reasoning_delta", "reasoning_end"),
        *("text_start", "text_delta", "text_end", "tool_call", "tool_approval_request", "tool_result"),
        *("stream_start", "text_start", "text_delta", "text_end", "stream_end"),
    ]
    assert [data["index"] for _, data in ears.heard] == list(range(len(ears.heard)))
    assert data_of(ears, "tool_result")[0]["result"] == "paid 3"
