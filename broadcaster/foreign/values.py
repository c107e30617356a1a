"""Values of other products as text of ours. A ``ValueError`` says what is expected."""

from __future__ import annotations

from typing import Final

_OFF: Final = ("", "0", "false", "no", "off")
_NULL: Final = {"null": "", "(null)": "", "(empty)": "", "(true)": "true", "(false)": "false"}


def plain(text: str) -> str:
    """As Laravel's ``env()`` reads it: ``null`` and its like are nothing."""
    text = text.strip()
    return _NULL.get(text.lower(), text)


def is_on(text: str) -> bool:
    """Whether a switch is on. What is not known is on: a switch closes something."""
    return text.lower() not in _OFF


def flag(text: str) -> str:
    """A switch."""
    return "true" if is_on(text) else "false"


def path(text: str) -> str:
    """A prefix of paths, which may lack the slash in front or have one behind."""
    inner = text.strip("/")
    return f"/{inner}" if inner else ""


def limit(text: str) -> str:
    """A bound; -1 is none. 0 lets nothing through there, and everything here."""
    if _whole(text) == 0:
        raise ValueError("expected a number from 1 on: 0 would mean no limit here")
    return "" if text.startswith("-") else text


def count(text: str) -> str:
    """A number from 1 on."""
    if _whole(text) < 1:
        raise ValueError(f"expected a number from 1 on, got {text!r}")
    return text


def is_limit(text: str) -> bool:
    """Whether a number bounds something: -1 does not."""
    return bool(text) and not text.startswith("-")


def kilobytes(text: str) -> str:
    """A size."""
    return str(max(1, int(_positive(text) * 1024)))


def milliseconds(text: str) -> str:
    """A time."""
    return str(_positive(text) / 1000)


def debug(text: str) -> str:
    """A level for the log."""
    return "debug" if is_on(text) else ""


def accept_client_events_from(text: str) -> str:
    """``members`` and ``all`` accept events of clients; ``all`` is narrowed to members. Nothing else does."""
    return "true" if text in ("members", "all") else "false"


def _whole(text: str) -> int:
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
