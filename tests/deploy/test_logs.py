"""Log lines, from a process of their own: logging is global."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time

import pytest

from legato.deploy.log_format import Format
from legato.deploy.logs import of_child, time_of_child

CODE = """
import logging, sys
from legato.deploy import logs
from legato.protocol.settings import Log
logs.configure(Log(sys.argv[1], *sys.argv[2:]))
logging.getLogger("legato.worker").debug("own debug")
logging.getLogger("legato.worker").info("own %s", "info")
logging.getLogger("anthropic").info("POST with secrets")
logging.getLogger("other").debug("secrets")
logging.getLogger("other").warning("theirs")
"""


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        (
            "debug",
            ["debug   legato.worker  own debug", "info    legato.worker  own info", "warning other  theirs"],
        ),
        ("info", ["info    legato.worker  own info", "warning other  theirs"]),
        ("error", []),
    ],
)
def test_one_readable_line_per_event(level: str, lines: list[str]) -> None:
    """And at debug only Legato's own: other libraries print requests with their keys there."""
    done = subprocess.run([sys.executable, "-c", CODE, level], capture_output=True, text=True, check=True)
    got = done.stderr.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ", line) for line in got)
    assert [line.partition(" ")[2] for line in got] == lines


def test_json_is_written_if_it_is_set() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "info", "json"], capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["level"], one["logger"], one["message"]) for one in found] == [
        ("info", "legato.worker", "own info"),
        ("warning", "other", "theirs"),
    ]


@pytest.mark.parametrize(
    ("level", "shown"),
    [("warning", ["warning other  theirs"]), ("error", [])],
)
def test_a_supervised_child_says_all_and_shows_what_was_asked_for(level: str, shown: list[str]) -> None:
    settings, hide = of_child(level)
    assert hide is not None
    done = subprocess.run(
        [sys.executable, "-c", CODE, settings["LEGATO_LOG_LEVEL"]], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert any("own info" in line for line in lines)
    assert [line.partition(" ")[2] for line in lines if not hide.search(line)] == shown
    assert hide.search("23:59:59 info    legato.worker  own info")


@pytest.mark.parametrize("level", ["debug", "info", "loud"])
def test_nothing_is_changed_where_info_is_shown_or_the_level_is_none(level: str) -> None:
    assert of_child(level) == ({}, None)


def test_a_line_has_the_time_of_day_or_date_and_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    record = logging.LogRecord("legato", logging.INFO, "", 0, "said", (), None)
    record.created = 1_800_000_000.0625
    try:
        lines = [Format(colour=False, short=short).format(record) for short in (True, False)]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert lines == ["13:30:00 info    legato  said", "2027-01-15T13:30:00.062+05:30 info    legato  said"]


def test_children_write_the_time_as_their_parent_would() -> None:
    """Their own lines go to a pipe."""
    terminal, end = os.openpty()
    pipe = os.pipe()
    try:
        found = [time_of_child(time, fd) for time in ("auto", "short", "full") for fd in (end, pipe[1])]
    finally:
        for fd in (terminal, end, *pipe):
            os.close(fd)
    assert [one["LEGATO_LOG_TIME"] for one in found] == ["short", "full", "short", "short", "full", "full"]
