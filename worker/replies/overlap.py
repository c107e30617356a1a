"""Removes the overlap where a reply is continued: new text that only repeats the end of the old text.

A model cannot be made to continue at an exact character. It is asked to begin with the last words of the text
so far (:func:`anchor`), so that spaces and partial words join correctly, and the repetition is dropped
(:class:`OverlapFilter`). It may repeat less than asked, more, or nothing. The rules, in this order:

1. The new text begins with the anchor: that is dropped.
2. Else the longest end of the old text that the new text begins with is dropped, if it begins a word and has
   at least :data:`OVERLAP_MIN_CHARACTERS` letters and digits. One or two characters match by chance one time
   in ten.
3. Not if the old text repeats itself there (``very, very``, rows of a table): it may be intended.

In doubt nothing is dropped: a repeated word is better than a missing one. Spaces at the joint count once.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Final

from legato.worker.limits import OVERLAP_ANCHOR_CHARACTERS, OVERLAP_MIN_CHARACTERS, OVERLAP_WINDOW_CHARACTERS

_ENDS: Final = re.compile(r"^[\W_]+|[\W_]+$")


CONTINUATION: Final = """\
Your reply above was cut off by a technical fault. Go on from exactly where it ends, so that both parts read \
as one text: begin by repeating its last words, which are given below, and then write what follows them. \
Repeat nothing else, do not mention the interruption, and add no introduction.

<last_words>{words}</last_words>"""


def continuation(text: str) -> str:
    """The user's turn that asks for the rest of ``text``; empty if the text is blank."""
    words = anchor(text)
    return words and CONTINUATION.format(words=words)


def anchor(text: str) -> str:
    """The last words of ``text``, stripped; empty if the text is blank."""
    text = text.rstrip()
    words = text[-OVERLAP_ANCHOR_CHARACTERS:]
    if len(text) > OVERLAP_ANCHOR_CHARACTERS and not text[-OVERLAP_ANCHOR_CHARACTERS - 1].isspace():
        begun = re.search(r"\s", words)
        words = words[begun.end() :] if begun else words
    return words.lstrip()


class OverlapFilter:
    """Passes on the new text piece by piece, without the overlap.

    Text is held back only while all of it may be a repetition.

    :param before: the text so far.
    """

    def __init__(self, before: str) -> None:
        self._before = before[-OVERLAP_WINDOW_CHARACTERS:]
        self._held = ""
        self._passed = not anchor(self._before)

    def feed(self, piece: str) -> str:
        """The text that can be passed on by now; often empty at first, later ``piece``."""
        if self._passed:
            return piece
        self._held += piece
        return "" if _may_repeat(self._before, self._held) else self.rest()

    def rest(self) -> str:
        """The text that was held back, without the overlap. Later text is passed on unchanged."""
        held, self._held = self._held, ""
        if self._passed:
            return held
        self._passed = True
        return held[repeated(self._before, held) :]


def _may_repeat(before: str, new: str) -> bool:
    """Whether more of ``new`` could make the overlap longer."""
    if len(new) > 2 * OVERLAP_WINDOW_CHARACTERS:  # blank at either end
        return False
    return new.lstrip() in before or before.rstrip().endswith(new.strip())


def repeated(before: str, new: str) -> int:
    """Length of the overlap at the start of ``new``, by the rules of this module."""
    old, start = before.rstrip(), len(new) - len(new.lstrip())
    blanks = before[len(old) :]
    text, asked = new[start:], anchor(before)
    length = len(asked) if _repeats(text, asked, blanks) else _longest(old, text, blanks)
    if not length:
        return 0
    known = takewhile(lambda pair: pair[0] == pair[1], zip(text[length:], blanks, strict=False))
    return start + length + len(list(known))


def _longest(old: str, text: str, blanks: str) -> int:
    for length in range(min(len(old), len(text)), 0, -1):
        overlap = text[:length]
        if old.endswith(overlap) and _counts(old, overlap) and _repeats(text, overlap, blanks):
            return 0 if _recurs(old, overlap) else length
    return 0


def _repeats(text: str, overlap: str, blanks: str) -> bool:
    """Whether ``text`` begins with ``overlap``; if spaces followed it, not with a longer word."""
    if not overlap or not text.startswith(overlap):
        return False
    return not blanks or not _same_word(overlap[-1], text[len(overlap) : len(overlap) + 1])


def _counts(old: str, overlap: str) -> bool:
    """Whether it begins a word and is too long to be a coincidence."""
    begins = not _same_word(old[-len(overlap) - 1 : -len(overlap)], overlap[0])
    return begins and sum(map(str.isalnum, overlap)) >= OVERLAP_MIN_CHARACTERS


def _recurs(old: str, overlap: str) -> bool:
    """Whether the old text repeats it immediately, or it ends as it begins."""
    core = _ENDS.sub("", overlap)
    if _ENDS.sub("", old[: -len(overlap)]).endswith(core):
        return True
    starts = (core[:length] for length in range(OVERLAP_MIN_CHARACTERS, len(core)))
    return any(core.endswith(start) and _counts(core, start) for start in starts)


def _same_word(left: str, right: str) -> bool:
    """Whether two characters are inside one word. Scripts without capitals may have no spaces."""
    return bool(left and right) and all(
        char.isdigit() or char.lower() != char.upper() for char in (left, right)
    )
