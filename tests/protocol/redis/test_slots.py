"""Which node of a Cluster a command belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from legato.protocol import wire
from legato.protocol.redis.slots import SLOTS, SlotMap, SlotsError, key_of, slot_of
from legato.protocol.redis_url import Address

A, B, C = Address("a", 1), Address("b", 2), Address("c", 3)
ANSWER = [[0, 99, [b"a", 1, b"id", []], [b"r", 9, b"id"]], [100, SLOTS - 1, [b"b", 2, b"id"]]]


@given(st.binary() | st.from_regex(rb"[a-c]?\{[a-c]?\}?[a-c{}]*", fullmatch=True))
def test_the_slot_is_the_one_that_redis_py_works_out(key):
    assert slot_of(key) == key_slot(key)


def test_what_belongs_to_one_channel_is_in_one_slot():
    names = ("1", "presence-room")
    keys = [
        *(name(*names) for name in (wire.bus_channel, wire.subscriptions_key, wire.users_key)),
        *(name(*names) for name in (wire.members_key, wire.held_key, wire.cache_key, wire.active_key)),
        *(name(*names, "m") for name in (wire.message_key, wire.log_key)),
        wire.open_key(*names),
    ]
    assert len({slot_of(key.encode()) for key in keys}) == 1


COMMANDS = [
    (("GET", "k"), b"k"),
    (("GET", b"k"), b"k"),
    (("EVALSHA", "sha", 2, "k", "l", "x"), b"k"),
    (("XREADGROUP", "GROUP", "g", "c", b"COUNT", 1, b"BLOCK", 5, b"STREAMS", "k", ">"), b"k"),
    (("XGROUP CREATE", "k", "g", 0), b"k"),
    (("SPUBLISH", "k", b"data"), b"k"),
    (("PING",), None),
    (("DBSIZE",), None),
    (("INFO", "server"), None),
    (("TIME",), None),
    (("CLUSTER", "SLOTS"), None),
]


@pytest.mark.parametrize(("command", "key"), COMMANDS)
def test_the_key_of_a_command(command, key):
    assert key_of(command) == key


class TestSlotMap:
    def test_what_is_learnt(self):
        slots = SlotMap()
        assert (slots.known, slots.stale, slots.owner(0), slots.to_ask([C])) == (False, True, None, [C])
        slots.learn(ANSWER, A)
        assert (slots.known, slots.stale) == (True, False)
        assert [slots.owner(slot) for slot in (0, 99, 100, SLOTS - 1)] == [A, A, B, B]
        assert slots.masters == [A, B]

    def test_a_node_need_not_know_its_own_name(self):
        for name in (b"", b"?", None):
            slots = SlotMap()
            slots.learn([[0, 5, [name, 7]]], C)
            assert slots.owner(5) == Address("c", 7)
            assert slots.owner(6) is None

    def test_a_slot_that_nobody_has_is_asked_for_again(self):
        slots = SlotMap()
        slots.learn([[0, SLOTS - 2, [b"a", 1]]], A)
        assert slots.stale
        slots.learn([[0, SLOTS - 1, [b"a", 1]]], A)
        assert not slots.stale

    def test_who_does_not_answer_is_asked_last_until_it_does(self):
        slots = SlotMap()
        slots.learn(ANSWER, A)
        slots.suspect(A)
        assert slots.stale
        assert (slots.masters, slots.to_ask([C])) == ([B, A], [B, C, A])
        slots.learn(ANSWER, B)
        assert (slots.masters, slots.stale) == ([B, A], False)
        slots.learn(ANSWER, A)
        assert slots.masters == [A, B]

    def test_a_move_counts_at_once(self):
        slots = SlotMap()
        slots.learn(ANSWER, A)
        slots.moved(3, B)
        assert (slots.owner(3), slots.owner(4), slots.stale, slots.masters) == (B, A, True, [A, B])
        slots.moved(4, C)
        assert (slots.owner(4), slots.masters) == (C, [A, B, C])

    @pytest.mark.parametrize(
        "answer", [[], None, [1], [[0, 5]], [["x", 5, [b"a", 1]]], [[0, 5, ["a", 1]]], b"OK"]
    )
    def test_any_other_answer_changes_nothing(self, answer):
        slots = SlotMap()
        slots.learn(ANSWER, A)
        with pytest.raises(SlotsError):
            slots.learn(answer, A)
        assert slots.owner(0) == A
