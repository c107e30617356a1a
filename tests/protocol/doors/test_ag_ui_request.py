"""The input of a run of AG-UI, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from legato.protocol.doors.ag_ui_request import ToolAnswer, parse_run
from legato.protocol.jobs import InvalidRequest, Turn

USER = {"id": "u1", "role": "user", "content": "Hi"}


def sent(*messages: Any, **more: Any) -> bytes:
    run = {"threadId": "c42", "runId": "r1", "messages": messages, "tools": [], "context": [], "state": {}}
    return json.dumps({**run, **more}).encode()


def test_history_is_what_both_have_said_before():
    call = {"id": "a1", "role": "assistant", "toolCalls": [{"id": "t"}]}
    result = {"id": "t1", "role": "tool", "toolCallId": "t", "content": "18"}
    last = {"id": "u2", "role": "user", "content": [{"type": "text", "text": "And?"}, {"type": "binary"}, 1]}
    run = parse_run(sent({"id": "s", "role": "system", "content": "Be kind."}, USER, call, result, last))
    assert run.request is not None
    assert run.request.message == "And?"
    assert run.request.history == (Turn("user", "Hi"),)
    assert [message.id for message in run.messages] == ["s", "u1", "a1", "t1", "u2"]
    assert json.loads(bytes(run.messages[2].raw)) == call
    assert (run.thread_id, run.run_id, run.knows_outcomes, run.answers) == ("c42", "r1", False, ())


def test_key_is_that_of_the_run():
    assert parse_run(sent(USER)).key == parse_run(sent(USER, protocolVersion="1.0")).key
    assert parse_run(sent(USER)).key != parse_run(sent(USER, runId="r2")).key
    assert parse_run(sent(USER, protocolVersion="1.0")).knows_outcomes


@pytest.mark.parametrize(
    ("status", "payload", "answer"),
    [
        ("resolved", {"approve": True, "note": "Go."}, ToolAnswer("a", True, "Go.")),
        ("resolved", {"approved": False, "note": 1}, ToolAnswer("a", False, "")),
        ("resolved", False, ToolAnswer("a", False, "")),
        ("resolved", None, ToolAnswer("a", True, "")),
        ("cancelled", {"approve": True}, ToolAnswer("a", False, "")),
    ],
)
def test_answers_to_interrupts_need_no_message(status, payload, answer):
    run = parse_run(sent(resume=[{"interruptId": "a", "status": status, "payload": payload}]))
    assert (run.request, run.answers) == (None, (answer,))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (sent(1), "messages.0.$"),
        (sent(USER, {"id": 1, "role": "user"}), "messages.1.id"),
        (sent(USER, threadId=""), "threadId"),
        (sent(USER, runId="x" * 257), "runId"),
        (b"{}", "threadId"),
    ],
)
def test_other_bodies_are_refused(body, field):
    with pytest.raises(InvalidRequest) as refused:
        parse_run(body)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "messages",
    [
        (),
        ({"role": "assistant", "content": "Hi"},),
        ({"role": "user", "content": {"text": "Hi"}},),
        ({"role": "user"},),
    ],
)
def test_without_a_question_at_the_end_no_run_begins(messages):
    run = parse_run(sent(*messages))
    assert run.request is None
    assert run.refusal is not None
    assert run.refusal.field == "messages"
