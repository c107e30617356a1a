"""Log lines, from a process of their own: logging is global."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from legato.deploy.logs import of_child

CODE = """
import logging, sys
from legato.deploy import logs
logs.configure(sys.argv[1])
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
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in got)
    assert [line[9:] for line in got] == lines


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
    assert [line[9:] for line in lines if not hide.search(line)] == shown


@pytest.mark.parametrize("level", ["debug", "info", "loud"])
def test_nothing_is_changed_where_info_is_shown_or_the_level_is_none(level: str) -> None:
    assert of_child(level) == ({}, None)
