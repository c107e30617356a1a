"""Chat completions: the sample files, whole answers, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from legato.protocol.doors import openai_chat
from legato.protocol.doors.openai_chat import Chunks, parse_completion
from legato.protocol.jobs import InvalidRequest, Turn

from . import lives
from .lives import COMPLETE, LIVES, OPENING, Life


@pytest.mark.parametrize(
    ("name", "life"), [("text", Life(("Hello", ", Ann."), COMPLETE)), ("failed", LIVES["failed"])]
)
def test_sample_is_told_byte_by_byte(name, life):
    door = Chunks("agent", include_usage=True)
    assert lives.body(openai_chat.FRAMING, door, life) == lives.golden(f"openai-chat-{name}.sse")


def deltas(messages: list[bytes], field: str) -> str:
    chunks = [json.loads(message) for message in messages if message != openai_chat.DONE]
    return "".join(choice["delta"].get(field, "") for chunk in chunks for choice in chunk.get("choices", ()))


@given(lives.ANY, lives.CUTS)
def test_any_reply_has_its_text_and_one_end(life, cuts):
    messages = lives.told(Chunks("agent"), life, cuts)
    assert messages == lives.told(Chunks("agent"), life)
    assert deltas(messages, "content") == life.text
    failed = life.decision.state == "failed"
    assert messages.count(openai_chat.DONE) == (not failed)
    assert sum(b'"finish_reason":"' in message for message in messages) == (not failed)
    assert (b'"error"' in messages[-1]) == failed
    if not failed:
        answer = json.loads(openai_chat.whole("agent", OPENING, life.pieces, life.decision))
        assert answer["choices"][0]["message"]["content"] == life.text


def test_whole_answer_has_reasoning_and_usage():
    answer = openai_chat.whole("agent", OPENING, LIVES["reasoning"].pieces, COMPLETE)
    message = {"role": "assistant", "content": "Hello, Ann.", "reasoning_content": "A greeting is enough."}
    assert json.loads(answer) == {
        "id": "chatcmpl-m7f3",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "claude-sonnet-4-6",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19},
    }
    assert (
        deltas(lives.told(Chunks("agent"), LIVES["reasoning"]), "reasoning_content")
        == "A greeting is enough."
    )


def test_what_is_not_known_is_left_out():
    unknown = OPENING._replace(begun=lives.Begun())
    answer = json.loads(openai_chat.whole("agent", unknown, ["Hi"], lives.Decision("max_tokens")))
    assert (answer["model"], answer["choices"][0]["finish_reason"], "usage" in answer) == (
        "agent",
        "length",
        False,
    )
    door = Chunks("agent", include_usage=True)
    door.begin(unknown)
    assert [b"usage" in message for message in door.end(lives.Decision())] == [False, False]
    error = json.loads(openai_chat.failure(lives.Decision(state="failed")))["error"]
    assert (error["code"], error["type"]) == ("internal", "server_error")


def test_models_are_listed():
    model = {"id": "support", "object": "model", "created": 0, "owned_by": "legato"}
    assert json.loads(openai_chat.models(["support"])) == {"object": "list", "data": [model]}


USER = {"role": "user", "content": "Hi"}


def sent(*messages: Any, **more: Any) -> bytes:
    return json.dumps({"model": "support", "messages": messages, **more}).encode()


def test_request_with_all_that_a_client_sends():
    last = {
        "role": "user",
        "content": [{"type": "text", "text": "And?"}, {"type": "image_url", "image_url": {}}],
    }
    said = ({"role": "system", "content": "Be kind."}, {"role": "developer", "content": "Be brief."}, USER)
    answer = {"role": "assistant", "content": None, "tool_calls": []}
    body = sent(
        *said, answer, last, stream=True, stream_options={"include_usage": True}, max_tokens=9, user="x"
    )
    asked = parse_completion(body, ("system", "max_tokens"))
    assert (asked.model, asked.stream, asked.include_usage) == ("support", True, True)
    assert (asked.request.message, asked.request.history) == ("And?", (Turn("user", "Hi"),))
    assert (asked.request.system, asked.request.max_tokens) == ("Be kind.\n\nBe brief.", 9)
    asked = parse_completion(body)
    assert (asked.request.system, asked.request.max_tokens) == (None, None)


def test_request_without_anything_more():
    asked = parse_completion(sent(USER, stream=None, max_completion_tokens=7), ("max_tokens",))
    assert (asked.stream, asked.include_usage, asked.request.max_tokens) == (False, False, 7)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "model"),
        (sent(), "messages"),
        (sent({"role": "assistant", "content": "Hi"}), "messages"),
        (sent({"role": "user", "content": [{"type": "text", "text": 1}]}), "messages"),
        (sent({"role": "user", "content": 1}), "messages.0.content"),
    ],
)
def test_other_bodies_are_refused(body, field):
    with pytest.raises(InvalidRequest) as refused:
        parse_completion(body)
    assert refused.value.field == field
