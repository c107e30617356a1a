"""The text of a reply for Laravel's hooks: the sample files, and any text as the hook puts it together."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from legato.protocol import parts
from legato.protocol.doors import laravel_stream
from legato.protocol.doors.laravel_stream import PlainText, Updates

from . import lives
from .lives import COMPLETE, FAILED, LIVES, Life

LINES = Life(("Hello", ", ", "Ann.\n"), COMPLETE)


@pytest.mark.parametrize(
    ("name", "replace", "life"),
    [("delta", False, LINES), ("replace", True, LINES), ("failed", False, LIVES["failed"])],
)
def test_sample_is_told_byte_by_byte(name, replace, life):
    door, messages = Updates(replace=replace), []
    for piece in life.pieces:
        messages += door.feed([piece])
    messages += door.end(life.decision)
    assert laravel_stream.UPDATES.join(messages).decode() == lives.golden(f"updates-{name}.sse")


def heard(messages: list[bytes], *, replace: bool = False) -> tuple[str, bool]:
    """What ``useEventStream`` makes of it with ``glue: ''``, and whether it saw the end."""
    text = ""
    for message in messages:
        assert message.startswith(b"event: update\n")
        lines = re.split(r"\r\n|\r|\n", message.decode())[1:-2]
        data = "\n".join(line.removeprefix("data: ") for line in lines)
        if data == "</stream>":
            assert message is messages[-1]
            return text, True
        data = data.removeprefix("data: ")
        text = data if replace else text + data
    return text, False


@given(lives.ANY, lives.CUTS)
def test_hook_gets_the_text(life, cuts):
    text = re.sub(r"\r\n|\r|\n", "\n", life.text)
    deltas = lives.told(Updates(), life, cuts)
    assert deltas == lives.told(Updates(), life)
    assert heard(deltas) == (text, life.decision.state != "failed")
    whole, ended = heard(lives.told(Updates(replace=True), life, cuts), replace=True)
    assert ended == (life.decision.state != "failed")
    assert whole == ("" if text == "</stream>" else text)


@given(lives.ANY, lives.CUTS)
def test_plain_text_is_whole_characters(life, cuts):
    door = PlainText()
    assert "".join(chunk.decode() for chunk in lives.told(door, life, cuts)) == life.text
    assert door.done


def test_break_of_a_line_that_is_cut_in_two_is_one():
    assert heard(lives.told(Updates(), Life(("a\r", parts.ReasoningReceived("x"), "\n", "\nb"), FAILED))) == (
        "a\n\nb",
        False,
    )


def test_text_that_is_the_end_marker_ends_nothing():
    marker = Life(("</stream>",), FAILED)
    assert heard(lives.told(Updates(), marker)) == ("</stream>", False)
    assert lives.told(Updates(replace=True), marker) == []
    longer = Life(("</stream>", "!"), FAILED)
    assert heard(lives.told(Updates(replace=True), longer), replace=True) == ("</stream>!", False)
