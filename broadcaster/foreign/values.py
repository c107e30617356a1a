"""Converts values of other products to Legato's. A ``ValueError`` says what is expected."""

from __future__ import annotations

from typing import Final

_OFF: Final = ("", "0", "false", "no", "off")
_NULL: Final = {"null": "", "(null)": "", "(empty)": "", "(true)": "true", "(false)": "false"}


def plain(text: str) -> str:
    """Read a value as Laravel's ``env()`` does: ``null`` and similar values are empty."""
    text = text.strip()
    return _NULL.get(text.lower(), text)


def is_on(text: str) -> bool:
    """Whether a switch is on. Unknown values count as on: these switches forbid something."""
    return text.lower() not in _OFF


def flag(text: str) -> str:
    """Convert a switch."""
    return "true" if is_on(text) else "false"


def path(text: str) -> str:
    """Convert a path prefix, which may lack the leading slash or have a trailing one."""
    inner = text.strip("/")
    return f"/{inner}" if inner else ""


def limit(text: str) -> str:
    """Convert a limit; -1 means none. 0 is refused: it permits nothing there, and everything here."""
    if _integer(text) == 0:
        raise ValueError("expected a number from 1 on: 0 would mean no limit here")
    return "" if text.startswith("-") else text


def count(text: str) -> str:
    """Check a number from 1 on."""
    if _integer(text) < 1:
        raise ValueError(f"expected a number from 1 on, got {text!r}")
    return text


def is_limit(text: str) -> bool:
    """Whether a number is a limit; -1 means none."""
    return bool(text) and not text.startswith("-")


def kilobytes(text: str) -> str:
    """Convert a size in kilobytes to bytes."""
    return str(max(1, int(_positive(text) * 1024)))


def milliseconds(text: str) -> str:
    """Convert a time in milliseconds to seconds."""
    return str(_positive(text) / 1000)


def debug(text: str) -> str:
    """Convert a debug switch to a log level."""
    return "debug" if is_on(text) else ""


def accept_client_events_from(text: str) -> str:
    """Convert to a switch: ``members`` and ``all`` enable client events, always of members only."""
    return "true" if text in ("members", "all") else "false"


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, got {text!r}") from None


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1e9:
        raise ValueError(f"expected a number, got {text!r}")
    return number
