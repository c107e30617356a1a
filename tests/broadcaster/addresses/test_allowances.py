"""How much each address may do per minute, and how many at once."""

from __future__ import annotations

import pytest

from legato.broadcaster.addresses import allowances as module
from legato.broadcaster.addresses.allowances import Allowances
from legato.broadcaster.addresses.failures import FailureLimit
from legato.broadcaster.addresses.gate import ConnectionGate
from legato.broadcaster.addresses.refusals import AddressRefusals


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


class Guest:
    def __init__(self, address: str) -> None:
        self.caller = address


@pytest.fixture
def clock():
    return Clock()


def test_all_may_be_used_at_once_and_comes_back_evenly(clock):
    four = Allowances(4, clock)
    for _ in range(4):
        assert four.wait("a") == 0
        four.take("a")
    assert four.wait("a") == 15
    assert four.wait("b") == 0
    clock.time += 14
    assert four.wait("a") == 1
    clock.time += 1
    assert four.wait("a") == 0
    four.take("a")
    assert four.wait("a") == 15
    clock.time += 3600
    for _ in range(4):
        assert four.wait("a") == 0
        four.take("a")
    assert four.wait("a") == 15  # no more than a minute's has come back


def test_what_goes_beyond_does_not_count(clock):
    """Whoever goes on trying does not have to wait longer."""
    one = Allowances(1, clock)
    for _ in range(5):
        one.take("a")
    assert one.wait("a") == 60


def test_the_addresses_that_were_idle_longest_are_forgotten(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_ADDRESSES", 3)
    two = Allowances(2, clock)
    for address in ("a", "b", "a", "c", "d"):
        two.take(address)
    assert len(two) == 3
    assert two.wait("a") == 30
    two.take("b")
    assert two.wait("b") == 0  # it was forgotten


def silent(_refusal, /, **_fields):
    pass


def test_connections_of_one_address_at_once(clock):
    refusals = AddressRefusals(silent)
    gate = ConnectionGate(2, None, refusals)
    one, two, three, other, unknown = map(Guest, ["a", "a", "a", "b", ""])
    assert gate.arrives(one)
    assert gate.arrives(three)  # before another has taken its place
    assert all(map(gate.enter, [one, two, other, unknown, unknown, unknown]))
    assert not gate.arrives(three)
    assert not gate.enter(three)
    gate.leave(one)
    assert gate.arrives(three)
    assert gate.enter(three)
    for guest in (two, three, other, unknown):
        gate.leave(guest)
    assert not len(gate)
    assert refusals.by_limit == {"max_connections_per_address": 2}


def test_new_connections_of_one_address(clock):
    refusals = AddressRefusals(silent)
    gate = ConnectionGate(0, Allowances(2, clock), refusals)
    assert [gate.arrives(Guest("a")) for _ in range(4)] == [True, True, False, False]
    assert gate.arrives(Guest("b"))
    assert all(gate.arrives(Guest("")) for _ in range(4))
    clock.time += 30
    assert gate.arrives(Guest("a"))
    assert refusals.by_limit == {"max_new_connections_per_address": 2}


def test_failures_stop_further_attempts_for_whole_seconds(clock):
    limit = FailureLimit("max_failed_tokens_per_address", Allowances(7, clock), AddressRefusals(silent))
    for _ in range(7):
        assert limit.refuses("a") == 0
        limit.failed("a")
    assert limit.refuses("a") == 9
    assert limit.refuses("b") == 0
    clock.time += 8.5
    assert limit.refuses("a") == 1
    clock.time += 0.1
    assert limit.refuses("a") == 0


def test_refusals_are_told_to_the_log():
    told = []
    AddressRefusals(lambda refusal, /, **fields: told.append((refusal.reason, fields))).note("x", "192.0.2.1")
    assert told == [("address_limit", {"setting": "server.x", "address": "192.0.2.1"})]
