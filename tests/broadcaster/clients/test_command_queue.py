"""The command queue by itself, without a client."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.clients.command_queue import Order
from legato.protocol.session import Send

A, B, C = (Key("1", name) for name in "abc")
PONG = Send(b"pong")


class Client:
    """Processes subscriptions and other effects, and records the answers."""

    def __init__(self) -> None:
        self.order = Order()
        self.under_way: list[Key] = []
        self.answered: list[int] = []
        self.numbers: dict[Key, int] = {}
        self.asked: list[tuple[int, Key | None]] = []

    def ask(self, key: Key | None) -> None:
        number = len(self.asked)
        self.asked.append((number, key))
        if self.order.takes(key):
            self.run(number, key)
        else:
            self.order.defer(key, Send(str(number).encode()), 1)

    def run(self, number: int, key: Key | None) -> None:
        if key is None:
            self.answered.append(number)
        else:
            self.numbers[key] = number
            self.under_way.append(key)
            self.order.begin(key)

    def settle(self, key: Key) -> None:
        self.under_way.remove(key)
        number = self.numbers[key]
        self.order.settle(key, lambda: self.answered.append(number))
        while (effect := self.order.next()) is not None:
            number, key = self.asked[int(effect.payload)]
            self.run(number, key)


def test_subscriptions_run_concurrently_and_are_answered_in_order():
    client = Client()
    for key in (A, B, C):
        client.ask(key)
    assert client.under_way == [A, B, C]
    client.settle(C)
    client.settle(A)
    assert client.answered == [0]
    client.settle(B)
    assert client.answered == [0, 1, 2]


def test_other_commands_wait_for_earlier_subscriptions_and_block_later_ones():
    client = Client()
    for key in (A, None, B):
        client.ask(key)
    assert (client.under_way, client.answered) == ([A], [])
    client.settle(A)
    assert (client.under_way, client.answered) == ([B], [0, 1])


def test_a_second_subscription_to_a_channel_waits_for_the_first():
    client = Client()
    client.ask(A)
    client.ask(A)
    assert client.under_way == [A]
    client.settle(A)
    assert client.under_way == [A]


def test_waiting_bytes_are_counted_until_the_queue_is_empty():
    order = Order()
    order.begin(A)
    order.defer(None, PONG, 1000)
    order.defer(None, PONG, 1000)
    assert order.waiting_bytes > 2000
    order.settle(A, lambda: None)
    assert order.next() is PONG
    assert order.waiting_bytes > 2000
    assert order.next() is PONG
    assert (order.waiting_bytes, order.next()) == (0, None)


def test_clear_forgets_everything():
    order = Order()
    order.begin(A)
    order.begin(B)
    order.defer(None, PONG, 1)
    answered = []
    order.settle(B, lambda: answered.append(B))
    order.settle(A, order.clear)  # its answer closes the client
    order.settle(B, lambda: answered.append(B))
    assert (answered, order.next(), order.waiting_bytes) == ([], None, 0)


@given(
    asked=st.lists(st.sampled_from([A, B, C, None]), max_size=20),
    choices=st.lists(st.integers(0, 100), max_size=60),
)
def test_all_commands_run_once_and_in_order_whatever_settles_when(asked, choices):
    client, waiting = Client(), list(asked)
    picks = iter(choices)
    while waiting or client.under_way:
        pick = next(picks, 0)
        if waiting and (pick % 2 or not client.under_way):
            client.ask(waiting.pop(0))
        else:
            client.settle(client.under_way[pick % len(client.under_way)])
    assert client.answered == list(range(len(asked)))
