"""Which known name a mistyped one was meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

ALIKE: Final = 0.7
"""How alike two names are (:meth:`difflib.SequenceMatcher.ratio`) for one to be taken for the other."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``word``, if any is like it. Case does not count."""
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, 1, ALIKE)
    return by_folded[found[0]] if found else None


def hint(word: str, known: Iterable[str]) -> str:
    """``did you mean NAME?`` with the nearest of the known names, or else all of them."""
    names = list(known)
    meant = nearest(word, names)
    return f"did you mean {meant}?" if meant else f"expected one of {', '.join(names)}"
