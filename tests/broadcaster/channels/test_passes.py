"""Interrupted flushes: chunks of two writes, and a clock that always exceeds the flush budget."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from legato.broadcaster.channels import fanout as fanout_module
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import FLUSH_BACKLOG_MESSAGES
from legato.broadcaster.transport.frames import payloads, text_frame
from tests.broadcaster.channels.test_hub import KEY, OTHER, Loop, Recorder, joined
from tests.tiers import amount


@pytest.fixture
def loop() -> Loop:
    return Loop(chunk=2)


@pytest.fixture
def hub(loop):
    return loop.hub


def crowd(loop, size: int, key=KEY) -> list[Recorder]:
    """Subscribe this many, and forget the writes of their answers."""
    people = [Recorder(f"{number}.1") for number in range(size)]
    for person in people:
        loop.subscribe(person, key, b"")
    loop.confirm(key)
    return people


def test_a_flush_goes_on_in_the_next_turn_when_its_time_is_over(loop, hub):
    people = crowd(loop, 5)
    for payload in (b"1", b"2"):
        hub.deliver(KEY, payload)
    written = []
    while loop.scheduled:
        loop.turn()
        written.append([len(person.writes) for person in people])
    assert written == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert {*people[0].writes, *people[4].writes} == {joined(b"1", b"2")}
    assert (loop.fanout.messages, loop.fanout.deliveries, loop.fanout.writes) == (2, 10, 5)


def test_a_flush_does_not_stop_before_its_time_is_over(loop, hub):
    loop.fanout._clock = lambda: 0.0
    people = crowd(loop, 50)
    hub.deliver(KEY, b"1")
    loop.turn()
    assert [person.writes for person in people] == [[joined(b"1")]] * 50
    assert loop.scheduled == []


def test_many_small_channels_share_the_time_of_one_turn(loop, hub):
    keys = [Key("1", str(number)) for number in range(5)]
    people = [crowd(loop, 1, key)[0] for key in keys]
    for key in keys:
        hub.deliver(key, b"1")
    loop.turn()
    assert [len(person.writes) for person in people] == [1, 1, 0, 0, 0]
    loop.turn()
    loop.turn()
    assert [len(person.writes) for person in people] == [1, 1, 1, 1, 1]


def test_a_small_channel_does_not_wait_for_a_huge_one(loop, hub):
    people, ann = crowd(loop, 100), crowd(loop, 1, OTHER)[0]
    hub.deliver(KEY, b"1")
    loop.turn()
    hub.deliver(OTHER, b"2")
    hub.deliver(KEY, b"3")
    loop.turn()
    loop.turn()
    assert ann.writes == [joined(b"2")]
    assert people[99].writes == []
    while loop.scheduled:
        loop.turn()
    assert people[99].writes == [joined(b"1"), joined(b"3")]


def test_what_is_published_during_a_pass_goes_out_together_after_it(loop, hub):
    people = crowd(loop, 4)
    hub.deliver(KEY, b"1")
    loop.turn()
    for payload in (b"2", b"3"):
        hub.deliver(KEY, payload)
    loop.turn()
    assert [person.writes for person in people] == [[joined(b"1")]] * 4
    loop.turn()
    loop.turn()
    assert [person.writes for person in people] == [[joined(b"1"), joined(b"2", b"3")]] * 4
    assert loop.scheduled == []


def test_a_flush_ignores_its_budget_once_it_is_behind(loop, hub):
    """Otherwise the backlog would grow for ever."""
    people, others = crowd(loop, 7), crowd(loop, 7, OTHER)
    hub.deliver(KEY, b"0")
    hub.deliver(OTHER, b"0")
    loop.turn()
    loop.turn()
    for number in range(FLUSH_BACKLOG_MESSAGES):
        hub.deliver(KEY if number % 2 else OTHER, b"1")
    loop.turn()
    assert people[6].writes == others[6].writes == []
    hub.deliver(KEY, b"1")
    loop.turn()
    assert people[6].writes == [joined(b"0")]
    while loop.scheduled:
        loop.turn()
    assert [len(person.writes) for person in (*people, *others)] == [2] * 14
    hub.deliver(KEY, b"2")  # it keeps up again
    loop.turn()
    assert [len(person.writes) for person in people] == [3, 3, 2, 2, 2, 2, 2]


def test_a_vacated_channel_ends_its_pass_at_once(loop, hub):
    people = crowd(loop, 5)
    hub.deliver(KEY, b"0")
    loop.turn()
    for _ in range(2 * FLUSH_BACKLOG_MESSAGES):
        hub.deliver(KEY, b"1")
    for person in people:
        hub.unsubscribe(person, KEY)
    others = crowd(loop, 5, OTHER)
    hub.deliver(OTHER, b"0")
    loop.turn()
    assert [len(person.writes) for person in others] == [1, 1, 0, 0, 0]


def test_a_subscriber_that_joins_during_a_pass_gets_nothing_of_it(loop, hub):
    people, ann = crowd(loop, 3), Recorder("9.1")
    hub.deliver(KEY, b"1")
    loop.turn()
    hub.deliver(KEY, b"2")
    loop.subscribe(ann, KEY, b"r")
    hub.deliver(KEY, b"3")
    while loop.scheduled:
        loop.turn()
    assert ann.writes == [b"r", joined(b"3")]
    assert people[2].writes == [joined(b"1"), joined(b"2", b"3")]


def test_a_subscriber_that_leaves_during_a_pass_gets_no_more_of_it_even_if_it_returns(loop, hub):
    people = crowd(loop, 4)
    hub.deliver(KEY, b"1")
    loop.turn()
    for person in people[2:]:
        hub.unsubscribe(person, KEY)
    loop.subscribe(people[3], KEY, b"r")
    hub.deliver(KEY, b"2")
    while loop.scheduled:
        loop.turn()
    assert [person.writes for person in people[2:]] == [[], [b"r", joined(b"2")]]


def test_a_pass_ends_with_its_channel(loop, hub):
    people = crowd(loop, 3)
    hub.deliver(KEY, b"1")
    loop.turn()
    for person in people:
        hub.unsubscribe(person, KEY)
    (ann,) = crowd(loop, 1)
    hub.deliver(KEY, b"2")
    while loop.scheduled:
        loop.turn()
    assert (people[2].writes, ann.writes, loop.last) == ([], [joined(b"2")], [KEY])


def test_a_subscriber_that_becomes_slow_or_fast_during_a_pass_is_written_to_accordingly(loop, hub):
    people = crowd(loop, 4)
    people[3].slow = True
    hub.set_slow(people[3], slow=True)
    hub.deliver(KEY, b"1")
    loop.turn()
    for person in people[2:]:
        person.slow = not person.slow
        hub.set_slow(person, slow=person.slow)
    loop.turn()
    assert [(person.writes, person.queued) for person in people[2:]] == [
        ([], [joined(b"1")]),
        ([joined(b"1")], []),
    ]


def test_catch_up_writes_the_rest_at_once_and_only_once(loop, hub):
    """The rest of the pass and the pending frames, but none that excludes this subscriber."""
    people = crowd(loop, 4)
    hub.deliver(KEY, b"1")
    loop.turn()
    hub.deliver(KEY, b"2")
    hub.deliver(KEY, b"3", people[3].socket_id)
    for _ in range(2):
        for person in (people[0], people[3]):
            hub.catch_up(person)
    assert people[0].writes == [joined(b"1"), joined(b"2", b"3")]
    assert people[3].writes == [joined(b"1", b"2")]
    hub.deliver(KEY, b"4")
    while loop.scheduled:
        loop.turn()
    assert people[0].writes[2:] == people[3].writes[1:] == [joined(b"4")]
    assert (loop.fanout.deliveries, loop.fanout.writes) == (15, 4 + 2 + 4 - 1)


def test_a_repeated_answer_follows_what_was_published_before(loop, hub):
    people = crowd(loop, 3)
    hub.deliver(KEY, b"1")
    loop.turn()
    hub.deliver(KEY, b"2")
    hub.admit(people[2], KEY, b"snapshot")
    assert people[2].writes == [joined(b"1", b"2") + b"snapshot"]


def fail(_data: bytes) -> None:
    raise RuntimeError


@pytest.mark.parametrize("size", [4, 6, 20])
@pytest.mark.parametrize("chunk", [2, 100])
def test_a_failing_subscriber_is_cut_and_no_other_misses_anything(size, chunk, caplog):
    """In a direct write, in a pass, and with excluded frames. The others get each message once."""
    loop = Loop(chunk)
    people = crowd(loop, size)
    broken = [people[0], people[1], people[-1]]
    for person in broken:
        person.write_now = partial(fail)  # each has one of its own
        for slow in (True, False):
            loop.hub.set_slow(person, slow=slow)
    loop.hub.deliver(KEY, b"1", people[2].socket_id)
    while loop.scheduled:
        loop.turn()
    loop.hub.deliver(KEY, b"2")
    while loop.scheduled:
        loop.turn()
    assert [person.aborted for person in people] == [person in broken for person in people]
    for person in people:
        if person not in broken:
            frames = [frame for write in person.writes for frame in payloads(write)]
            assert frames == ([b"2"] if person is people[2] else [b"1", b"2"])
    assert caplog.text.count("a connection is cut: writing to it failed") <= 1


def test_an_error_while_answering_one_does_not_stop_the_others(loop, hub):
    people = [Recorder(f"{number}.1") for number in range(3)]
    for person in people:
        loop.subscribe(person, KEY, b"answer")
    people[0].write = fail
    hub.confirm(KEY)
    assert [person.writes for person in people[1:]] == [[b"answer"]] * 2
    assert [person.aborted for person in people] == [True, False, False]


def test_an_error_while_closing_an_overwhelmed_one_does_not_stop_the_others(loop, hub, monkeypatch):
    monkeypatch.setattr(fanout_module, "MAX_HELD_WRITES", 0)
    people = crowd(loop, 3)
    loop.answers_at_once = False
    late = Recorder("9.9")
    late.overwhelmed = lambda: fail(b"")
    hub.subscribe(late, KEY)
    hub.deliver(KEY, b"1")
    while loop.scheduled:
        loop.turn()
    assert [person.writes for person in people] == [[joined(b"1")]] * 3
    assert late.aborted


class Person(Recorder):
    """Fails at a write of the wrong kind. May become slow, or fail and leave all channels."""

    def __init__(self, number: int, machine: HubMachine) -> None:
        super().__init__(f"{number}.1")
        self.machine = machine
        self.chokes = self.bursts = False
        self.write_now = self.take

    def take(self, data: bytes) -> None:
        self.machine.hear(self, data, slow=False)
        if self.chokes:
            self.chokes = False
            self.machine.turn_slow(self)

    def enqueue(self, data: bytes) -> None:
        self.machine.hear(self, data, slow=True)
        if self.bursts:
            self.bursts = False
            for key in (KEY, OTHER):
                self.machine.leave(self, key)


PEOPLE = st.integers(0, 5)
KEYS = st.sampled_from([KEY, OTHER])


class HubMachine(RuleBasedStateMachine):
    """However calls are mixed, each gets what was published while it was subscribed, in order, and no more.

    A flush is interrupted after every second write. ``owed`` is what each has still to get of a channel,
    while the hub has answered it or will; those who are ``held`` get it behind the answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop(chunk=2)
        self.hub = self.loop.hub
        self.opened, self.vacated = self.loop.opened, self.loop.vacated
        self.hub.start(self)
        self.people = [Person(number, self) for number in range(6)]
        self.owed: dict[tuple[Person, Key], list[bytes]] = {}
        self.held: set[tuple[Person, Key]] = set()
        self.waiting: set[tuple[Person, Key]] = set()
        self.wrong: list[str] = []
        self.count = 0

    # --- the model

    def hear(self, person: Person, data: bytes, *, slow: bool) -> None:
        """Check that a write has exactly the next frames of each channel."""
        if slow != person.slow:
            self.wrong.append(f"{person.socket_id} is written to as if {slow=}")
        for payload in payloads(data):
            channel = payload.decode()[0]
            owed = self.owed.get((person, Key("1", channel)), [])
            if (person, Key("1", channel)) in self.held or not owed or owed.pop(0) != payload:
                self.wrong.append(f"{person.socket_id} gets {payload!r}, not {owed}")

    def ready(self, person: Person, key: Key) -> None:
        self.waiting.discard((person, key))
        if (person, key) not in self.owed:
            self.owed[person, key] = []
            self.held.add((person, key))

    def leave(self, person: Person, key: Key) -> None:
        self.owed.pop((person, key), None)
        self.held.discard((person, key))
        self.waiting.discard((person, key))
        self.hub.unsubscribe(person, key)

    def turn_slow(self, person: Person) -> None:
        person.slow = True
        self.hub.set_slow(person, slow=True)

    # --- what may happen

    @initialize(channel=KEYS)
    def begin_with_a_crowd(self, channel):
        for person in range(6):
            self.subscribe(person, channel)
        self.confirm(channel)
        for person in range(6):
            self.admit(person, channel)

    @rule(person=PEOPLE, key=KEYS)
    def subscribe(self, person, key):
        if (self.people[person], key) not in self.owed:
            self.waiting.add((self.people[person], key))
            self.hub.subscribe(self.people[person], key)

    @rule(key=KEYS)
    def confirm(self, key):
        self.hub.confirm(key)

    @rule(key=KEYS)
    def suspend(self, key):
        self.hub.suspend([key])

    @rule(person=PEOPLE, key=KEYS)
    def admit(self, person, key):
        """Subscribe, also repeatedly."""
        subscriber = self.people[person]
        self.count += 1
        reply = f"{key.channel}{self.count} answer".encode()
        if (subscriber, key) in self.held:
            self.held.discard((subscriber, key))
            self.owed[subscriber, key].insert(0, reply)
        elif (subscriber, key) in self.owed:
            self.owed[subscriber, key].append(reply)
        self.hub.admit(subscriber, key, text_frame(reply))
        owed = self.owed.get((subscriber, key), [])
        if reply in owed:
            self.wrong.append(f"{subscriber.socket_id} has {reply!r} still to get")

    @rule(person=PEOPLE, key=KEYS)
    def unsubscribe(self, person, key):
        self.leave(self.people[person], key)

    @rule(person=PEOPLE, key=KEYS)
    def come_without_an_answer(self, person, key):
        self.unsubscribe(person, key)
        self.subscribe(person, key)
        self.confirm(key)

    @rule(person=PEOPLE, key=KEYS, again=st.booleans())
    def come_back_at_once(self, person, key, again):
        self.unsubscribe(person, key)
        self.subscribe(person, key)
        self.confirm(key)
        self.admit(person, key)
        if again:
            self.admit(person, key)

    @rule(key=KEYS, excluded=st.none() | PEOPLE, nor=st.sets(PEOPLE, max_size=2))
    def deliver(self, key, excluded, nor):
        self.count += 1
        payload = f"{key.channel}{self.count}".encode()
        except_socket_id = None if excluded is None else self.people[excluded].socket_id
        others = {self.people[number].socket_id for number in nor}
        self.hub.deliver(key, payload, except_socket_id, others)
        for (person, channel), owed in self.owed.items():
            if channel == key and person.socket_id not in {except_socket_id, *others}:
                owed.append(payload)

    @rule(
        key=KEYS,
        excluded=st.none() | PEOPLE,
        nor=st.sets(PEOPLE, max_size=2),
        changes=st.sets(PEOPLE, max_size=3),
    )
    def begin_a_pass(self, key, excluded, nor, changes):
        """And go on with it when some have become slow or fast."""
        self.deliver(key, excluded, nor)
        self.loop.turn()
        for person in changes:
            (self.become_fast if self.people[person].slow else self.become_slow)(person)

    @rule(person=PEOPLE)
    def become_slow(self, person):
        if not self.people[person].slow:
            self.turn_slow(self.people[person])

    @rule(person=PEOPLE)
    def become_fast(self, person):
        self.people[person].slow = False
        self.hub.set_slow(self.people[person], slow=False)

    @rule(person=PEOPLE)
    def choke(self, person):
        self.people[person].chokes = True

    @rule(person=PEOPLE)
    def burst(self, person):
        self.people[person].bursts = True

    @rule(person=PEOPLE)
    def catch_up(self, person):
        self.hub.catch_up(self.people[person])
        for (one, key), owed in self.owed.items():
            if one is self.people[person] and (one, key) not in self.held and owed:
                self.wrong.append(f"{one.socket_id} has not caught up: {owed}")

    @rule()
    def turn(self):
        self.loop.turn()

    # --- what must hold

    @invariant()
    def nobody_gets_what_is_not_theirs(self):
        assert self.wrong == []
        for key in (KEY, OTHER):
            there = {person for person, of in {*self.owed, *self.waiting} if of == key}
            assert set(self.hub.subscribers(key)) == there

    @invariant()
    def nobody_waits_when_nothing_is_to_be_done(self):
        if not self.loop.scheduled:
            assert {place: owed for place, owed in self.owed.items() if owed and place not in self.held} == {}

    def teardown(self):
        for _ in range(1000):
            if not self.loop.scheduled:
                break
            self.loop.turn()
        assert self.loop.scheduled == []
        for person, key in list(self.held):
            self.admit(self.people.index(person), key)
        self.nobody_gets_what_is_not_theirs()
        self.nobody_waits_when_nothing_is_to_be_done()


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=amount(60, 2_500), stateful_step_count=40)
