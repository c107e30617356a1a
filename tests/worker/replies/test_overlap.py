"""The seam: what the model says again is dropped, what it says on never is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from legato.worker.replies import overlap
from legato.worker.replies.overlap import OverlapFilter, anchor, repeated


def told(before: str, *pieces: str) -> str:
    """All that the reader gets of the new text."""
    join = OverlapFilter(before)
    return "".join(join.feed(piece) for piece in pieces) + join.rest()


@pytest.mark.parametrize(
    ("before", "new", "expected"),
    [
        # Rule 1: what was asked for.
        ("The quick brown", "The quick brown fox", " fox"),
        ("The quick brown", "The quick brownies", "ies"),
        ("The quick brown ", "The quick brown fox", "fox"),
        ("The quick brown ", "The quick brown\nfox", "\nfox"),
        ("The end.\n\n", "The end.\nNext", "Next"),
        ("The end.\n", "The end.\n\nNext", "\nNext"),
        ("The quick brown", "\n\nThe quick brown fox", " fox"),
        ("very, very", "very, very good", " good"),
        ("0 0 0 0", "0 0 0 0 1", " 1"),
        ("I", "It is", "t is"),
        ("我们继续讨", "我们继续讨论", "论"),
        (
            "Done. " * 40,
            (("Done. " * 40).strip()[-overlap.OVERLAP_ANCHOR_CHARACTERS :] + " Then").lstrip(),
            "Then",
        ),
        # Rule 2: another end of the text, longer or shorter.
        ("It goes on. The quick brown", "The quick brown fox", " fox"),
        ("It goes on. The contin", "continuation", "uation"),
        ("It goes on. The contin", "The continuation", "uation"),
        ("It goes on with words ", "words and more", "and more"),
        ("大家好。我们继续讨", "我们继续讨论", "论"),
        # Nothing is said again.
        ("The quick", " brown fox", " brown fox"),
        ("The quick", "brown fox", "brown fox"),
        ("con", "tinue", "tinue"),
        ("It ends with s", "so it is", "so it is"),
        ("It is in the", "then", "then"),
        ("a bana", "nana", "nana"),
        ("It is a banana", "nanatypes", "nanatypes"),
        ("It is the quick ", "quickly done", "quickly done"),
        ("    }\n", "    }\n}\n", "}\n"),
        ("  if (a) {\n    b();\n  }\n", "  }\n}\n", "  }\n}\n"),
        ("One\n", "\nTwo", "\nTwo"),
        ("One ", "", ""),
        # Rule 3: it may be meant.
        ("It is very, very", "very good", "very good"),
        ("He sang: row the boat, row the boat", "row the boat, row the boat.", "row the boat, row the boat."),
        ("| name | name |\n| abcd | abcd |\n", "| abcd | abcd |\n", "| abcd | abcd |\n"),
        # Nothing to repeat.
        ("", "Hello", "Hello"),
        (" \n", " \nHello", " \nHello"),
    ],
)
def test_rule(before: str, new: str, expected: str) -> None:
    assert told(before, new) == expected
    assert told(before, *new) == expected


def test_anchor_is_the_last_words() -> None:
    assert anchor("Hello there \n") == "Hello there"
    assert anchor("") == anchor(" \n") == ""
    long = "word " * 100 + "last"
    assert anchor(long) == ("word " * 12 + "last")[-len(anchor(long)) :]
    assert anchor("x" * 99) == "x" * overlap.OVERLAP_ANCHOR_CHARACTERS
    assert len(anchor("x" + " y" * 99)) < overlap.OVERLAP_ANCHOR_CHARACTERS


def test_nothing_is_held_back_longer_than_it_could_be_a_repetition() -> None:
    join = OverlapFilter("One two three four. " * 9 + "The quick brown")
    assert [join.feed(piece) for piece in ("One", " two", " tree", " five", " six")] == [
        "",
        "",
        "One two tree",
        " five",
        " six",
    ]


def test_blanks_are_not_held_for_ever() -> None:
    join = OverlapFilter("Hello")
    out = [join.feed(" " * 100) for _ in range(100)]
    assert any(out)


WORDS = st.text(alphabet="ab \n.é你", max_size=40)


@given(WORDS, st.lists(WORDS, max_size=8))
@example("ab ab", ["ab", " ab a"])
def test_pieces_make_no_difference_and_only_a_repetition_is_dropped(before: str, pieces: list[str]) -> None:
    new = "".join(pieces)
    rest = told(before, *pieces)
    assert rest == told(before, new)
    assert new.endswith(rest)
    dropped = new[: len(new) - len(rest)]
    assert before.rstrip().endswith(dropped.strip())
    assert repeated(before, new) in (len(dropped), 0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40), st.data())
def test_text_of_which_nothing_recurs_is_joined_exactly(
    count: int, more: int, back: int, data: st.DataObject
) -> None:
    """Wherever it was cut, however much is repeated, in whatever pieces: nothing lost, nothing twice."""
    words = [f"w{index} " for index in range(count + more)]
    whole, before = "".join(words), "".join(words[:count])
    if back:  # inside a word only a repetition tells how to join, and a short one may be an accident
        before = before[: len(before) - data.draw(st.integers(0, 2))]
        start = len("".join(words[: max(0, count - back - 2)]))
        new = " " * data.draw(st.integers(0, 4)) + whole[start:]
    else:
        new = whole[len(before) :]
    ends = sorted(data.draw(st.sets(st.integers(0, len(new)), max_size=6)) | {0, len(new)})
    assert before + told(before, *(new[begin:end] for begin, end in pairwise(ends))) == whole


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_taken(before: str, new: str) -> None:
    assert new.endswith(told(before, new))
