"""The hub, called directly: a list replaces the loop, and subscribers record their writes."""

from __future__ import annotations

import pytest

from legato.broadcaster.channels import fanout as fanout_module
from legato.broadcaster.channels.fanout import Fanout
from legato.broadcaster.channels.hub import Hub
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import FLUSH_SECONDS, SUBSCRIPTIONS_PER_TURN, WRITES_PER_CLOCK_READ
from legato.broadcaster.transport.frames import text_frame
from tests.broadcaster.fake_loop import run_turn

KEY = Key("1", "a")
OTHER = Key("1", "b")


class Recorder:
    """A subscriber that records its writes."""

    def __init__(self, socket_id: str, keys=(KEY, OTHER)) -> None:
        self.socket_id = socket_id
        self.slow = False
        self.keys = keys
        self.writes: list[bytes] = []
        self.queued: list[bytes] = []
        self.write_now = self.writes.append
        self.given_up = False
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def enqueue(self, data: bytes) -> None:
        self.queued.append(data)

    def write(self, data: bytes) -> None:
        (self.enqueue if self.slow else self.write_now)(data)

    def overwhelmed(self) -> None:
        self.given_up = True

    def subscriptions(self):
        return self.keys


class Loop:
    """A loop whose scheduled calls are run by the test."""

    def __init__(self, chunk: int = WRITES_PER_CLOCK_READ) -> None:
        self.scheduled: list = []
        self.first: list[Key] = []
        self.last: list[Key] = []
        self.opened, self.vacated = self.first.append, self.last.append
        self.replies: dict[tuple[str, Key], bytes] = {}
        self.answers_at_once = True
        self.now = 0.0
        self.fanout = Fanout(self.scheduled.append, self.clock, chunk)
        self.hub = Hub(self.scheduled.append, self.fanout)
        self.hub.start(self)

    def clock(self) -> float:
        """A clock on which the flush budget is used up at every read."""
        self.now += FLUSH_SECONDS
        return self.now

    def ready(self, subscriber, key) -> None:
        """Answer as a node does, at once or later."""
        if self.answers_at_once:
            self.hub.admit(subscriber, key, self.replies[subscriber.socket_id, key])

    def subscribe(self, subscriber, key, reply: bytes) -> None:
        self.replies[subscriber.socket_id, key] = reply
        self.hub.subscribe(subscriber, key)

    def confirm(self, key: Key) -> None:
        """Run the loop until every subscriber is answered."""
        self.hub.confirm(key)
        while self.scheduled:
            self.turn()

    def turn(self) -> None:
        run_turn(self.scheduled)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def hub(loop) -> Hub:
    return loop.hub


def joined(*payloads: bytes) -> bytes:
    return b"".join(text_frame(payload) for payload in payloads)


def test_the_reply_waits_for_the_bus_and_comes_before_anything_else(loop, hub):
    ann = Recorder("1.1")
    loop.subscribe(ann, KEY, b"reply")
    assert (ann.writes, loop.first) == ([], [KEY])
    hub.deliver(KEY, b"early")
    loop.turn()
    assert ann.writes == []
    hub.confirm(KEY)
    hub.deliver(KEY, b"x")
    loop.turn()
    assert ann.writes == [b"reply", joined(b"x")]


def test_the_second_subscriber_is_answered_at_once(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    loop.subscribe(ann, KEY, b"reply")
    hub.confirm(KEY)
    loop.subscribe(bob, KEY, b"reply")
    assert bob.writes == [b"reply"]
    assert loop.first == [KEY]


def test_each_flush_reaches_the_subscribers_of_that_moment(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    loop.subscribe(ann, KEY, b"reply")
    hub.confirm(KEY)
    loop.answers_at_once = False

    def flush(payload: bytes) -> None:
        hub.deliver(KEY, payload)
        loop.turn()

    flush(b"1")
    loop.subscribe(bob, KEY, b"reply")
    flush(b"2")
    flush(b"3")
    hub.admit(bob, KEY, b"reply")
    flush(b"4")
    bob.slow = True
    hub.set_slow(bob, slow=True)
    flush(b"5")
    bob.slow = False
    hub.set_slow(bob, slow=False)
    flush(b"6")
    hub.unsubscribe(ann, KEY)
    flush(b"7")
    assert ann.writes == [b"reply", *(joined(b"%d" % number) for number in range(1, 7))]
    assert bob.writes == [b"reply" + joined(b"2", b"3"), joined(b"4"), joined(b"6"), joined(b"7")]
    assert bob.queued == [joined(b"5")]


def test_a_flush_skips_subscribers_that_have_the_frame_or_are_excluded(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    for person in (ann, bob):
        loop.subscribe(person, KEY, b"reply")
    hub.confirm(KEY)
    hub.deliver(KEY, b"1")
    loop.turn()
    hub.deliver(KEY, b"of ann", ann.socket_id)
    loop.turn()
    hub.deliver(KEY, b"2")
    loop.turn()
    hub.deliver(KEY, b"3")
    hub.catch_up(ann)
    loop.turn()
    assert ann.writes == [b"reply", joined(b"1"), joined(b"2"), joined(b"3")]
    assert bob.writes == [b"reply", joined(b"1"), joined(b"of ann"), joined(b"2"), joined(b"3")]


def test_a_message_published_by_closing_a_held_subscriber_respects_exclusions(loop, hub, monkeypatch):
    monkeypatch.setattr(fanout_module, "MAX_HELD_WRITES", 0)
    ann, bob, cid = Recorder("1.1"), Recorder("2.2"), Recorder("3.3")
    for person in (ann, bob):
        loop.subscribe(person, KEY, b"reply")
    hub.confirm(KEY)
    loop.answers_at_once = False
    loop.subscribe(cid, KEY, b"reply")

    def give_up() -> None:
        hub.unsubscribe(cid, KEY)
        hub.deliver(KEY, b"cid has left", bob.socket_id)

    cid.overwhelmed = give_up
    hub.deliver(KEY, b"x")
    loop.turn()
    loop.turn()
    assert ann.writes == [b"reply", joined(b"x"), joined(b"cid has left")]
    assert bob.writes == [b"reply", joined(b"x")]


def test_a_second_confirmation_changes_nothing(loop, hub):
    ann = Recorder("1.1")
    loop.subscribe(ann, KEY, b"reply")
    hub.confirm(KEY)
    hub.confirm(KEY)
    hub.confirm(OTHER)
    assert ann.writes == [b"reply"]


def test_messages_of_one_loop_turn_share_one_write(loop, hub):
    ann = Recorder("1.1")
    loop.subscribe(ann, KEY, b"r")
    hub.confirm(KEY)
    for payload in (b"1", b"2", b"3"):
        hub.deliver(KEY, payload)
    assert len(loop.scheduled) == 1
    loop.turn()
    assert ann.writes == [b"r", joined(b"1", b"2", b"3")]
    assert (loop.fanout.messages, loop.fanout.deliveries, loop.fanout.writes) == (3, 3, 1)


def test_an_event_from_before_the_subscription_is_not_delivered(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    loop.subscribe(ann, KEY, b"r")
    hub.confirm(KEY)
    hub.deliver(KEY, b"before")
    loop.subscribe(bob, KEY, b"r")
    hub.deliver(KEY, b"after")
    loop.turn()
    assert bob.writes == [b"r", joined(b"after")]
    assert ann.writes == [b"r", joined(b"before", b"after")]
    assert (loop.fanout.deliveries, loop.fanout.writes) == (3, 2)


def test_nothing_is_delivered_after_unsubscribing(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    for subscriber in (ann, bob):
        loop.subscribe(subscriber, KEY, b"r")
    hub.confirm(KEY)
    hub.deliver(KEY, b"x")
    hub.unsubscribe(ann, KEY)
    hub.unsubscribe(ann, KEY)
    loop.turn()
    assert ann.writes == [b"r"]
    assert bob.writes == [b"r", joined(b"x")]
    assert loop.last == []


def test_the_last_unsubscribe_vacates_the_channel(loop, hub):
    ann = Recorder("1.1")
    loop.subscribe(ann, KEY, b"r")
    hub.confirm(KEY)
    hub.deliver(KEY, b"x")
    hub.unsubscribe(ann, KEY)
    loop.turn()
    assert loop.last == [KEY]
    assert (len(hub), hub.count(KEY)) == (0, 0)
    hub.deliver(KEY, b"x")
    assert loop.fanout.messages == 1


def test_a_subscriber_that_leaves_while_waiting_gets_no_reply(loop, hub):
    ann = Recorder("1.1")
    loop.subscribe(ann, KEY, b"r")
    hub.unsubscribe(ann, KEY)
    hub.confirm(KEY)
    assert (ann.writes, loop.first, loop.last) == ([], [KEY], [KEY])


def test_the_excluded_socket_misses_only_its_own(loop, hub):
    ann, bob, cyd = Recorder("1.1"), Recorder("2.2"), Recorder("3.3")
    for subscriber in (ann, bob, cyd):
        loop.subscribe(subscriber, KEY, b"r")
    hub.confirm(KEY)
    hub.deliver(KEY, b"1", "1.1")
    hub.deliver(KEY, b"2")
    hub.deliver(KEY, b"3", "2.2")
    hub.deliver(KEY, b"4", "9.9")
    loop.turn()
    assert ann.writes[1:] == [joined(b"2", b"3", b"4")]
    assert bob.writes[1:] == [joined(b"1", b"2", b"4")]
    assert cyd.writes[1:] == [joined(b"1", b"2", b"3", b"4")]
    assert loop.fanout.deliveries == 10


def test_a_socket_excluded_from_all_frames_gets_no_write(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    for subscriber in (ann, bob):
        loop.subscribe(subscriber, KEY, b"r")
    hub.confirm(KEY)
    hub.deliver(KEY, b"1", "1.1")
    loop.turn()
    assert ann.writes == [b"r"]
    assert (loop.fanout.deliveries, loop.fanout.writes) == (1, 1)


def test_a_slow_subscriber_queues_and_delays_no_other(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    for subscriber in (ann, bob):
        loop.subscribe(subscriber, KEY, b"r")
    hub.confirm(KEY)
    ann.slow = True
    hub.set_slow(ann, slow=True)
    hub.deliver(KEY, b"1")
    loop.turn()
    assert (ann.queued, bob.writes[1:]) == ([joined(b"1")], [joined(b"1")])
    loop.subscribe(ann, OTHER, b"r")
    hub.confirm(OTHER)
    ann.slow = False
    hub.set_slow(ann, slow=False)
    hub.deliver(KEY, b"2")
    hub.deliver(OTHER, b"3")
    loop.turn()
    assert ann.writes[1:] == [joined(b"2"), joined(b"3")]


def test_a_socket_may_become_slow_while_it_is_written_to(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")

    def fill_up(data: bytes) -> None:
        ann.writes.append(data)
        ann.slow = True
        hub.set_slow(ann, slow=True)

    loop.subscribe(ann, KEY, b"r")
    loop.subscribe(bob, KEY, b"r")
    ann.write_now = fill_up
    hub.confirm(KEY)
    hub.set_slow(ann, slow=False)
    ann.slow = False
    hub.deliver(KEY, b"1")
    loop.turn()
    hub.deliver(KEY, b"2")
    loop.turn()
    assert ann.writes[-1] == joined(b"1")
    assert ann.queued[-1] == joined(b"2")
    assert bob.writes[1:] == [joined(b"1"), joined(b"2")]


def test_messages_published_before_the_answer_follow_it(loop, hub):
    """Reading a member list takes a round trip; messages published meanwhile are not lost."""
    ann, bob = Recorder("1.1"), Recorder("2.2")
    loop.subscribe(bob, KEY, b"r")
    hub.confirm(KEY)
    loop.answers_at_once = False
    loop.subscribe(ann, KEY, b"")
    hub.deliver(KEY, b"1")
    loop.turn()
    hub.deliver(KEY, b"2", "1.1")
    loop.turn()
    hub.deliver(KEY, b"3")
    assert ann.writes == []
    hub.admit(ann, KEY, b"roster")  # 3 waits for the others' write
    assert bob.writes[1:] == [joined(b"1"), joined(b"2")]
    loop.turn()
    assert ann.writes == [b"roster" + joined(b"1"), joined(b"3")]
    assert b"".join(bob.writes[1:]) == joined(b"1", b"2", b"3")
    hub.deliver(KEY, b"4")
    loop.turn()
    assert ann.writes[-1] == joined(b"4")


def test_a_subscriber_that_leaves_before_its_answer_gets_none(loop, hub):
    ann = Recorder("1.1")
    loop.answers_at_once = False
    loop.subscribe(ann, KEY, b"")
    hub.confirm(KEY)
    assert hub.subscribers(KEY) == [ann]
    hub.unsubscribe(ann, KEY)
    hub.admit(ann, KEY, b"roster")
    assert (ann.writes, hub.subscribers(KEY)) == ([], [])


def test_the_buffer_of_an_unanswered_subscriber_is_bounded(loop, hub, monkeypatch):
    monkeypatch.setattr(fanout_module, "MAX_HELD_WRITES", 3)
    loop.answers_at_once = False
    ann = Recorder("1.1")
    loop.subscribe(ann, KEY, b"roster")
    hub.confirm(KEY)
    for excluded in (None, "2.2", None):
        hub.deliver(KEY, b"{}", excluded)
        loop.turn()
    assert not ann.given_up
    hub.deliver(KEY, b"{}", "2.2")
    loop.turn()
    assert ann.given_up


def test_a_subscriber_that_has_left_is_not_admitted(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    loop.subscribe(bob, KEY, b"r")
    hub.confirm(KEY)
    hub.admit(ann, KEY, b"roster")
    assert ann.writes == []


def test_subscribing_again_is_answered_again_and_delivers_once(loop, hub):
    ann = Recorder("1.1")
    loop.subscribe(ann, KEY, b"r")
    hub.confirm(KEY)
    loop.subscribe(ann, KEY, b"r")
    hub.deliver(KEY, b"1")
    loop.turn()
    assert ann.writes == [b"r", b"r", joined(b"1")]
    assert hub.count(KEY) == 1


def test_without_the_bus_new_subscribers_wait_and_old_ones_stay(loop, hub):
    ann, bob = Recorder("1.1"), Recorder("2.2")
    loop.subscribe(ann, KEY, b"r")
    hub.confirm(KEY)
    hub.suspend([KEY, OTHER])
    loop.subscribe(bob, KEY, b"r")
    assert bob.writes == []
    hub.confirm(KEY)
    assert bob.writes == [b"r"]
    hub.deliver(KEY, b"1")
    loop.turn()
    assert ann.writes == [b"r", joined(b"1")]


def test_a_channel_that_is_confirmed_again_may_have_missed_something(loop, hub):
    ann = Recorder("1.1")
    assert not hub.confirm(KEY)  # nobody listens
    loop.subscribe(ann, KEY, b"r")
    assert not hub.confirm(KEY)
    assert not hub.confirm(KEY)  # it was asked once more
    hub.suspend([KEY])
    assert hub.confirm(KEY)
    assert not hub.confirm(KEY)
    hub.unsubscribe(ann, KEY)
    loop.subscribe(ann, KEY, b"r")
    assert not hub.confirm(KEY)


class Quitter(Recorder):
    """Leaves all channels at its first write, as an overwhelmed client does."""

    def __init__(self, hub, socket_id: str) -> None:
        super().__init__(socket_id)

        def quit_(data: bytes) -> None:
            self.writes.append(data)
            for key in (KEY, OTHER):
                hub.unsubscribe(self, key)

        self.write_now = quit_


def test_a_subscriber_that_leaves_while_being_answered_does_not_stop_the_others(loop, hub):
    people = [Quitter(hub, "1.1"), Recorder("2.2"), Quitter(hub, "3.3"), Recorder("4.4")]
    for person in people:
        loop.subscribe(person, KEY, b"r")
    hub.confirm(KEY)
    assert [person.writes for person in people] == [[b"r"]] * 4
    hub.deliver(KEY, b"1")
    loop.turn()
    assert people[1].writes == people[3].writes == [b"r", joined(b"1")]


def test_many_waiting_subscribers_are_answered_over_several_turns(loop, hub):
    people = [Recorder(f"{number}.1") for number in range(3 * SUBSCRIPTIONS_PER_TURN)]
    for person in people:
        loop.subscribe(person, KEY, b"reply")
    hub.confirm(KEY)
    first, later = [1] * SUBSCRIPTIONS_PER_TURN, [0] * 2 * SUBSCRIPTIONS_PER_TURN
    assert [len(person.writes) for person in people] == first + later
    hub.suspend([KEY])
    loop.turn()
    assert sum(len(person.writes) for person in people) == SUBSCRIPTIONS_PER_TURN
    hub.unsubscribe(people[-1], KEY)
    hub.depart(people[-2])
    loop.confirm(KEY)
    assert [len(person.writes) for person in people[:-2]] == [1] * (len(people) - 2)
    assert [person.writes for person in people[-2:]] == [[], []]
    hub.unsubscribe(people[-2], KEY)
    hub.departed(people[-2])
    assert hub.count(KEY) == len(people) - 2


@pytest.mark.parametrize("state", ["fast", "slow", "held", "in a pass"])
def test_a_departed_subscriber_gets_nothing_more(state):
    loop = Loop(chunk=1)
    hub, ann, bob, eve = loop.hub, Recorder("1.1"), Recorder("2.2"), Recorder("3.3")
    loop.answers_at_once = state != "held"
    for one in (bob, eve, ann):
        loop.subscribe(one, KEY, b"")
    loop.confirm(KEY)
    if state == "slow":
        ann.slow = True
        hub.set_slow(ann, slow=True)
    if state == "in a pass":
        hub.deliver(KEY, b"1")
        loop.turn()
        assert ann.writes == []
    hub.depart(ann)
    hub.deliver(KEY, b"2")
    while loop.scheduled:
        loop.turn()
    if state == "held":
        hub.admit(bob, KEY, b"")
        hub.admit(ann, KEY, b"")
    assert (ann.writes, ann.queued) == ([], [])
    assert bob.writes[-1].endswith(text_frame(b"2"))
    hub.unsubscribe(ann, KEY)
    hub.departed(ann)
    hub.subscribe(ann, KEY)
    hub.admit(ann, KEY, b"")
    hub.deliver(KEY, b"3")
    while loop.scheduled:
        loop.turn()
    assert (ann.queued if ann.slow else ann.writes) == [joined(b"3")]


def test_catch_up_searches_the_shorter_of_dirty_and_subscribed_channels(loop, hub):
    ann, bob = Recorder("1.1", keys=(KEY, OTHER, Key("1", "c"))), Recorder("2.2", keys=(KEY,))
    for one in (ann, bob):
        loop.subscribe(one, KEY, b"")
    loop.subscribe(ann, OTHER, b"")
    for key in (KEY, OTHER):
        loop.confirm(key)
    hub.catch_up(ann)
    assert ann.writes == []
    hub.deliver(OTHER, b"1")
    hub.catch_up(ann)
    hub.catch_up(bob)
    assert (ann.writes, bob.writes) == ([joined(b"1")], [])
    hub.deliver(KEY, b"2")
    hub.catch_up(bob)
    hub.catch_up(ann)
    loop.turn()
    assert (ann.writes, bob.writes) == ([joined(b"1"), joined(b"2")], [joined(b"2")])
