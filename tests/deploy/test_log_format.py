"""The forms of a log line: no text can end it, and JSON is an object whatever it has."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.deploy.console import MAX_LINE
from legato.deploy.log_format import Format, JsonFormat
from legato.deploy.logs import of_child

ANY = st.text(st.characters(), max_size=50)


def record(text: str, of_level: int = logging.INFO, /, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("legato.refused", of_level, "", 0, "%s", (text,), None)
    made.created = 1_800_000_000.0625
    if fields:
        made.fields = fields
    return made


def console(made: logging.LogRecord) -> str:
    return Format(colour=False, short=False).format(made).partition(" ")[2]


def parsed(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormat().format(made)
    assert "\n" not in line
    assert len(line.encode()) <= MAX_LINE
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_fields_follow_the_message():
    made = record("refused", reason="unknown_key", code=4001, channel="", app=None, detail='a "b" =c')
    assert console(made) == (
        r'info    legato.refused  refused  reason=unknown_key code=4001 detail="a \"b\" =c"'
    )


def test_fields_are_keys_of_the_object():
    made = record("refused", logging.WARNING, reason="unknown_key", code=4001, channel="", seconds=0.5)
    found = parsed(made)
    assert list(found) == ["time", "level", "logger", "message", "reason", "code", "seconds"]
    assert found["time"].startswith("2027-01-15T") or found["time"].startswith("2027-01-14T")
    assert found["time"][-6] in "+-"
    assert (found["level"], found["logger"], found["message"]) == ("warning", "legato.refused", "refused")
    assert (found["code"], found["seconds"]) == (4001, 0.5)


@given(ANY, ANY, ANY)
def test_nothing_that_a_client_sends_ends_a_line_or_takes_a_name(text, one, other):
    made = record(text, channel=one, level=other, time=other, message=other)
    assert "\n" not in console(made)
    assert console(made).isprintable()
    found = parsed(made)
    assert (found["level"], found["logger"]) == ("info", "legato.refused")
    assert found["message"].isprintable()


def fail(text: str) -> None:
    raise ValueError(text)


def failed(text: str) -> logging.LogRecord:
    made = record("failed", logging.ERROR)
    try:
        fail(text)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_traceback_is_a_field_and_a_long_one_keeps_its_end():
    found = parsed(failed("why"))["exception"]
    assert found.startswith("Traceback")
    assert found.endswith("ValueError: why")
    long = parsed(failed("ü" * 20_000 + "end"))
    assert long["exception"].endswith("end")
    assert long["message"] == "failed"
    assert parsed(record("ü" * 20_000))["message"].startswith("üü")


@pytest.mark.parametrize(
    ("level", "hidden"), [("warning", {"debug", "info"}), ("error", {"debug", "info", "warning"})]
)
def test_a_parent_hides_lines_of_both_forms_by_their_level(level, hidden):
    hide = of_child(level)[1]
    assert hide is not None
    for name in ("debug", "info", "warning", "error"):
        made = record('"level":"info" info ', logging.getLevelNamesMapping()[name.upper()])
        for one in (JsonFormat(), Format(colour=False, short=True)):
            assert (hide.search(one.format(made)) is not None) == (name in hidden)
