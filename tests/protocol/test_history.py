"""A history is cut between turns only, and what stays is the newest of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.history import cut
from legato.protocol.jobs import Turn

ROLES = {"u": "user", "a": "assistant"}


def turns(*texts: str) -> tuple[Turn, ...]:
    """Turns by the letter of their role, such as ``u:Hello``."""
    return tuple(Turn(ROLES[text[0]], text[2:]) for text in texts)  # type: ignore[arg-type]


TALK = turns("u:12", "a:345", "u:6", "a:7890")

CASES = [
    ("all fits", TALK, 4, 10, TALK),
    ("one turn too many takes its answer along", TALK, 3, 10, TALK[2:]),
    ("one character too many", TALK, 4, 9, TALK[2:]),
    ("room for half an exchange is of no use", TALK, 4, 8, TALK[2:]),
    ("the newest turn is too long", TALK, 4, 3, ()),
    ("the newest turn is an answer whose question is too long", turns("u:123456", "a:7"), 2, 6, ()),
    ("no turns allowed", TALK, 0, 10, ()),
    ("no characters allowed", TALK, 4, 0, ()),
    ("the user has the last word", turns("u:1", "a:2", "u:3"), 1, 9, turns("u:3")),
    (
        "several turns of one role",
        turns("u:1", "u:2", "a:3", "a:4", "u:5"),
        4,
        9,
        turns("u:2", "a:3", "a:4", "u:5"),
    ),
    ("what fits stays, whoever begins", turns("a:1", "u:2"), 2, 2, turns("a:1", "u:2")),
    ("nothing but answers", turns("a:1", "a:2"), 1, 9, ()),
    ("nothing", (), 4, 10, ()),
]


@pytest.mark.parametrize(
    ("history", "most", "characters", "kept"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_whole_turns_oldest_first(history, most, characters, kept):
    assert cut(history, turns=most, characters=characters) == kept


HISTORIES = st.lists(
    st.builds(Turn, st.sampled_from(["user", "assistant"]), st.text(min_size=1, max_size=9)), max_size=12
)


def fits(history, most: int, characters: int) -> bool:
    return len(history) <= most and sum(len(turn.content) for turn in history) <= characters


@given(HISTORIES, st.integers(0, 14), st.integers(0, 60))
def test_what_stays_is_the_longest_end_that_fits_and_begins_with_the_user(history, most, characters):
    kept = cut(history, turns=most, characters=characters)
    whole = tuple(history)
    assert kept == whole[len(whole) - len(kept) :]
    assert fits(kept, most, characters)
    if fits(whole, most, characters):
        assert kept == whole
    else:
        longer = [index for index in range(len(whole) - len(kept)) if whole[index].role == "user"]
        assert not any(fits(whole[index:], most, characters) for index in longer)
        assert not kept or kept[0].role == "user"
