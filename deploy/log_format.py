"""The two forms of a log line: for people, and JSON for programs that collect logs.

A call may give facts beside its message: ``logger.info("text", extra={"fields": {"channel": name}})``. They
follow the message as ``name=value``, or are keys of the JSON object.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.text import printable, well_formed

from .console import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLOURS: Final = {"debug": 2, "warning": 33, "error": 31, "critical": 31}

_PLAIN: Final = re.compile(r'[^\s"=]+')
_encoder: Final = msgspec.json.Encoder(enc_hook=str)


class Format(logging.Formatter):
    """Formats a record as one line, with a coloured level if ``colour``. A traceback follows on more lines.

    :param short: the time of day instead of date, time and zone.
    """

    def __init__(self, *, colour: bool, short: bool) -> None:
        super().__init__("%(asctime)s %(level)s %(name)s  %(message)s", "%H:%M:%S")
        self._colour = colour
        self._short = short

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's
        """Format the record's time in this machine's zone."""
        return super().formatTime(record, datefmt) if self._short else full_time(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format with ``%(level)s`` as the level in lower case, padded."""
        name = record.levelname.lower()
        code = _COLOURS.get(name) if self._colour else None
        record.level = f"\x1b[{code}m{name:<7}\x1b[0m" if code else f"{name:<7}"
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """Append the fields. No text that a client has sent can end the line."""
        fields = " ".join([f"{name}={_value(one)}" for name, one in _fields(record).items()])
        record.message = f"{printable(record.message)}  {fields}" if fields else printable(record.message)
        return super().formatMessage(record)


class JsonFormat(logging.Formatter):
    """Formats a record as one JSON object of at most :data:`~.console.MAX_LINE` bytes.

    Its keys are ``time``, ``level``, ``logger`` and ``message``, then the fields, then ``exception`` with the
    traceback, of which a long one loses its beginning.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format the record. Never raises for what a field has."""
        line: dict[str, Any] = {
            "time": full_time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        for name, one in _fields(record).items():
            line.setdefault(name, one)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return encoded(line)


def full_time(record: logging.LogRecord) -> str:
    """Date, time and zone, as ISO 8601."""
    return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")


def encoded(line: dict[str, Any]) -> str:
    """A JSON object as one line, within the bound: the longest text is cut until it fits.

    A traceback keeps its end, where the error is.
    """
    line = {name: well_formed(one) if isinstance(one, str) else one for name, one in line.items()}
    text = _encoder.encode(line)
    while len(text) > MAX_LINE:
        name = max(line, key=lambda name: len(str(line[name])))
        long = str(line[name])
        half = len(long) // 2
        line[name] = f"… {long[-half:]}" if name == "exception" else f"{long[:half]} …"
        text = _encoder.encode(line)
    return text.decode()


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return {name: one for name, one in fields.items() if one is not None and one != ""}


def _value(one: object) -> str:
    text = printable(str(one))
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
