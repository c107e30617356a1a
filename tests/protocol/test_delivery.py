from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legato.protocol.delivery import RetryPolicy, WebhookQueue
from tests.tiers import amount

POLICY = RetryPolicy(collect=0)


def queue(batch_size=1, **changes) -> WebhookQueue:
    return WebhookQueue(POLICY._replace(**changes), batch_size)


def fill(delivery, channel, *contents, now=0.0):
    for content in contents:
        delivery.add(channel, content, now)


def take_all(delivery, now):
    hooks = []
    while hook := delivery.take(now, int(now * 1000)):
        hooks.append(hook)
    return hooks


def contents(hooks):
    return [hook.events for hook in hooks]


def test_an_empty_queue_has_nothing_to_wait_for():
    delivery = queue()
    assert delivery.wake_at() is None
    assert delivery.take(0, 0) is None


def test_one_event_per_request_and_the_next_of_its_channel_only_after_it():
    delivery = queue()
    fill(delivery, "a", b"a1", b"a2")
    fill(delivery, "b", b"b1")
    first, other = take_all(delivery, 0)
    assert contents([first, other]) == [[b"a1"], [b"b1"]]
    assert delivery.wake_at() is None
    delivery.accepted(first, 1)
    assert contents(take_all(delivery, 1)) == [[b"a2"]]


def test_a_batch_carries_several_channels_and_at_most_so_many_events():
    delivery = queue(batch_size=3)
    fill(delivery, "a", b"a1", b"a2")
    fill(delivery, "b", b"b1", b"b2")
    fill(delivery, "c", b"c1")
    first, second = take_all(delivery, 0)
    assert first.events == [b"a1", b"a2", b"b1"]
    assert second.events == [b"c1"]
    delivery.accepted(first, 0)
    assert contents(take_all(delivery, 0)) == [[b"b2"]]


def test_a_batch_is_collected_for_a_moment():
    delivery = queue(batch_size=10, collect=0.05)
    fill(delivery, "a", b"a1", now=1.0)
    fill(delivery, "b", b"b1", now=1.04)
    assert delivery.wake_at() == 1.05
    assert delivery.take(1.04, 0) is None
    assert contents(take_all(delivery, 1.05)) == [[b"a1", b"b1"]]


def test_a_single_event_is_not_collected():
    delivery = queue(batch_size=1, collect=0.05)
    fill(delivery, "a", b"a1", now=1.0)
    assert delivery.wake_at() == 1.0


def test_a_request_is_repeated_unchanged_after_1_2_4_seconds_up_to_60_for_5_minutes():
    delivery = queue()
    fill(delivery, "a", b"a1")
    now, first, starts = 0.0, None, []
    while (wake := delivery.wake_at()) is not None:
        now = max(now, wake)
        hook = delivery.take(now, int(now * 1000) + 5)
        first = first or hook
        assert (hook.events, hook.time_ms) == (first.events, 5)
        starts.append(now)
        delivery.failed(hook, now, reached=True)
    assert starts == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert (delivery.waiting, delivery.dropped) == (0, 1)
    assert not delivery._channels


def test_the_wait_does_not_overflow():
    assert POLICY.wait(10_000) == 60


@pytest.mark.parametrize("batch_size", [1, 10])
def test_a_failing_channel_holds_up_its_own_events_alone(batch_size):
    delivery = queue(batch_size, down_after=100)
    fill(delivery, "a", b"a1")
    (hook,) = take_all(delivery, 0)
    delivery.failed(hook, 0, reached=True)
    fill(delivery, "a", b"a2")
    fill(delivery, "b", b"b1")
    (other,) = take_all(delivery, 0)
    assert other.events == [b"b1"]
    delivery.accepted(other, 0)
    (again,) = take_all(delivery, 1)
    assert again.events == [b"a1"]
    delivery.accepted(again, 1)
    assert contents(take_all(delivery, 1)) == [[b"a2"]]


def test_a_batch_that_the_receiver_judged_comes_apart_by_channel():
    delivery = queue(batch_size=10)
    fill(delivery, "a", b"a1", b"a2")
    fill(delivery, "b", b"b1")
    (hook,) = take_all(delivery, 0)
    delivery.failed(hook, 0, reached=True)
    first, second = take_all(delivery, 1)
    assert contents([first, second]) == [[b"a1", b"a2"], [b"b1"]]
    assert first.time_ms == second.time_ms == hook.time_ms
    delivery.accepted(second, 1)
    delivery.failed(first, 1, reached=True)
    assert delivery.wake_at() == 3


def test_a_batch_that_reached_nobody_stays_together():
    delivery = queue(batch_size=10)
    fill(delivery, "a", b"a1")
    fill(delivery, "b", b"b1")
    (hook,) = take_all(delivery, 0)
    delivery.failed(hook, 0, reached=False)
    assert contents(take_all(delivery, 1)) == [[b"a1", b"b1"]]


def test_so_many_requests_at_once():
    delivery = queue(concurrency=2)
    for channel in "abc":
        fill(delivery, channel, channel.encode())
    first, _ = take_all(delivery, 0)
    assert delivery.wake_at() is None
    delivery.accepted(first, 0)
    assert contents(take_all(delivery, 0)) == [[b"c"]]


def test_over_the_bound_the_newest_is_dropped():
    delivery = queue(max_events=2)
    assert delivery.add("a", b"a1", 0)
    assert delivery.add("a", b"a2", 0)
    assert not delivery.add("b", b"b1", 0)
    assert (delivery.waiting, delivery.dropped) == (2, 1)
    (hook,) = take_all(delivery, 0)
    assert not delivery.add("b", b"b1", 0)  # what is out still counts
    delivery.accepted(hook, 0)
    assert delivery.add("b", b"b1", 0)


def test_the_bound_in_bytes():
    delivery = queue(max_bytes=10)
    assert delivery.add("a", b"12345678", 0)
    assert not delivery.add("a", b"123", 0)
    assert delivery.add("a", b"12", 0)
    (hook,) = take_all(delivery, 0)
    delivery.accepted(hook, 0)
    assert delivery.add("a", b"12345678", 0)


def test_what_has_waited_too_long_behind_others_is_dropped():
    delivery = queue(give_up=10, longest_retry=4)
    fill(delivery, "a", b"a1", b"a2")
    fill(delivery, "a", b"a3", now=8)
    (hook,) = take_all(delivery, 0)
    delivery.accepted(hook, 11)
    assert contents(take_all(delivery, 11)) == [[b"a3"]]
    assert delivery.dropped == 1


def test_a_channel_whose_events_all_waited_too_long_is_forgotten():
    delivery = queue(give_up=10)
    fill(delivery, "a", b"a1")
    assert take_all(delivery, 11) == []
    assert (delivery.waiting, delivery.dropped, delivery._channels) == (0, 1, {})


def down(delivery, now):
    """Fail until the receiver counts as down."""
    for index in range(POLICY.down_after):
        fill(delivery, f"down-{index}", f"{index}".encode(), now=now)
    while hooks := take_all(delivery, now):
        for hook in hooks:
            delivery.failed(hook, now, reached=True)


def test_a_receiver_that_is_down_is_asked_once_a_second():
    delivery = queue()
    down(delivery, 0)
    assert delivery.wake_at() == 1
    assert len(take_all(delivery, 1)) == 1
    assert take_all(delivery, 1.9) == []
    assert len(take_all(delivery, 2)) == 1


def test_when_it_is_up_again_everything_is_repeated_at_once_and_in_order():
    delivery = queue(concurrency=100)
    down(delivery, 0)
    probe = delivery.take(5, 0)
    assert probe.events == [b"0"]
    delivery.accepted(probe, 5)
    assert contents(take_all(delivery, 5)) == [[f"{index}".encode()] for index in range(1, 10)]


def test_one_success_in_between_and_the_receiver_is_not_down():
    delivery = queue()
    fill(delivery, "ok", b"ok")
    (good,) = take_all(delivery, 0)
    for index in range(POLICY.down_after):
        fill(delivery, f"{index}", b"x")
        (hook,) = take_all(delivery, 0)
        delivery.failed(hook, 0, reached=True)
        if index == 5:
            delivery.accepted(good, 0)
    fill(delivery, "next", b"next")
    assert contents(take_all(delivery, 0)) == [[b"next"]]


def test_a_new_event_does_not_overtake_a_retry_that_was_due_before():
    delivery = queue()
    fill(delivery, "a", b"a1")
    (hook,) = take_all(delivery, 0)
    delivery.failed(hook, 0, reached=True)
    fill(delivery, "b", b"b1", now=1.5)
    assert contents(take_all(delivery, 2)) == [[b"a1"], [b"b1"]]


def test_what_is_abandoned_is_dropped():
    delivery = queue()
    fill(delivery, "a", b"a1", b"a2")
    take_all(delivery, 0)
    delivery.abandon()
    assert (delivery.waiting, delivery.dropped, delivery.wake_at()) == (0, 2, None)


class Receiver:
    """Sends whatever can be sent, ends requests as it is told, and remembers what was accepted."""

    def __init__(self, batch_size):
        self.delivery = queue(batch_size, give_up=30, concurrency=2, max_events=12, down_after=3)
        self.now = 0.0
        self.added = 0
        self.out = []
        self.accepted = defaultdict(list)

    def add(self, channel):
        self.added += 1
        self.delivery.add(channel, b"%d" % self.added, self.now)

    def end(self, how):
        if not self.out:
            return
        hook = self.out.pop(0)
        if how != "accepted":
            self.delivery.failed(hook, self.now, reached=how == "failed")
            return
        self.delivery.accepted(hook, self.now)
        for channel, part in hook.parts.items():
            self.accepted[channel] += [int(content) for content in part]

    def start(self):
        self.out += take_all(self.delivery, self.now)
        busy = [channel for hook in self.out for channel in hook.parts]
        assert len(busy) == len(set(busy)), "a channel in two requests at once"
        assert len(self.out) <= 2
        assert self.delivery.waiting <= 12

    def finish(self):
        while self.out or (wake := self.delivery.wake_at()) is not None:
            if not self.out:
                self.now = max(self.now, wake)
            self.end("accepted")
            self.start()


moves = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc")),
        st.tuples(st.just("end"), st.sampled_from(["accepted", "failed", "unreached"])),
        st.tuples(st.just("wait"), st.floats(0, 20)),
    ),
    max_size=60,
)


@settings(max_examples=amount(200, 5_000))
@given(moves, st.integers(1, 4))
def test_whatever_happens_order_is_kept_and_every_event_is_accounted_for(moves, batch_size):
    receiver = Receiver(batch_size)
    for move, value in moves:
        if move == "wait":
            receiver.now += value
        else:
            getattr(receiver, move)(value)
        receiver.start()
    receiver.finish()
    for channel, numbers in receiver.accepted.items():
        assert numbers == sorted(numbers), channel
    delivery = receiver.delivery
    assert delivery.waiting == delivery._bytes == 0
    assert sum(map(len, receiver.accepted.values())) + delivery.dropped == receiver.added
    assert not delivery._channels
