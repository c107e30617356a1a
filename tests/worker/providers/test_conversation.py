"""The turns of a conversation as every model takes them, whatever the history is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.jobs import Turn
from legato.worker.providers import base, conversation

TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["user", "assistant"]), st.sampled_from(["", " \n", "a", "b"]))
)


def test_history_begins_with_the_user_and_successive_turns_are_joined() -> None:
    history = (
        Turn("assistant", "cut off"),
        Turn("user", "one"),
        Turn("user", " "),
        Turn("user", "two"),
        Turn("assistant", "three"),
        Turn("assistant", "four"),
        Turn("user", "five"),
    )
    assert conversation.opening(base.ProviderRequest("six", history)) == [
        Turn("user", "one\n\ntwo"),
        Turn("assistant", "three\n\nfour"),
        Turn("user", "five\n\nsix"),
    ]


@given(TURNS)
def test_roles_alternate_from_user_to_user_and_no_turn_is_blank(history: list[Turn]) -> None:
    turns = conversation.opening(base.ProviderRequest("Hi", tuple(history)))
    assert (turns[0].role, turns[-1].role) == ("user", "user")
    assert all(before.role != after.role for before, after in pairwise(turns))
    assert all(turn.content.strip() for turn in turns)
    assert turns[-1].content.endswith("Hi")


def test_text_that_utf8_cannot_carry_is_replaced() -> None:
    request = base.ProviderRequest("a\ud83d", (Turn("user", "\udcff"), Turn("assistant", "b\ud83d")))
    assert conversation.opening(request) == [
        Turn("user", "\ufffd"),
        Turn("assistant", "b\ufffd"),
        Turn("user", "a\ufffd"),
    ]


def test_to_go_on_the_reply_so_far_and_the_request_for_its_rest_are_added() -> None:
    assert conversation.continued(base.ProviderRequest("Hi")) == []
    request = base.ProviderRequest("Hi", so_far="They", continuation="Go on.", attempt=2)
    assert conversation.continued(request) == [Turn("assistant", "They"), Turn("user", "Go on.")]
