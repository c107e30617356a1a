"""What a snapshot has of a reply, from its log and from the frames that followed: the same from both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import parts, stream, transcript
from legato.protocol.parts import LogEntry, Part

if TYPE_CHECKING:
    from legato.protocol.transcript import Piece

CHANNEL = "private-ai-chat.7"

Said = str | Part | None
"""What a worker writes: a token, a part, or something hidden."""


def entries(said: list[Said]) -> list[LogEntry]:
    tokens = 0
    log = []
    for one in said:
        if isinstance(one, str):
            log.append(LogEntry("", one.encode(), None if tokens == len(log) else tokens))
            tokens += 1
        elif one is None:
            log.append(LogEntry(parts.HIDDEN, b"", tokens))
        else:
            log.append(LogEntry(one.kind, parts.encode(one), tokens))
    return log


def from_log(said: list[Said]) -> list[Piece]:
    return [transcript.of_entry(entry, offset) for offset, entry in enumerate(entries(said))]


def frame(entry: LogEntry, offset: int) -> bytes:
    if entry.kind:
        return parts.frame(entry.kind, entry.data, CHANNEL, "m", offset, entry.token_index or 0)
    index = offset if entry.token_index is None else entry.token_index
    return stream.TokenReceived(7, "m", entry.data.decode(), index).frame(CHANNEL)


def from_frames(said: list[Said]) -> list[Piece]:
    return [transcript.of_frame(frame(entry, at), at) for at, entry in enumerate(entries(said))]


def shown(said: list[Said]) -> list[Any]:
    """The parts as a reader gets them."""
    return json.loads(msgspec.json.encode(transcript.parts(from_log(said))))


def reasoning(text: str) -> Part:
    return parts.ReasoningReceived(text)


CALL = parts.ToolCalled("c1", "weather", {"city": "Oslo"})
RESULT = parts.ToolFinished("c1", "weather", True, {"sky": "clear"})
STEP = parts.StepCompleted(1, "tool_use", stream.Usage(1, 2))

SAID = st.lists(
    st.one_of(
        st.text(max_size=4),
        st.none(),
        st.builds(parts.ReasoningReceived, st.text(max_size=4)),
        st.builds(parts.ToolInputReceived, st.sampled_from("ab"), st.text(max_size=4)),
        st.builds(parts.ToolFinished, st.sampled_from("ab"), st.text(max_size=4), st.booleans()),
        st.just(CALL),
        st.builds(parts.Retracted, st.integers(0, 20)),
    ),
    max_size=20,
)


@given(SAID)
def test_the_log_and_the_frames_say_the_same(said):
    first, second = from_log(said), from_frames(said)
    for status in ("streaming", "waiting"):
        one = transcript.snapshot("m", first, status).frame(CHANNEL)
        assert one == transcript.snapshot("m", second, status).frame(CHANNEL)
    assert [piece is None for piece in first] == [piece is None for piece in second]


@given(st.lists(st.text()))
def test_a_reply_of_text_has_the_snapshot_it_always_had(tokens):
    made = transcript.snapshot("m", from_log(list(tokens)), "streaming")
    assert made == stream.Snapshot("m", "".join(tokens), len(tokens), "streaming")
    data = json.loads(json.loads(made.frame(CHANNEL))["data"])
    assert list(data) == ["messageId", "text", "nextIndex", "status"]


def test_a_snapshot_has_the_parts_with_their_places():
    made = transcript.snapshot("m", from_log(["Let me see.", CALL, STEP, None, RESULT, "Clear."]), "waiting")
    data = json.loads(json.loads(made.frame(CHANNEL))["data"])
    assert data == {
        "messageId": "m",
        "text": "Let me see.Clear.",
        "nextIndex": 2,
        "status": "waiting",
        "offset": 6,
        "parts": [
            {
                "event": "tool.called",
                "offset": 1,
                "tokenIndex": 1,
                "call": "c1",
                "name": "weather",
                "input": {"city": "Oslo"},
            },
            {
                "event": "step.completed",
                "offset": 2,
                "tokenIndex": 1,
                "step": 1,
                "stopReason": "tool_use",
                "usage": {"input": 1, "output": 2, "cacheRead": 0, "cacheWrite": 0},
            },
            {
                "event": "tool.finished",
                "offset": 4,
                "tokenIndex": 1,
                "call": "c1",
                "name": "weather",
                "ok": True,
                "output": {"sky": "clear"},
            },
        ],
    }


def test_a_reply_with_nothing_but_hidden_parts_has_an_offset():
    made = transcript.snapshot("m", from_log(["a", None]), "streaming")
    assert (made.next_index, made.offset, made.parts) == (1, 2, ())


def test_successive_pieces_of_reasoning_are_joined_and_stand_where_the_first_is():
    said = [
        "a",
        reasoning("x"),
        None,
        reasoning("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")),
    ]
    said += ["b", reasoning('"z\n'), CALL, reasoning("!")]
    places = [(part["event"], part["offset"], part["tokenIndex"], part.get("delta")) for part in shown(said)]
    assert places == [
        ("reasoning.received", 1, 1, "x\U0001f600"),
        ("reasoning.received", 5, 2, '"z\n'),
        ("tool.called", 6, 2, None),
        ("reasoning.received", 7, 2, "!"),
    ]


def test_inputs_are_joined_by_call():
    pieces = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("a", "5")]
    told = shown([parts.ToolInputReceived(call, delta) for call, delta in pieces])
    assert [(part["call"], part["delta"]) for part in told] == [("a", "12"), ("b", "34"), ("a", "5")]


def test_retracted_parts_are_left_out_and_never_text():
    said = [reasoning("kept"), STEP, "a", reasoning("x"), CALL, "b", parts.Retracted(3), reasoning("again")]
    pieces = from_log(said)
    assert transcript.texts(pieces) == ["a", "b"]
    told = [(part["event"], part["offset"], part.get("delta")) for part in shown(said)]
    assert told == [
        ("reasoning.received", 0, "kept"),
        ("step.completed", 1, None),
        ("reasoning.received", 7, "again"),
    ]


def test_part_of_a_run_may_be_retracted():
    said = [reasoning("a"), reasoning("b"), parts.Retracted(1), reasoning("c")]
    assert [(part["offset"], part["delta"]) for part in shown(said)] == [(0, "ac")]


@given(SAID)
def test_no_retracted_part_is_shown(said):
    offsets = {part["offset"] for part in shown(said)}
    for at, one in enumerate(said):
        if isinstance(one, parts.Retracted):
            assert not offsets & set(range(one.start, at + 1))


@pytest.mark.parametrize("entry", [LogEntry("later", b"?", 3), LogEntry("step", b"{}", None)])
def test_an_entry_that_this_version_cannot_know_is_not_visible(entry):
    assert transcript.of_entry(entry, 1) is None


def test_kinds_are_known_or_not():
    known = [transcript.known(LogEntry(kind, b"", 0)) for kind in ("", "hidden", "step", "later")]
    assert known == [True, True, True, False]


def test_a_frame_of_an_unknown_event_is_not_visible():
    assert transcript.of_frame(b'{"event":"later.one","channel":"c","data":"{}"}', 1) is None
    assert transcript.of_frame(b"", 1) is None


@given(st.text())
def test_the_token_of_a_frame_is_what_was_put_into_it(text):
    assert transcript.of_frame(stream.TokenReceived(7, "m", text, 0).frame(CHANNEL), 0) == text


@pytest.mark.parametrize(
    "frame",
    [
        b"?",
        b'{"event":"token.received"}',
        b'{"event":"token.received","data":"{}"}',
        b'{"event":"step.completed","data":"{}"}',
        b'{"event":"step.completed","data":"[]"}',
    ],
)
def test_what_is_no_frame_of_an_entry_is_refused(frame):
    with pytest.raises(ValueError, match=r"JSON|Object|Expected"):
        transcript.of_frame(frame, 0)


class TestBounds:
    def test_what_fits_is_left_as_it_is(self):
        told = transcript.parts(from_log([CALL, RESULT]))
        assert transcript.bounded(told) == told
        assert transcript.bounded([], 0) == []

    def test_outputs_are_left_out_first_the_oldest_before_the_others(self):
        results = [parts.ToolFinished(f"c{n}", "t", True, "x" * 100) for n in range(3)]
        told = transcript.parts(from_log([parts.ToolCalled("c", "t", "y" * 100), *results]))
        one = len(msgspec.json.encode(told)) - 2
        kept = transcript.bounded(told, one)
        assert [("output" in part, part.get("truncated")) for part in kept[1:]] == [
            (False, True),
            (True, None),
            (True, None),
        ]
        assert kept[0] == told[0]
        kept = transcript.bounded(told, 500)
        assert ["output" in part for part in kept[1:]] == [False, False, False]
        assert kept[0] == told[0]
        assert told[1]["output"] == msgspec.Raw(b'"' + b"x" * 100 + b'"')  # the others keep theirs

    def test_then_reasoning_and_at_last_inputs_then_the_oldest_parts(self):
        said = [reasoning("r" * 100), parts.ToolCalled("c", "t", "y" * 100), RESULT]
        told = transcript.parts(from_log(said))
        assert [
            sorted({"delta", "input", "output"} & set(part)) for part in transcript.bounded(told, 400)
        ] == [
            [],
            ["input"],
            [],
        ]
        assert [part["offset"] for part in transcript.bounded(told, 200)] == [1, 2]
        assert transcript.bounded(told, 0) == []

    @given(SAID, st.integers(0, 1_000))
    def test_whatever_the_limit_it_is_kept_and_the_newest_parts_remain(self, said, limit):
        told = transcript.parts(from_log(said))
        kept = transcript.bounded(told, limit)
        assert len(msgspec.json.encode(kept)) <= limit + len("[]")
        assert [part["offset"] for part in kept] == [part["offset"] for part in told[len(told) - len(kept) :]]
        for part, whole in zip(kept, told[len(told) - len(kept) :], strict=True):
            assert part == whole or (part["truncated"] is True and len(part) <= len(whole))

    def test_a_snapshot_is_bounded(self):
        big = parts.ToolFinished("c", "t", True, "x" * transcript.PARTS_BYTES)
        made = transcript.snapshot("m", from_log([big, "a"]), "streaming")
        assert made.parts == (
            {
                "event": "tool.finished",
                "offset": 0,
                "tokenIndex": 0,
                "call": msgspec.Raw(b'"c"'),
                "name": msgspec.Raw(b'"t"'),
                "ok": msgspec.Raw(b"true"),
                "truncated": True,
            },
        )
