"""Log lines, from a process of their own: logging is global."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

CODE = """
import logging, sys
from deploy import logs
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
