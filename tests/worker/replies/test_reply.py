"""One reply without I/O: indexes, frames, and how it ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.parts import LogEntry
from legato.protocol.stream import FAILED_TEXT, Usage, decode_begun
from legato.protocol.text import well_formed
from legato.worker.providers import base
from legato.worker.replies import reply
from legato.worker.replies.log import Claim, GapError, StoredLog
from legato.worker.replies.reply import Decision, Reply
from legato.worker.store.tables import messages
from tests.worker.support import make_job

USAGE = Usage(input=3, output=2)


def make(next_: int = 0, text: str = "", usage: bytes = b"", **fields: Any) -> Reply:
    claim = Claim("run", 2, next_, b"", usage)
    log = StoredLog([LogEntry("", text.encode(), None)] if text else [], {})
    return Reply(make_job(**fields), claim, model="asked-for", log=log)


def opened(frame: bytes) -> tuple[str, str, Any]:
    message = msgspec.json.decode(frame)
    return message["event"], message["channel"], msgspec.json.decode(message["data"])


def test_started_tells_the_model_that_answers() -> None:
    answer = make()
    assert opened(answer.started(base.RequestAccepted("claude-x"))) == (
        "stream.started",
        "private-ai-chat.7",
        {"messageId": "m1", "attempt": 2, "model": "claude-x"},
    )
    assert answer.model == "claude-x"


def test_readers_are_told_if_the_model_does_not_get_the_whole_history() -> None:
    answer = make(history_cut=True)
    _, _, data = opened(answer.started(base.RequestAccepted("x")))
    assert data == {"messageId": "m1", "attempt": 2, "model": "x", "historyCut": True}
    assert decode_begun(answer.begun("anthropic", 3)).history_cut
    assert not decode_begun(make().begun("anthropic", 3)).history_cut


def test_whatever_a_provider_reports_the_end_of_the_reply_can_be_stored() -> None:
    """A longer value made PostgreSQL refuse the turns, and a complete reply fail."""
    answer = make()
    answer.started(base.RequestAccepted("m" * 300))
    answer.tokens("x")
    answer.final(base.Final("a\0\ud800" + "r" * 1_000_000, Usage(2**70, -1, 2**31 - 1, 2**31)))
    decision = answer.decision
    assert decision is not None
    assert decision.state == "complete"
    assert decision.stop_reason == "a\ufffd" + "r" * 61
    assert decision.model == "m" * 200
    assert decision.usage == Usage(2**31 - 1, 0, 2**31 - 1, 2**31 - 1)
    for column, text in ((messages.c.stop_reason, decision.stop_reason), (messages.c.model, decision.model)):
        assert len(text) <= column.type.length


def test_the_usage_of_all_attempts_together_can_be_stored() -> None:
    answer = make(usage=msgspec.json.encode(Usage(2**31 - 5, 1)))
    answer.final(base.Final("end_turn", Usage(9, 1)))
    assert answer.usage == Usage(2**31 - 1, 2)


def test_the_name_of_a_model_that_never_answered_can_be_stored() -> None:
    answer = Reply(make_job(), Claim("run", 1, 0, b"", b""), model="m" * 300)
    answer.fail("overloaded")
    assert answer.decision is not None
    assert answer.decision.model == "m" * 200


@pytest.mark.parametrize("user_id", [7, "ann"])
def test_token_keeps_the_type_of_the_user_id(user_id: int | str) -> None:
    (token,) = make(user_id=user_id).tokens("Hi")
    assert opened(token.frame) == (
        "token.received",
        f"private-ai-chat.{user_id}",
        {"userId": user_id, "messageId": "m1", "token": "Hi", "tokenIndex": 0},
    )


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9000), max_size=5))
def test_tokens_count_without_gaps_and_join_to_the_text(pieces: list[str]) -> None:
    answer = make(next_=4)
    tokens = [token for piece in pieces for token in answer.tokens(piece)]
    assert [token.index for token in tokens] == list(range(4, answer.next))
    assert "".join(token.text for token in tokens) == answer.text == "".join(pieces)
    assert all(0 < len(token.text) <= reply.MAX_TOKEN_CHARACTERS for token in tokens)


def test_tokens_again_are_the_very_same() -> None:
    answer = make(next_=1, text="a")
    said = [token for text in ("b", "cc" * reply.MAX_TOKEN_CHARACTERS) for token in answer.tokens(text)]
    assert answer.written.since(1, 99) == said
    assert [token.text for token in answer.written.since(0, 2)] == ["a", "b"]


def test_tokens_whose_text_was_never_known_are_not_made_up() -> None:
    answer = make(next_=2, text="a")
    list(answer.tokens("c"))
    with pytest.raises(GapError):
        answer.written.since(1, 9)


def test_another_attempt_goes_on_from_the_text_without_what_was_held_back() -> None:
    answer = make(next_=1, text="The quick brown")
    assert list(answer.tokens("The quick")) == []
    answer.next_attempt(3)
    assert (answer.attempt, answer.next, answer.request().so_far) == (3, 1, "The quick brown")
    (token,) = answer.tokens("The quick brown fox")
    assert (token.index, token.text) == (1, " fox")
    assert answer.text == "The quick brown fox"


@given(st.text(st.sampled_from("a\ud83d\ude00\U0001f600"), max_size=8), st.integers(0, 8))
def test_halves_of_a_character_are_joined_over_pieces_and_never_told_alone(text: str, cut: int) -> None:
    answer = make()
    pieces = [piece for piece in (text[:cut], text[cut:]) if piece]
    tokens = [token for piece in pieces for token in answer.tokens(piece)]
    tokens += answer.rest()
    assert "".join(token.text for token in tokens) == answer.text == well_formed(text)
    assert [token.index for token in tokens] == list(range(answer.next))
    assert all(token.text for token in tokens)


def test_half_a_character_that_was_held_back_is_forgotten_with_its_attempt() -> None:
    answer = make()
    list(answer.tokens("One two three. \ud83d"))
    answer.next_attempt(2)
    list(answer.tokens("One two three. \ude00"))
    list(answer.rest())
    assert answer.text == "One two three. \ufffd"


def test_names_that_utf8_cannot_carry_do_not_fail_a_reply() -> None:
    answer = make()
    answer.started(base.RequestAccepted("m\ud83d"))
    list(answer.tokens("a"))
    answer.final(base.Final("end\ud83d", Usage()))
    assert answer.decision is not None
    assert (answer.decision.model, answer.decision.stop_reason) == ("m\ufffd", "end\ufffd")
    reply.encode_decision(answer.decision)


def test_text_that_was_held_back_comes_out_at_the_end() -> None:
    answer = make(next_=1, text="It is so. It is")
    assert list(answer.tokens("so")) == []
    assert [token.text for token in answer.rest()] == ["so"]


@pytest.mark.parametrize("known", [b"", b"nonsense", b"\xff", b"[]"])
def test_use_that_nobody_can_read_counts_as_none(known: bytes) -> None:
    assert make(usage=known).usage is None


@pytest.mark.parametrize(
    ("stop_reason", "sent", "state", "code"),
    [
        ("end_turn", 2, "complete", ""),
        ("max_tokens", 2, "complete", ""),
        ("stop_sequence", 2, "complete", ""),
        ("model_context_window_exceeded", 2, "complete", ""),
        ("never_heard_of", 2, "complete", ""),
        ("refusal", 2, "failed", "refusal"),
        ("refusal", 0, "failed", "refusal"),
        ("model_context_window_exceeded", 0, "failed", "context_window"),
        ("end_turn", 0, "failed", "empty"),
    ],
)
def test_models_end_decides(stop_reason: str, sent: int, state: reply.End, code: str) -> None:
    answer = make(next_=sent, text="x" * sent)
    answer.final(base.Final(stop_reason, USAGE))
    assert answer.decision == Decision(stop_reason, USAGE, "asked-for", state, code)


def test_completed_carries_count_usage_and_stop_reason() -> None:
    frame, error = make(next_=5).terminal(Decision("max_tokens", USAGE))
    assert error == ""
    assert opened(frame)[::2] == (
        "stream.completed",
        {
            "userId": 7,
            "messageId": "m1",
            "totalTokens": 5,
            "stopReason": "max_tokens",
            "usage": {"input": 3, "output": 2, "cacheRead": 0, "cacheWrite": 0},
        },
    )


@pytest.mark.parametrize("sent", [0, 3])
def test_failed_says_whether_some_text_was_sent(sent: int) -> None:
    answer = make(next_=sent)
    answer.fail("overloaded")
    assert answer.decision is not None
    frame, error = answer.terminal(answer.decision)
    assert error == FAILED_TEXT
    assert opened(frame)[::2] == (
        "stream.failed",
        {
            "userId": 7,
            "messageId": "m1",
            "error": FAILED_TEXT,
            "partial": sent > 0,
            "code": "overloaded",
        },
    )


def test_cancelled_carries_the_count() -> None:
    answer = make(next_=3)
    answer.cancel()
    assert answer.decision is not None
    frame, error = answer.terminal(answer.decision)
    assert (opened(frame)[::2], error) == (("stream.cancelled", {"messageId": "m1", "totalTokens": 3}), "")


@given(
    st.builds(
        Decision,
        stop_reason=st.none() | st.text(st.characters(codec="utf-8")),
        usage=st.none() | st.builds(Usage, input=st.integers(0, 2**53), output=st.integers(0, 2**53)),
        model=st.text(st.characters(codec="utf-8")),
        state=st.sampled_from(["complete", "failed", "cancelled"]),
        code=st.text(st.characters(codec="utf-8")),
    )
)
def test_decision_survives_the_log(decision: Decision) -> None:
    assert reply.decode_decision(reply.encode_decision(decision)) == decision


def test_decision_of_a_completed_reply_is_the_documented_marker() -> None:
    marker = msgspec.json.decode(reply.encode_decision(Decision("end_turn", USAGE)))
    assert marker == {
        "stopReason": "end_turn",
        "usage": {"input": 3, "output": 2, "cacheRead": 0, "cacheWrite": 0},
    }
