"""The Responses API: the sample file, what a client puts together of any reply, and requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from legato.protocol.doors import openai_responses
from legato.protocol.doors.openai_responses import Responses, parse_response
from legato.protocol.jobs import InvalidRequest, Turn

from . import lives
from .lives import COMPLETE, LIVES, OPENING, Life


def test_sample_is_told_byte_by_byte():
    life = Life(("Hello", ", Ann."), COMPLETE)
    told = lives.body(openai_responses.FRAMING, Responses("agent"), life)
    assert told == lives.golden("openai-responses-text.sse")


def events(messages: list[bytes]) -> list[dict[str, Any]]:
    found = []
    for message in messages:
        name, data = message.decode().split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    return found


def accumulated(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output as the SDK puts it together, which wants each item and part added before it grows."""
    output: list[dict[str, Any]] = []
    for event in told:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert event["output_index"] == len(output)
                output.append(event["item"])
            case "content_part.added":
                output[event["output_index"]]["content"].append(event["part"])
            case "reasoning_summary_part.added":
                output[event["output_index"]]["summary"].append(event["part"])
            case "output_text.delta":
                output[event["output_index"]]["content"][event["content_index"]]["text"] += event["delta"]
            case "reasoning_summary_text.delta":
                output[event["output_index"]]["summary"][event["summary_index"]]["text"] += event["delta"]
            case "output_item.done":
                open_ = output[event["output_index"]]
                assert event["item"] == open_ | {"status": "completed"} if "status" in open_ else open_
                output[event["output_index"]] = event["item"]
    return output


STATES = {"failed": "failed", "complete": "completed", "cancelled": "completed"}


@given(lives.ANY, lives.CUTS)
def test_any_reply_is_put_together_and_has_one_end(life, cuts):
    messages = lives.told(Responses("agent"), life, cuts)
    assert messages == lives.told(Responses("agent"), life)
    told = events(messages)
    last = told[-1]["response"]
    assert accumulated(told) == last["output"]
    text = "".join(
        part["text"] for item in last["output"] if item["type"] == "message" for part in item["content"]
    )
    assert text == life.text
    stopped_early = life.decision.stop_reason == "max_tokens"
    assert last["status"] == ("incomplete" if stopped_early else STATES[life.decision.state])
    assert told[-1]["type"] == f"response.{last['status']}"
    assert (last["error"] is None) == (life.decision.state != "failed")
    if life.decision.state != "failed":
        whole = json.loads(openai_responses.whole("agent", OPENING, life.pieces, life.decision))
        assert whole == last


def test_reasoning_is_a_summary_and_each_item_has_an_id_of_its_own():
    again = Life((*LIVES["reasoning"].said, *lives.reasoning("More."), "!"), COMPLETE)
    output = events(lives.told(Responses("agent"), again))[-1]["response"]["output"]
    assert [item["id"] for item in output] == ["rs_m7f3", "msg_m7f3", "rs_m7f3_2", "msg_m7f3_2"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "A greeting is enough."}]


def test_what_is_not_known_is_left_out():
    unknown = OPENING._replace(begun=lives.Begun())
    answer = json.loads(openai_responses.whole("agent", unknown, ["Hi"], lives.Decision("max_tokens")))
    assert (answer["model"], answer["usage"]) == ("agent", None)
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    door = Responses("agent")
    door.begin(unknown)
    (failed,) = door.end(lives.Decision(state="failed"))
    assert b'"error":{"code":"internal"' in failed


def test_request_is_a_chat_request():
    body = {
        "model": "support",
        "instructions": "Be short.",
        "input": [
            {"role": "developer", "content": "No jokes."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
            {"type": "reasoning", "content": None},
            {"role": "user", "content": "And now?"},
        ],
        "stream": True,
        "max_output_tokens": 9,
    }
    found = parse_response(json.dumps(body).encode(), ("system", "max_tokens"))
    assert (found.model, found.stream) == ("support", True)
    request = found.request
    assert (request.message, request.system, request.max_tokens) == ("And now?", "Be short.\n\nNo jokes.", 9)
    assert request.history == (Turn("user", "Hi"), Turn("assistant", "Hello"))
    plain = parse_response(b'{"model":"m","input":"Hi","instructions":"x"}')
    assert (plain.request.message, plain.request.system, plain.stream) == ("Hi", None, False)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": " "}, "input"),
        ({"model": "m", "input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"input": "x"}, "model"),
    ],
)
def test_request_that_does_not_fit_is_refused(body, field):
    with pytest.raises(InvalidRequest) as refused:
        parse_response(json.dumps(body).encode())
    assert refused.value.field == field
