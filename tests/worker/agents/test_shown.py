"""What readers see of a call can be written as an event, whatever the model or the tool has said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from legato.protocol import parts
from legato.worker.agents import Agent, shown
from legato.worker.limits import MAX_SHOWN_BYTES
from legato.worker.providers import base


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("name", ["input", "output"])
def test_what_is_nested_as_deeply_as_can_be_is_written_or_left_out(name: str) -> None:
    left_out = set()
    for levels in range(1, too_many()):
        value = nested(levels)
        if name == "input":
            part: Any = shown.called("c1", "look", value, shown.EVERYTHING)
        else:
            part = shown.finished(parts.ToolFinished("c1", "look", True, value), shown.EVERYTHING)
        written_from(4, part)
        left_out.add(getattr(part, name) is msgspec.UNSET)
    assert left_out == {False, True}


def written_from(calls: int, part: parts.Part) -> bytes:
    """Each call that is under way leaves the encoder one level less."""
    return written_from(calls - 1, part) if calls else parts.encode(part)


def too_many() -> int:
    """More levels than the encoder allows."""
    levels = 1
    while True:
        try:
            msgspec.json.encode(nested(levels))
        except RecursionError:
            return levels + 10
        levels += 10


@pytest.mark.parametrize(("length", "fits"), [(MAX_SHOWN_BYTES - 2, True), (MAX_SHOWN_BYTES - 1, False)])
def test_the_bound_counts_the_bytes_of_the_value_alone(length: int, fits: bool) -> None:
    assert shown.is_shown("x" * length, MAX_SHOWN_BYTES) is fits


def test_what_is_no_json_is_left_out() -> None:
    assert not shown.is_shown(object(), MAX_SHOWN_BYTES)
    assert not shown.is_shown(msgspec.UNSET, MAX_SHOWN_BYTES)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://example.com/a", "https://example.com/a"),
        ("HTTP://example.com/", "HTTP://example.com/"),
        ("javascript:alert(1)", ""),
        (" javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("//example.com/a", ""),
        ("httpx://example.com", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("who", [shown.EVERYTHING, shown.view_of(Agent())])
def test_readers_can_follow_an_address_of_the_web_only(url: str, told: str, who: shown.View) -> None:
    """Whether it comes from a handler, a provider or a tool."""
    part = shown.part_of(base.Citation(url, "title", "words", "source"), who, {})
    assert part == parts.CitationReceived(told, "title", "words", "source")
    assert shown.cited(parts.CitationReceived(url)).url == told
