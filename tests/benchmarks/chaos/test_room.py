"""Who is there and what webhooks told: nothing in a right record, and every fault in one that was spoilt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from legato.benchmarks.chaos.audit import audit
from legato.benchmarks.chaos.hooks import EXCUSED, LATE
from legato.benchmarks.chaos.record import Came, Members, RoomRecord, SubscribeSent, Told, Visitor, Went
from tests.benchmarks.chaos.right import record
from tests.benchmarks.chaos.test_audit import kinds

ROOM = "presence-room"
DOOR = "door"

ANN = Visitor(
    "7/0", "7", True, [Came(1.0, ROOM), Members(1.0, frozenset("7")), Members(2.0, frozenset("78"))]
)
"""There all the time."""

BOB = Visitor(
    "8/0",
    "8",
    True,
    [
        *(Came(2.0, DOOR), Came(2.0, ROOM), Members(2.0, frozenset("78"))),
        *(Went(60.0, DOOR), Went(60.0, ROOM)),
        *(Came(90.0, ROOM), Members(90.0, frozenset("78"))),
    ],
)
"""Gone for a while, and not through the door again."""

EVE = Visitor("9/0", "9", False, [Came(30.0, ROOM), Members(30.0, frozenset("789")), Went(40.0, ROOM)])
"""Gone."""

OCCUPIED, VACATED, ADDED, REMOVED = "channel_occupied", "channel_vacated", "member_added", "member_removed"
TOLD = (
    Told(1.1, 0, OCCUPIED, ROOM),
    Told(1.1, 0, ADDED, ROOM, "7"),
    Told(2.1, 1, OCCUPIED, DOOR),
    Told(2.1, 1, ADDED, ROOM, "8"),
    Told(30.1, 2, ADDED, ROOM, "9"),
    Told(43.1, 2, REMOVED, ROOM, "9"),
    Told(63.1, 1, VACATED, DOOR),
    Told(63.1, 1, REMOVED, ROOM, "8"),
    Told(90.1, 0, ADDED, ROOM, "8"),
)
USERS = frozenset("78")
RIGHT = RoomRecord(
    ROOM,
    [ANN, BOB, EVE],
    users={0: USERS, 1: USERS},
    counts={0: {ROOM: 2}, 1: {ROOM: 2}},
    told=TOLD,
)


def found(**fields):
    return kinds(replace(record(), room=replace(RIGHT, **fields)))


def without(event: Told) -> list[Told]:
    return [told for told in TOLD if told != event]


def test_a_right_room_is_clean():
    verdict = audit(replace(record(), room=RIGHT))
    assert list(verdict.findings) == []
    assert verdict.figures["webhook events"] == len(TOLD)
    assert verdict.figures["of killed nodes, not told"] == 0


def test_a_member_who_is_gone_and_still_in_a_list_is_a_ghost():
    ann = replace(ANN, entries=[*ANN.entries, Members(95.0, frozenset("789"))])
    assert found(visitors=[ann, BOB, EVE]) == {("ghost", "list")}
    assert found(users={0: USERS, 1: USERS | {"9"}}) == {("ghost", "api")}


def test_a_member_who_is_there_and_in_no_list_is_absent():
    ann = replace(ANN, entries=[*ANN.entries, Members(95.0, frozenset("7"))])
    assert found(visitors=[ann, BOB, EVE]) == {("absent", "list")}
    assert found(users={0: frozenset("8"), 1: USERS}) == {("absent", "api")}


def test_a_subscription_that_is_not_there_is_a_ghost_although_its_user_is():
    assert found(counts={0: {ROOM: 3}, 1: {ROOM: 2}}) == {("ghost", "api")}
    assert found(counts={0: {ROOM: 2, DOOR: 1}, 1: {ROOM: 2}}) == {("ghost", "api")}
    assert found(counts={0: {ROOM: 1}, 1: {ROOM: 2}}) == {("absent", "api")}
    assert found(counts={0: {}, 1: {ROOM: 2}}) == {("absent", "api")}


def test_who_was_to_stay_and_does_not_get_in_is_absent():
    assert found(visitors=[ANN, BOB, replace(EVE, stays=True)]) == {("absent", "list")}


@pytest.mark.parametrize("event", TOLD, ids=lambda event: f"{event.event} {event.channel} {event.user}")
def test_a_webhook_that_comes_twice_is_doubled(event):
    for node in range(3):
        assert found(told=[*TOLD, replace(event, at=event.at + 1, node=node)]) == {
            ("doubled webhook", "webhooks")
        }


@pytest.mark.parametrize("event", TOLD, ids=lambda event: f"{event.event} {event.channel} {event.user}")
def test_a_webhook_that_does_not_come_is_missing(event):
    assert found(told=without(event)) == {("missing webhook", "webhooks")}


def test_nothing_excuses_a_double():
    doubled = [*TOLD, Told(2.5, 2, OCCUPIED, DOOR)]
    assert found(told=doubled, kills=[2.3]) == {("doubled webhook", "webhooks")}


def test_what_a_killed_node_had_to_tell_is_excused_and_counted():
    for event, changed_at in ((TOLD[6], 60.0), (TOLD[7], 60.0)):
        for kill, clean in ((changed_at + EXCUSED - 1, True), (changed_at + EXCUSED + 1, False)):
            room = replace(RIGHT, told=without(event), kills=[kill])
            verdict = audit(replace(record(), room=room))
            assert verdict.figures["of killed nodes, not told"] == int(clean)
            assert verdict.clean is clean


def test_who_is_told_to_have_gone_may_have_come_without_hearing_of_it():
    """The node was killed before it had told anybody, the client and the receiver."""
    told = [*TOLD, Told(58.0, 0, REMOVED, ROOM, "9")]
    eve = replace(EVE, entries=[*EVE.entries, SubscribeSent(50.0, ROOM)])
    assert found(told=told) == {("doubled webhook", "webhooks")}
    assert found(told=told, kills=[50.5]) == {("doubled webhook", "webhooks")}
    assert found(told=told, visitors=[ANN, BOB, eve]) == {("missing webhook", "webhooks")}
    verdict = audit(replace(record(), room=replace(RIGHT, told=told, visitors=[ANN, BOB, eve], kills=[50.5])))
    assert verdict.clean
    assert verdict.figures["of killed nodes, not told"] == 1


def test_what_a_killed_node_took_with_it_is_not_looked_for_in_what_others_told_later():
    """Bob came again at 90 through another node, soon after he had gone."""
    lost = TOLD[2]
    door = [Told(20.0, 1, VACATED, DOOR), Told(30.0, 2, OCCUPIED, DOOR), Told(63.1, 2, VACATED, DOOR)]
    told = [event for event in TOLD if event.channel != DOOR] + door
    entries = [
        *(Came(2.0, DOOR), Came(2.0, ROOM), Went(17.0, DOOR), Came(29.9, DOOR), Went(60.0, DOOR)),
        *(Went(60.0, ROOM), Came(90.0, ROOM), Members(90.0, frozenset("78"))),
    ]
    room = replace(RIGHT, told=told, visitors=[ANN, replace(BOB, entries=entries), EVE], kills=[lost.at])
    verdict = audit(replace(record(), room=room))
    assert list(verdict.findings) == []
    assert verdict.figures["of killed nodes, not told"] == 1
    assert not audit(replace(record(), room=replace(room, kills=[]))).clean


def test_what_another_node_told_late_is_in_its_turn():
    late = replace(TOLD[7], at=91.0)
    assert found(told=[*without(TOLD[7]), late]) == set()
    assert found(told=[*without(TOLD[7]), replace(late, node=0)]) != set()  # its own are in order
    assert found(told=[*without(TOLD[7]), replace(late, at=TOLD[8].at + LATE + 1)]) != set()


def test_what_is_not_signed_rightly_is_forged():
    assert found(refused=1) == {("forged", "webhooks")}


def test_what_nobody_did_is_told_by_no_webhook():
    assert found(told=[*TOLD, Told(50.0, 0, OCCUPIED, "attic")]) == {("missing webhook", "webhooks")}
    assert found(told=[*TOLD, Told(50.0, 0, ADDED, ROOM, "x")]) == {("missing webhook", "webhooks")}
