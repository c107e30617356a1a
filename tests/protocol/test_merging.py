"""The queue of a slow client: merged tokens, endings that go first, and what keeps its order."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import messages, parts, stream
from legato.protocol.merging import MERGED_BYTES, MergingQueue

A, B, OTHER = "private-ai-chat.1", "private-ai-chat.2", "news"
ALL = 2**40


def queue(*channels: str) -> MergingQueue:
    return MergingQueue(frozenset(channels or (A, B)), lambda payload: payload)


def token(index: int, text: str | None = None, message: str = "m", channel: str = A, **more: Any) -> bytes:
    text = f"{message}{index}." if text is None else text
    return stream.TokenReceived(7, message, text, index, **more).frame(channel)


def part(message: str = "m", channel: str = A, offset: int = 0) -> bytes:
    return parts.frame("reasoning", b'{"delta":"hm"}', channel, message, offset, 0)


def ending(message: str = "m", channel: str = A, kind: str = "completed") -> bytes:
    event: Any = {
        "completed": stream.Completed(7, message, 3),
        "failed": stream.Failed(7, message, stream.FAILED_TEXT, True, "timeout"),
        "cancelled": stream.Cancelled(message, 3),
    }[kind]
    return event.frame(channel)


def plain(number: int = 0, channel: str = A) -> bytes:
    return messages.channel_event("e", channel, str(number))


def filled(*frames: bytes) -> MergingQueue:
    line = queue()
    for frame in frames:
        line.put(frame, frame)
    return line


def through(*frames: bytes) -> list[bytes]:
    """What comes out when all frames wait."""
    line = filled(*frames)
    taken = line.take(ALL)
    assert (line.size, len(line)) == (0, 0)
    return taken


# --- tokens


def test_adjacent_tokens_become_one_frame_with_the_first_index_and_their_number():
    assert through(token(4), token(5), token(6)) == [token(4, "m4.m5.m6.", token_count=3)]


def test_a_merged_frame_is_a_token_with_one_more_field():
    (frame,) = through(token(0, "Grüße, "), token(1, '"Ölaf"\n'))
    assert json.loads(json.loads(frame)["data"]) == {
        "userId": 7,
        "messageId": "m",
        "token": 'Grüße, "Ölaf"\n',
        "tokenIndex": 0,
        "tokenCount": 2,
    }


def test_a_single_token_stays_the_frame_that_it_was():
    odd = messages.channel_event(
        "token.received", A, '{ "messageId":"m","tokenIndex":0,"token":"a","userId":7}'
    )
    assert through(odd) == [odd]
    assert through(odd, token(1, "b")) == [token(0, "ab", token_count=2)]


def test_tokens_of_interleaved_messages_are_merged_by_message():
    frames = [token(index, message=name) for index in range(3) for name in ("m", "n")]
    assert through(*frames) == [
        token(0, "m0.m1.m2.", "m", token_count=3),
        token(0, "n0.n1.n2.", "n", token_count=3),
    ]


def test_equal_messages_of_two_channels_are_kept_apart():
    frames = [token(0), token(1, channel=B), token(1), token(2, channel=B)]
    assert through(*frames) == [
        token(0, "m0.m1.", token_count=2),
        token(1, "m1.m2.", channel=B, token_count=2),
    ]


def test_merged_tokens_may_be_merged_again():
    frames = [token(0, "ab", token_count=2), token(2, "cd", token_count=2), token(4, "e")]
    assert through(*frames) == [token(0, "abcde", token_count=5)]


@pytest.mark.parametrize("between", [part(), ending(), plain(), plain(channel=B), b"?", b"[1]"])
def test_what_a_token_must_not_overtake_separates_tokens(between):
    frames = [token(0), between, token(1)]
    expected = frames if between != plain(channel=B) else [token(0, "m0.m1.", token_count=2), between]
    assert through(*frames) == expected


@pytest.mark.parametrize(
    "between", [part("n"), ending("n"), token(0, message="n"), plain(channel=OTHER), messages.PING]
)
def test_what_belongs_elsewhere_does_not_separate_tokens(between):
    merged = token(0, "m0.m1.", token_count=2)
    assert sorted(through(token(0), between, token(1))) == sorted([merged, between])


OF_REPLIES = [
    "reply.queued",
    "stream.started",
    "stream.snapshot",
    *(kind.event for kind in parts.KINDS.values()),
]


@pytest.mark.parametrize("event", OF_REPLIES)
def test_each_event_of_a_reply_separates_the_tokens_of_its_message_alone(event):
    between = messages.channel_event(event, A, '{"messageId":"n"}')
    expected = [token(0, "m0.m1.", token_count=2), token(0, message="n"), between, token(1, message="n")]
    frames = [token(0), token(0, message="n"), between, token(1), token(1, message="n")]
    assert through(*frames) == expected


@pytest.mark.parametrize("index", [0, 2])
def test_tokens_with_a_gap_or_a_repetition_between_them_are_not_merged(index):
    frames = [token(0), token(index, "x")]
    assert through(*frames) == frames


def test_tokens_for_two_users_are_not_merged():
    other = stream.TokenReceived("8", "m", "x", 1).frame(A)
    assert through(token(0), other) == [token(0), other]


NO_TOKENS = [
    '{"userId":7,"messageId":"m","token":"x","tokenIndex":1,"extra":1}',
    '{"userId":7,"messageId":"m","token":"x","tokenIndex":-1}',
    '{"userId":7,"messageId":"m","token":"x","tokenIndex":1,"tokenCount":0}',
    '{"userId":7,"messageId":"m","token":"x","tokenIndex":1e99}',
    '{"userId":1180591620717411303424,"messageId":"m","token":"x","tokenIndex":1}',
    '{"userId":7,"messageId":"m","token":"\\ud800","tokenIndex":1}',
    '{"userId":7,"messageId":"","token":"x","tokenIndex":1}',
    "[]",
    "?",
]


@pytest.mark.parametrize("data", NO_TOKENS)
def test_what_only_looks_like_a_token_passes_unchanged_and_separates(data):
    odd = messages.channel_event("token.received", A, data)
    assert through(token(0), odd, token(1)) == [token(0), odd, token(1)]


def test_an_event_of_a_reply_without_a_message_separates_as_any_other():
    odd = messages.channel_event("stream.completed", A, "{}")
    assert through(token(0), odd, token(1)) == [token(0), odd, token(1)]


def test_channels_that_were_not_asked_for_pass_unchanged():
    frames = [token(0, channel=OTHER), token(1, channel=OTHER), ending(channel=OTHER)]
    assert through(*frames) == frames


def test_the_text_of_a_merged_frame_is_bounded():
    text = "ä" * 100
    frames = through(*(token(index, text) for index in range(200)))
    found = [json.loads(json.loads(frame)["data"]) for frame in frames]
    assert [one["tokenIndex"] for one in found] == [0, 81, 162]
    assert "".join(one["token"] for one in found) == text * 200
    assert all(len(one["token"].encode()) <= MERGED_BYTES for one in found)
    long = token(1, "x" * (MERGED_BYTES + 1))
    assert through(token(0), long) == [token(0), long]


def test_empty_tokens_are_counted():
    assert through(token(0, ""), token(1, ""), token(2, "a")) == [token(0, "a", token_count=3)]


# --- endings


@pytest.mark.parametrize("kind", ["completed", "failed", "cancelled"])
def test_an_ending_goes_directly_behind_its_last_token(kind):
    others = [token(index, message=f"n{index}") for index in range(5)]
    end = ending(kind=kind)
    assert through(token(0), *others, end) == [token(0), end, *others]


def test_an_ending_whose_tokens_are_sent_already_goes_first():
    line = filled(token(0), token(0, message="n"), plain(channel=OTHER))
    assert line.take(1) == [token(0)]
    line.put(ending(), ending())
    line.put(ending("o"), ending("o"))
    assert line.take(1) == [ending(), ending("o")]
    assert line.take(ALL) == [token(0, message="n"), plain(channel=OTHER)]
    assert line.size == 0


def test_endings_that_go_first_count_before_the_line():
    line = filled(token(0, message="n"))
    line.put(ending(), ending())
    assert line.size == len(ending()) + len(token(0, message="n"))
    assert line.take(1) == [ending()]
    assert line.size == len(token(0, message="n"))


@pytest.mark.parametrize("event", [plain(), b"?"])
def test_an_ending_overtakes_no_event_of_its_channel_that_belongs_to_no_reply(event):
    others = [token(0, message="n"), plain(channel=OTHER)]
    assert through(token(0), event, *others, ending()) == [token(0), event, ending(), *others]


def test_an_ending_overtakes_the_parts_of_other_messages():
    assert through(part(), part("n"), ending()) == [part(), ending(), part("n")]


def test_what_follows_an_ending_stays_behind_it():
    frames = [token(0), ending(), plain(), token(1), ending(kind="failed")]
    assert through(*frames) == frames


# --- changes


def test_after_a_change_nothing_joins_or_overtakes_what_waited_before():
    line = filled(token(0), token(0, message="n"))
    line.change(frozenset({B}))
    line.put(token(1), token(1))
    line.change(frozenset({A}))
    frames = [token(2), token(3), ending("n")]
    for frame in frames:
        line.put(frame, frame)
    taken = [frame for frame in line.take(ALL) if frame]
    expected = [token(0), token(0, message="n"), token(1)]
    assert taken[:3] == expected
    assert sorted(taken[3:]) == sorted([token(2, "m2.m3.", token_count=2), ending("n")])
    assert not line


# --- any order


MESSAGES = [(A, "m"), (A, "n"), (B, "m")]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("token"), st.sampled_from(MESSAGES), st.sampled_from([0, 0, 0, 0, 1])),
        st.tuples(st.just("part"), st.sampled_from(MESSAGES), st.just(0)),
        st.tuples(st.just("end"), st.sampled_from(MESSAGES), st.just(0)),
        st.tuples(st.just("plain"), st.sampled_from([(A, ""), (B, ""), (OTHER, "")]), st.just(0)),
        st.tuples(st.just("unreadable"), st.just(("", "")), st.just(0)),
        st.tuples(st.just("take"), st.just(("", "")), st.sampled_from([1, 300, 2000])),
    ),
    max_size=60,
)

Seen = tuple[str, str, str, Any]
"""Kind, channel, message, and the token's index or the frame."""


def expanded(frame: bytes) -> list[Seen]:
    """What a reader gets from a frame, token by token. Checks the text of merged ones."""
    if not frame.startswith(b"{"):
        return [("unreadable", "", "", frame)]
    message = json.loads(frame)
    if message["event"] == "e":
        return [("plain", message["channel"], "", frame)]
    data = json.loads(message["data"])
    place = message["channel"], data["messageId"]
    if message["event"] != "token.received":
        return [("end" if message["event"].startswith("stream.") else "part", *place, frame)]
    first, count = data["tokenIndex"], data.get("tokenCount", 1)
    indexes = range(first, first + count)
    assert data["token"] == "".join(f"{data['messageId']}{index}." for index in indexes)
    return [("token", *place, index) for index in indexes]


def made(kind: str, place: tuple[str, str], number: int, index: int) -> bytes:
    channel, message = place
    if kind == "token":
        return token(index, None, message, channel)
    if kind == "part":
        return part(message, channel, number)
    if kind == "end":
        return stream.Cancelled(message, number).frame(channel)
    return plain(number, channel) if kind == "plain" else b"%d" % number


def visible_to(seen: list[Seen], place: tuple[str, str]) -> list[Seen]:
    """What must keep its order: the frames of a message, and what belongs to no reply."""
    channel = place[0]
    return [one for one in seen if one[1:3] in (place, (channel, "")) or one[0] == "unreadable"]


@given(STEPS)
def test_every_token_arrives_once_and_each_message_in_its_order(steps):
    line = queue()
    said: list[Seen] = []
    frames: list[bytes] = []
    next_index = dict.fromkeys(MESSAGES, 0)
    tokens = merged = 0
    for number, (kind, place, amount) in enumerate(steps):
        if kind == "take":
            frames += line.take(amount)
            continue
        index = 0
        if kind == "token":
            index = next_index[place] + amount  # with a gap, now and then
            next_index[place] = index + 1
            tokens += 1
        frame = made(kind, place, number, index)
        said += expanded(frame)
        merged += line.put(frame, frame)
    frames += line.take(ALL)
    assert (line.size, len(line), line._last) == (0, 0, {})
    heard = [one for frame in frames for one in expanded(frame)]
    assert sorted(heard, key=repr) == sorted(said, key=repr)
    for place in [*MESSAGES, (OTHER, "")]:
        assert visible_to(heard, place) == visible_to(said, place)
    assert tokens - merged == sum(expanded(frame)[0][0] == "token" for frame in frames)


@given(STEPS)
def test_no_ending_waits_for_another_message(steps):
    line = queue()
    next_index = dict.fromkeys(MESSAGES, 0)
    for number, (kind, place, _) in enumerate(steps):
        if kind == "take":
            continue
        frame = made(kind, place, number, next_index.get(place, 0))
        if kind == "token":
            next_index[place] += 1
        line.put(frame, frame)
    before: tuple[str, str] | None = None
    for frame in line.take(ALL):
        kind, channel, message, _ = expanded(frame)[-1]
        if kind == "end":
            assert before in (None, (channel, message), (channel, ""), ("", ""))
        else:
            before = channel, message


# --- memory


def grown(frames: list[bytes]) -> tuple[int, int]:
    """The memory that a queue takes, and its size, in bytes."""
    tracemalloc.start()
    try:
        line = queue()
        before = tracemalloc.get_traced_memory()[0]
        for frame in frames:
            copy = bytes(bytearray(frame))  # its own, as one cut out of a write is
            line.put(copy, copy)
        del copy
        return tracemalloc.get_traced_memory()[0] - before, line.size
    finally:
        tracemalloc.stop()


def test_the_memory_of_a_queue_is_a_small_multiple_of_its_size():
    """Also if nothing can be merged: each token is of another message."""
    for frames in (
        [token(0, "x", message=f"m{number}") for number in range(2_000)],
        [plain(number, channel) for number in range(1_000) for channel in (A, B)],
        [part(offset=number) for number in range(2_000)],
        [plain(number, OTHER) for number in range(2_000)],
    ):
        memory, size = grown(frames)
        assert size == sum(map(len, frames))
        assert memory < 6 * size


def test_a_merged_reply_takes_little_more_than_its_text():
    memory, size = grown([token(index, " word") for index in range(2_000)])
    assert 10_000 < size < 13_000
    assert memory < 2 * size
