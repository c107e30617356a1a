"""The type of a case and its outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .context import CaseContext

    Run = Callable[[CaseContext], Awaitable[str | None]]

Verdict = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Case:
    """One statement of the specification.

    ``run`` returns what was seen (or None), and raises :class:`.checks.Failure` or
    :class:`.checks.NotApplicable`.
    ``needs`` names required features, in the words of :data:`.features.PROBES` and :mod:`.target`.
    """

    section: str
    name: str
    run: Run
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


def case(section: str, name: str, *needs: str) -> Callable[[Run], Run]:
    """Register a coroutine function as a case."""

    def enter(run: Run) -> Run:
        CASES.append(Case(section, name, run, frozenset(needs)))
        return run

    return enter
