"""The samples in docs/chat.md are what the programs send."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from legato.protocol import parts, stream, transcript
from legato.protocol.approvals import MAX_APPROVAL_BYTES, MAX_NOTE, decode_approval

CHAT = (Path(__file__).parents[1] / "docs/chat.md").read_text()
CHANNEL = "private-ai-chat.7"
BY_EVENT = {part.event: part for part in parts.KINDS.values()}


def samples() -> list[tuple[str, str]]:
    """Event and data of each line of the sample reply."""
    (block,) = re.findall(r"```\n(reasoning\.received .*?)\n```", CHAT, re.DOTALL)
    return [tuple(line.split(maxsplit=1)) for line in block.splitlines()]


def frame(event: str, data: dict[str, Any]) -> bytes:
    """The frame of a sample, made by the program from the sample's fields."""
    if event == stream.TokenReceived.event:
        return msgspec.convert(data, stream.TokenReceived).frame(CHANNEL)
    part = msgspec.convert(data, BY_EVENT[event])
    return parts.frame(
        part.kind, parts.encode(part), CHANNEL, data["messageId"], data["offset"], data["tokenIndex"]
    )


def table() -> dict[str, list[str]]:
    """Event -> its fields, of the table of other parts."""
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| (.*?) \| .*? \|$", CHAT.partition("## Other parts")[2], re.MULTILINE
    )
    return {event: re.findall(r"`(\w+)`(\?)?", fields) for event, fields in rows if event in BY_EVENT}


def test_each_sample_is_made_by_the_program_byte_for_byte():
    for event, data in samples():
        made = json.loads(frame(event, json.loads(data)))
        assert (made["event"], made["data"]) == (event, data)


def test_the_samples_are_one_reply_with_every_event():
    tokens = 0
    for offset, (event, data) in enumerate(samples()):
        told = json.loads(data)
        assert told.get("offset", offset) == offset
        assert told["tokenIndex"] == tokens
        tokens += event == stream.TokenReceived.event
    assert {event for event, _ in samples()} == {*BY_EVENT, stream.TokenReceived.event}


def test_the_sample_of_a_snapshot_is_made_of_the_first_of_them():
    (block,) = re.findall(r'```json\n(\{"messageId".*?)\n```', CHAT, re.DOTALL)
    told = json.loads(block)
    frames = [frame(event, json.loads(data)) for event, data in samples()][: told["offset"]]
    pieces = [transcript.of_frame(one, offset) for offset, one in enumerate(frames)]
    made = transcript.snapshot(told["messageId"], pieces, told["status"])
    assert json.loads(json.loads(made.frame(CHANNEL))["data"]) == told


def test_the_table_has_every_event_with_its_fields():
    fields = {
        event: [(field.encode_name, "" if field.required else "?") for field in msgspec.structs.fields(part)]
        for event, part in BY_EVENT.items()
    }
    assert table() == fields


def test_the_numbers_are_those_of_the_program():
    for number in (transcript.PARTS_BYTES, MAX_NOTE):
        assert f"{number:,}" in CHAT
    assert f"larger than {MAX_APPROVAL_BYTES // 1024} KiB" in CHAT


def test_the_sample_of_a_decision_is_one():
    (body,) = re.findall(r'^(\{"approve": .*\})$', CHAT, re.MULTILINE)
    assert decode_approval(body.encode()).note == "too late"
