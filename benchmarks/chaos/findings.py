"""The kinds of violations, and the check of a sequence of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS: Final = {
    "lost": "a token is missing where the whole reply should be",
    "repeated": "a token is there twice",
    "reordered": "a token came after one that follows it, or after the end",
    "forged": "something that nobody said, or that is another user's",
    "gap": "a reader missed a frame although its node was connected",
    "wrong ending": "a reply did not end as its script or its user says, or places disagree on how",
    "missing ending": "a reply did not end, or a reader was not told",
    "doubled ending": "a reader was told twice",
    "left over": "a job that nobody will ever settle",
    "ghost": "somebody is listed or counted who is not there",
    "absent": "somebody who is there is not listed or counted, or does not get in",
    "doubled webhook": "the same was told twice, and nothing had happened in between",
    "missing webhook": "something that happened was not told",
}

PLACES: Final = ("log", "tools", "database", "live", "whole", "queue", "list", "api", "webhooks")
"""Where: the token log in Redis; what tools did; the turns in the database; the raw frames of one
subscription; the text that a reader has in the end by frames, snapshots and reading up; the job stream and
its dead letters; the members that a client library has; the answers of the HTTP API; what webhooks told."""


@dataclass(frozen=True)
class Finding:
    """One violation. ``who`` is a message, with the reader if there is one."""

    kind: str
    place: str
    who: str
    detail: str


class Flaw(NamedTuple):
    """A violation in a sequence, at the number ``at``."""

    kind: str
    at: int


def flaws(seen: Iterable[int], first: int) -> Iterator[Flaw]:
    """The violations in ``seen``, which should count up from ``first``: repeated, reordered, lost.

    Late numbers are reordered, not lost. Numbers missing after the last one are unknown.
    """
    known: set[int] = set()
    highest = first - 1
    for number in seen:
        if number in known:
            yield Flaw("repeated", number)
        elif number < highest:
            yield Flaw("reordered", number)
        known.add(number)
        highest = max(highest, number)
    for number in range(first, highest):
        if number not in known:
            yield Flaw("lost", number)
