"""What ``useChat`` sends, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from legato.protocol.doors.ui_request import parse_stop, parse_submit
from legato.protocol.jobs import InvalidRequest, Turn


def message(role: str, *texts: str, id_: str = "k3Jh") -> dict[str, Any]:
    return {"id": id_, "role": role, "parts": [{"type": "text", "text": text} for text in texts]}


def sent(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"id": "c42", "messages": messages, "trigger": "submit-message", **more}).encode()


def test_history_is_what_both_have_said_before():
    tool = {"type": "dynamic-tool", "toolName": "weather", "text": 1}
    assistant = message("assistant", "Good ", "day.")
    assistant["parts"].insert(1, tool)
    body = sent(
        message("system", "Be kind."),
        message("user", "Hi"),
        assistant,
        message("assistant"),
        message("user", "And?"),
    )
    asked = parse_submit(body)
    assert asked.chat_id == "c42"
    assert asked.request.message == "And?"
    assert asked.request.history == (Turn("user", "Hi"), Turn("assistant", "Good day."))
    assert asked.request.conversation_id is None


def test_last_message_alone_belongs_to_the_stored_conversation():
    asked = parse_submit(json.dumps({"id": "c42", "message": message("user", "And?")}).encode())
    assert (asked.request.message, asked.request.conversation_id) == ("And?", "c42")


def test_key_is_that_of_the_message_and_its_text():
    body = sent(message("user", "Hi"))
    assert parse_submit(body).key == parse_submit(sent(message("user", "Hi"), other=1)).key
    assert parse_submit(body).key != parse_submit(sent(message("user", "Hi", id_="other"))).key
    assert parse_submit(body).key != parse_submit(sent(message("user", "Edited"), messageId="k3Jh")).key
    assert parse_submit(sent(message("user", "Hi"), trigger="regenerate-message")).key == ""


def test_halves_of_surrogate_pairs_are_replaced():
    asked = parse_submit(
        rb'{"id":"c","\ud83d":1,"messages":[{"role":"user","parts":[{"type":"text","text":"\ud83dx"}]}]}'
    )
    assert asked.request.message == "\ufffdx"


def test_options_that_are_not_allowed_are_ignored():
    body = sent(message("user", "Hi"), model="gpt-4o", agent="support", webSearch=False)
    assert parse_submit(body, ("agent",)).request.agent == "support"
    assert parse_submit(body, ("agent",)).request.model is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "$"),
        (b"[]", "$"),
        (b'{"id":"c"}', "messages"),
        (sent(), "messages"),
        (sent(message("assistant", "Hi")), "messages"),
        (sent(message("user", " ")), "messages"),
        (sent(message("user", "Hi"), id=""), "id"),
        (sent(message("user", "Hi"), id="x" * 257), "id"),
        (sent(message("user", "Hi"), trigger="other"), "trigger"),
        (sent({"role": 1}), "messages.0.role"),
        (json.dumps({"id": "a b", "message": message("user", "Hi")}).encode(), "id"),
        (json.dumps({"id": "c", "message": message("assistant", "Hi")}).encode(), "message"),
    ],
)
def test_other_bodies_are_refused(body, field):
    with pytest.raises(InvalidRequest) as refused:
        parse_submit(body)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("body", "active"),
    [(b"", None), (b"{}", None), (b'{"activeStreamId":"m7f3","assistantMessage":{}}', "m7f3")],
)
def test_stop_may_name_the_running_message(body, active):
    assert parse_stop(body) == active
