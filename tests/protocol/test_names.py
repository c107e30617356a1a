"""Names of several installations on one Redis: what each has, and that no two share any."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import settings, wire
from legato.protocol.names import Names
from legato.protocol.redis.slots import slot_of
from tests.test_names import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

CONSTANTS = ("NODES_KEY", "PAUSED_KEY", "QUEUES_KEY", "WORKERS_KEY")
PREFIXES = st.from_regex(r"\A[a-c:_]{0,3}(legato:(bus:3:|jobs:|queues)?|stream_cancel:)?\Z")


def words(function: str) -> list[str]:
    """One for each argument."""
    count = len(inspect.signature(getattr(wire, function)).parameters)
    return ["7", "presence-a", "m", "k"][: 2 if function == "bus_channel" else count]


def all_of(names: Names) -> Iterator[str]:
    for function in FUNCTIONS:
        found = getattr(names, function)(*words(function))
        yield from (found,) if isinstance(found, str) else found
    for constant in CONSTANTS:
        yield getattr(names, constant.lower())


def plain() -> Iterator[str]:
    for function in FUNCTIONS:
        found = getattr(wire, function)(*words(function))
        yield from (found,) if isinstance(found, str) else found
    for constant in CONSTANTS:
        yield getattr(wire, constant)


def test_without_a_prefix_on_database_0_they_are_what_other_programs_know():
    assert list(all_of(Names())) == list(plain())
    assert Names().bus_channel("1", "a") == "legato:bus:{1:a}"


def test_a_prefix_stands_before_every_name_as_it_is():
    assert list(all_of(Names("shop:"))) == [f"shop:{name}" for name in plain()]


def test_of_a_database_the_bus_alone_carries_the_number():
    differ = set(all_of(Names("", 3))) - set(plain())
    assert differ == {"legato:bus:3:{7:presence-a}"}
    assert Names("shop:", 3).bus_channel("7", "a") == "shop:legato:bus:3:{7:a}"


def test_what_belongs_together_stays_in_one_slot():
    names = Names("shop:", 3)
    here, there = list(all_of(names)), list(plain())
    for ours, theirs in zip(here, there, strict=True):
        assert "{" not in theirs or slot_of(ours.encode()) == slot_of(theirs.encode())
    slots = {
        slot_of(getattr(names, function)(*words(function)).encode())
        for function in ("bus_channel", "subscriptions_key", "users_key", "members_key", "held_key")
    }
    assert len(slots) == 1


@given(PREFIXES, st.integers(0, 20), PREFIXES, st.integers(0, 20))
def test_two_installations_share_no_name(one, database, other, another):
    mine, theirs = Names(one, database), Names(other, another)
    if one != other:
        assert not set(all_of(mine)) & set(all_of(theirs))
    else:
        same = mine.bus_channel("7", "a") == theirs.bus_channel("7", "a")
        assert same == (database == another)


def load(prefix: str) -> str:
    class Whole(msgspec.Struct):
        redis: settings.Redis = settings.Redis()

    environ = {"LEGATO_REDIS_PREFIX": prefix}
    nothing: dict[str, str] = {}
    return settings.load(
        Whole, path=None, read=str, environ=environ, aliases=nothing, overrides=nothing
    ).redis.prefix


@pytest.mark.parametrize("prefix", ["", "shop:", "laravel_database_", "a.b-c_d:E9", "x" * 64])
def test_prefixes_that_are_taken(prefix):
    assert load(prefix) == prefix


@pytest.mark.parametrize(
    "prefix", ["{a}", "a b", "a*", "a?", "[a]", "a\n", "\u00e4", "x" * 65, "a}", "a/b", "a\x00", " "]
)
def test_prefixes_that_are_refused(prefix):
    with pytest.raises(settings.SettingsError, match=re.escape("LEGATO_REDIS_PREFIX: Expected")) as caught:
        load(prefix)
    assert "\n" not in str(caught.value)
