"""The output of many processes as JSON: each line is an object with its process, whatever they print."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import pytest

from legato.deploy.json_console import JsonConsole
from legato.deploy.log_format import JsonFormat
from legato.deploy.logs import terminal
from legato.protocol.settings import Log


def shown(*lines: str) -> list[dict[str, Any]]:
    """What is written of these lines of a process, and of a blank and another line of the parent."""
    read, write = os.pipe()
    console = terminal(write, ["worker"], Log(format="json"))
    assert isinstance(console, JsonConsole)
    for line in lines:
        console.line("worker", line)
    console.print("")
    console.print("ready\nand well")
    console.close()
    os.close(write)
    with os.fdopen(read) as file:
        return [json.loads(line) for line in file]


def test_a_line_of_a_logger_gets_its_process():
    record = logging.LogRecord("legato.worker", logging.ERROR, "", 0, "said", (), None)
    record.fields = {"reply": "m", "tokens": 5}
    one, own = shown(JsonFormat().format(record))
    assert (one["level"], one["logger"], one["message"], one["reply"], one["tokens"], one["process"]) == (
        *("error", "legato.worker", "said", "m", 5),
        "worker",
    )
    assert (own["process"], own["message"], own["logger"]) == (
        "legato",
        "ready\nand well",
        "legato.processes",
    )


@pytest.mark.parametrize(
    "line",
    ["Traceback", '{"a": 1}', '{"time":"', '{"time":"x"} [cut]', "{" * 5000, "\ufffd", '{"time":"\\ud800"}'],
)
def test_any_other_line_is_a_message(line):
    one, _ = shown(line)
    assert (one["message"], one["process"], one["level"]) == (line, "worker", "info")
    assert list(one) == ["time", "level", "logger", "message", "process"]


def test_the_lines_that_did_not_fit_are_counted_in_an_object():
    read, write = os.pipe()
    console = JsonConsole(write, [], colour=False)
    console.close()
    os.close(write)
    os.close(read)
    assert json.loads(console.left_out(3))["message"] == "(3 lines left out: the terminal is too slow)"
