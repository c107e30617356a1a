"""How many lines about refusals the log gets, and what they may have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.broadcaster.log_limits import REFUSAL_FIELD_CHARACTERS, REFUSAL_LINES, REFUSAL_SECONDS
from legato.broadcaster.observability.refusals import RefusalLog, key_hint, shown
from legato.protocol import refusals

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """Calls that are due later."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[Any], None], Any]] = []

    def __call__(self, seconds: float, work: Callable[[Any], None], refusal: Any) -> None:
        self.due.append((seconds, work, refusal))

    def pass_by(self) -> None:
        due, self.due = self.due, []
        for _, work, refusal in due:
            work(refusal)


@pytest.fixture
def timers(caplog: pytest.LogCaptureFixture) -> Timers:
    caplog.set_level(logging.INFO, "legato.refused")
    return Timers()


def test_so_many_lines_of_one_reason_and_then_how_many_more(timers, caplog):
    log = RefusalLog(timers)
    for number in range(100):
        log(refusals.UNKNOWN_KEY, code=4001, address=f"192.0.2.1:{number}")
    log(refusals.OVER_QUOTA, app="1")
    assert [record.levelname for record in caplog.records] == ["INFO"] * REFUSAL_LINES + ["WARNING"]
    assert caplog.records[0].fields == {"reason": "unknown_key", "code": 4001, "address": "192.0.2.1:0"}
    assert [seconds for seconds, *_ in timers.due] == [REFUSAL_SECONDS] * 2
    caplog.clear()
    timers.pass_by()
    (record,) = caplog.records
    more = 100 - REFUSAL_LINES
    assert record.getMessage() == f"suppressed {more} more: {refusals.UNKNOWN_KEY.text}"
    assert record.fields == {"reason": "unknown_key", "suppressed": more}
    log(refusals.UNKNOWN_KEY)
    assert caplog.messages[-1] == refusals.UNKNOWN_KEY.text, "the next period"
    timers.pass_by()
    assert len(caplog.records) == 2, "none was suppressed in it"


def test_a_level_that_is_off_costs_neither_a_line_nor_a_timer(timers, caplog):
    RefusalLog(timers)(refusals.NOT_FOUND)
    assert (caplog.records, timers.due) == ([], [])
    caplog.set_level(logging.DEBUG, "legato.refused")
    RefusalLog(timers)(refusals.NOT_FOUND)
    assert len(caplog.records) == len(timers.due) == 1


def test_fields_without_a_value_are_left_out(timers, caplog):
    RefusalLog(timers)(refusals.UNKNOWN_KEY, app="", channel=None, code=0)
    assert caplog.records[0].fields == {"reason": "unknown_key", "code": 0}


@given(st.text(st.characters(), max_size=300))
def test_any_text_is_bounded_and_cannot_forge_a_line(text):
    told = shown(text)
    assert told.isprintable()
    told.encode()
    assert len(told) <= 10 * (REFUSAL_FIELD_CHARACTERS + 1)
    if text.isprintable() and len(text) <= REFUSAL_FIELD_CHARACTERS:
        assert told == text


@pytest.mark.parametrize(
    ("text", "told"),
    [("a\r\nb", r"a\r\nb"), ("\x1b[2J\x9b", r"\x1b[2J\x9b"), ("\u202e \udc80", r"\u202e \udc80")],
)
def test_what_controls_a_terminal_is_escaped(text, told):
    assert shown(text) == told


def test_of_a_key_only_the_beginning_is_shown():
    """The secret may have been put in its place."""
    assert [key_hint(key) for key in ("", "a", "abcd", "0123456789abcdef")] == ["", "…", "ab…", "0123…"]
