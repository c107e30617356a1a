"""The type of a case and its outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .context import Context

Verdict = Literal["pass", "fail", "not applicable"]


class Failure(Exception):  # noqa: N818 - a verdict, not an error
    """The server does not do what the specification says. The text says what was seen."""


class NotApplicable(Exception):  # noqa: N818 - as above
    """The server does not have the (optional) feature, or was not set up for the case."""


@dataclass(frozen=True)
class Case:
    """One statement of the specification.

    ``run`` returns what was seen (or None), and raises :class:`Failure` or :class:`NotApplicable`.
    ``needs`` names what has to be there, in the words of :data:`.features.PROBES` and :mod:`.target`.
    """

    section: str
    name: str
    run: Callable[[Context], Awaitable[str | None]]
    needs: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        """Section and name: unique."""
        return f"{self.section} {self.name}"


@dataclass(frozen=True)
class Result:
    """How a case ended. ``reason`` is one line; ``seconds`` is how long it took."""

    section: str
    name: str
    verdict: Verdict
    reason: str
    seconds: float = field(compare=False)

    @property
    def id(self) -> str:
        """As :attr:`Case.id`."""
        return f"{self.section} {self.name}"


CASES: Final[list[Case]] = []
"""Every case, in the order of the specification. Filled by :mod:`.cases`."""


def case(
    section: str, name: str, *needs: str
) -> Callable[[Callable[[Context], Awaitable[str | None]]], Callable[[Context], Awaitable[str | None]]]:
    """Enter a coroutine function into the table."""

    def enter(run: Callable[[Context], Awaitable[str | None]]) -> Callable[[Context], Awaitable[str | None]]:
        CASES.append(Case(section, name, run, frozenset(needs)))
        return run

    return enter


def check(condition: object, reason: str) -> None:
    """:raises Failure: the condition does not hold."""
    if not condition:
        raise Failure(reason)


def equal(seen: Any, expected: Any, what: str) -> None:
    """Equal in value and, since JSON has more than one number type, in kind.

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
    """A value on one line, cut."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
    return text.encode("unicode_escape").decode().replace("\\u2026", "…") if not text.isprintable() else text
