"""The output of many processes as JSON lines: each object gets the name of its process."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from .console import OWN_NAME, Console
from .log_format import encoded

OWN_LOGGER: Final = "legato.processes"
"""The logger of lines that no logger has written: those of the parent, and what programs print."""

_BEGIN: Final = '{"time":"'
_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class JsonConsole(Console):
    """Writes one JSON object a line, with the process as ``process``."""

    def line(self, name: str, text: str) -> None:
        """Write a line of the process ``name``: as it is if it is an object, else as a message."""
        super().print(_with_process(name, text) or _message(name, text))

    def print(self, text: str) -> None:
        """Write a text of the parent. Blank ones are for terminals."""
        if text.strip():
            super().print(_message(OWN_NAME, text))

    def left_out(self, count: int) -> str:
        """See the base class."""
        return _message(OWN_NAME, super().left_out(count))


def _with_process(name: str, text: str) -> str:
    """The object in a line of a logger, with its process; empty for any other line."""
    if not text.startswith(_BEGIN):
        return ""
    try:
        line = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    return encoded(line | {"process": name})


def _message(name: str, text: str) -> str:
    now = datetime.fromtimestamp(time.time(), UTC).astimezone().isoformat(timespec="milliseconds")
    facts = {"time": now, "level": "info", "logger": OWN_LOGGER, "message": text.strip(), "process": name}
    return encoded(facts)
