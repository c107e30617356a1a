import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legato.protocol.channels import Key
from legato.protocol.holdback import Gone, HoldBack
from tests.tiers import amount

X = Key("1", "presence-x")
Y = Key("1", "presence-y")


@pytest.fixture
def held() -> HoldBack:
    return HoldBack(3)


def test_without_a_disconnect_nothing_waits(held):
    assert held.gone(X, "7", 0, disconnect=False)
    assert held.gone(X, None, 0, disconnect=False)
    assert held.next_due is None


def test_after_a_disconnect_a_departure_waits_and_is_then_told_once(held):
    assert not held.gone(X, "7", 10, disconnect=True)
    assert not held.gone(X, None, 10, disconnect=True)
    assert held.next_due == 13
    assert held.due(12.9) == []
    assert held.due(13) == [Gone(X, "7"), Gone(X, None)]
    assert held.due(99) == []
    assert held.next_due is None


def test_whoever_comes_back_in_time_has_never_been_away(held):
    held.gone(X, "7", 10, disconnect=True)
    held.gone(X, None, 10, disconnect=True)
    assert held.back(X)
    assert held.back(X, "7")
    assert held.due(99) == []


def test_a_return_is_that_of_the_same_user_to_the_same_channel(held):
    held.gone(X, "7", 10, disconnect=True)
    held.gone(X, None, 10, disconnect=True)
    assert not held.back(X, "8")
    assert not held.back(Y, "7")
    assert not held.back(Y)
    assert held.back(X)
    assert held.due(13) == [Gone(X, "7")]


def test_who_comes_back_too_late_is_new(held):
    held.gone(X, "7", 10, disconnect=True)
    held.due(13)
    assert not held.back(X, "7")


def test_who_goes_again_waits_anew(held):
    held.gone(X, "7", 10, disconnect=True)
    held.back(X, "7")
    held.gone(X, "7", 12, disconnect=True)
    assert held.due(13) == []
    assert held.due(15) == [Gone(X, "7")]


def test_who_goes_for_good_while_a_departure_waits_is_told_once(held):
    held.gone(X, "7", 10, disconnect=True)
    assert held.gone(X, "7", 11, disconnect=False)
    assert held.due(99) == []


def test_a_channel_is_not_vacated_before_its_members_are_removed(held):
    """One user loses the connection, a second later the other leaves."""
    held.gone(X, "7", 10, disconnect=True)
    assert held.gone(X, "8", 11, disconnect=False)
    assert not held.gone(X, None, 11, disconnect=False)
    assert held.due(13) == [Gone(X, "7"), Gone(X, None)]


def test_a_late_timer_changes_no_order(held):
    held.gone(X, "7", 10, disconnect=True)
    assert not held.gone(X, None, 20, disconnect=False)
    assert held.due(20) == [Gone(X, "7"), Gone(X, None)]


def test_order_holds_when_everything_happens_at_one_time(held):
    """Loops read their clock once per turn."""
    held.gone(X, "7", 10, disconnect=True)
    held.gone(X, None, 10, disconnect=True)
    held.back(X)
    held.gone(X, "8", 10, disconnect=True)
    held.gone(X, None, 10, disconnect=True)
    assert held.due(13) == [Gone(X, "7"), Gone(X, "8"), Gone(X, None)]


def test_over_the_bound_the_oldest_are_told_early():
    held = HoldBack(3, limit=2)
    held.gone(X, "7", 10, disconnect=True)
    held.gone(X, None, 10, disconnect=True)
    assert held.due(10) == []
    held.gone(Y, "7", 10, disconnect=True)
    assert held.due(10) == [Gone(X, "7")]
    held.back(X)
    held.gone(Y, "8", 10, disconnect=True)
    assert held.due(10) == []
    assert held.due(13) == [Gone(Y, "7"), Gone(Y, "8")]


def test_the_wait_can_be_ended(held):
    held.gone(X, "7", 10, disconnect=True)
    held.seconds = 0
    held.gone(X, "8", 10, disconnect=True)
    assert held.due(10) == [Gone(X, "8")]
    assert held.due(float("inf")) == [Gone(X, "7")]


def test_nothing_is_kept_of_what_is_over(held):
    for index in range(50):
        held.gone(X, str(index), index, disconnect=True)
        held.gone(Y, str(index), index, disconnect=True)
        held.back(Y, str(index))
    held.due(1000)
    assert not held._held
    assert not held._queue


class Told:
    """What a receiver believes, checked as it is told: who is there, None being the channel itself."""

    def __init__(self):
        self.there = set()

    def came(self, who):
        assert who not in self.there
        assert who is None or None in self.there
        self.there.add(who)

    def gone(self, departures):
        for _, who in departures:
            assert who in self.there
            assert who is not None or self.there == {None}
            self.there.discard(who)


moves = st.lists(st.tuples(st.sampled_from(["7", "8"]), st.booleans(), st.integers(0, 4)), max_size=30)


@settings(max_examples=amount(200, 5_000))
@given(moves)
def test_what_is_told_is_a_history_that_can_have_happened_and_ends_with_the_truth(moves):
    held, told, present, now = HoldBack(3), Told(), set(), 0.0
    for user, disconnect, wait in moves:
        now += wait
        told.gone(held.due(now))
        if user not in present:
            for who in [user] if present else [None, user]:
                if not held.back(X, who):
                    told.came(who)
            present.add(user)
        else:
            present.discard(user)
            for who in [user] if present else [user, None]:
                if held.gone(X, who, now, disconnect=disconnect):
                    told.gone([Gone(X, who)])
    told.gone(held.due(now + 3))
    assert told.there == present | ({None} if present else set())
