"""Checks of a server's answers, and the exceptions of a case."""

from __future__ import annotations

from typing import Any, Final


class Failure(Exception):  # noqa: N818 - a verdict, not an error
    """The server violates the specification. The text says what was seen."""


class NotApplicable(Exception):  # noqa: N818 - as above
    """The server lacks an optional feature, or is not configured for the case."""


def check(condition: object, reason: str) -> None:
    """Raise :class:`Failure` unless the condition holds."""
    if not condition:
        raise Failure(reason)


def equal(seen: Any, expected: Any, what: str) -> None:
    """Check that two values are equal, and of the same JSON type.

    :raises Failure: they are not.
    """
    if not same(seen, expected):
        raise Failure(f"{what}: expected {show(expected)}, got {show(seen)}")


def same(seen: Any, expected: Any) -> bool:
    """Deep equality that tells 1 from 1.0, True and "1"."""
    if type(seen) is not type(expected):
        return False
    if isinstance(seen, dict):
        return seen.keys() == expected.keys() and all(same(seen[key], expected[key]) for key in seen)
    if isinstance(seen, list):
        return len(seen) == len(expected) and all(map(same, seen, expected))
    return bool(seen == expected)


SHOWN: Final = 240


def show(value: Any) -> str:
    """A value as one line of bounded length."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
    return text.encode("unicode_escape").decode().replace("\\u2026", "…") if not text.isprintable() else text
