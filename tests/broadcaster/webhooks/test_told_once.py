"""Webhooks over two nodes whose Redis loses answers: who comes and goes is told each time, and once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.registry.codec import RegistryOwner
from legato.broadcaster.registry.redis import RedisRegistry
from legato.broadcaster.registry.writes import Batches
from legato.broadcaster.webhooks.dispatcher import Webhooks
from legato.protocol.apps import App, Webhook
from tests.broadcaster.registry.test_registry import ANN, BOB, NEWS, ROOM
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.tiers import amount
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from legato.broadcaster.channels.subscriber import Key
    from legato.broadcaster.registry.base import Joined, Left
    from legato.protocol.holdback import Gone
    from legato.protocol.presence import Member

    Place = tuple[Key, str]

APP = App(id="1", key="k", secret="s", webhooks=(Webhook(url="http://127.0.0.1:1/"),))
STEPS = 150
SOCKETS = 4
"""For each node."""

HOLD = 0.02
"""Seconds: some are back in that time, and some are not."""


class Record(Webhooks):
    """What would be sent."""

    def __init__(self, confirm) -> None:
        super().__init__([APP], confirm, hold_seconds=HOLD)
        self.told: Counter[tuple[str, str, str]] = Counter()

    def _add(self, _app_id, name, channel, **fields: Any) -> None:
        self.told[name, channel, fields.get("user_id", "")] += 1


class Node:
    """A registry and its webhooks, with what the node has between them."""

    def __init__(self, redis, name: str, chance: random.Random) -> None:
        self.webhooks = Record(self.confirm)
        self.registry = RedisRegistry(redis, name, RegistryOwner(lambda: None, lambda _: True, self.mine))
        self.registry._changes.batches = Unreliable(redis, chance)
        self.places: dict[Place, Member | None] = {}

    def mine(self):
        return [(*place, member) for place, member in self.places.items()]

    def confirm(self, departure: Gone, answer: Callable[[bool], None]) -> None:
        (_, channel), user_id = departure
        self.registry.release(NEWS._replace(channel=channel), user_id, answer)

    def join(self, key: Key, socket_id: str, member: Member | None) -> None:
        self.places[key, socket_id] = member

        def done(joined: Joined) -> None:
            if joined.first and not joined.back:
                self.webhooks.channel_occupied(*key)
            if member is not None and joined.first_of_user and not joined.user_back:
                self.webhooks.member_added(*key, member.id)

        self.registry.join(key, socket_id, member, 100, done)

    def leave(self, key: Key, socket_id: str, *, disconnect: bool) -> None:
        member = self.places.pop((key, socket_id))

        def done(left: Left) -> None:
            if member is not None and left.last_of_user:
                self.webhooks.member_removed(*key, member.id, disconnect=disconnect)
            if left.last:
                self.webhooks.channel_vacated(*key, disconnect=left.held)

        self.registry.leave(key, socket_id, member, done, disconnect=disconnect)


class Unreliable(Batches):
    """The connection breaks: before a pipeline is sent, in the middle, or before the answer."""

    def __init__(self, redis, chance: random.Random) -> None:
        super().__init__(redis)
        self._chance = chance
        self.on = True
        self.broken = 0

    async def _pipe(self, commands) -> list[Any]:
        if not self.on or self._chance.random() < 0.6:
            return await super()._pipe(commands)
        self.broken += 1
        await super()._pipe(commands[: self._chance.randint(0, len(commands))])
        raise ConnectionError


def move(node: Node, number: int, chance: random.Random) -> None:
    """One socket comes to a channel, or goes from it."""
    socket_id, user = f"{number}.{chance.randrange(SOCKETS)}", chance.choice([ANN, BOB])
    key = chance.choice([ROOM, NEWS])
    if (key, socket_id) in node.places:
        node.leave(key, socket_id, disconnect=chance.random() < 0.5)
    else:
        node.join(key, socket_id, user if key == ROOM else None)


async def quiet(nodes: list[Node]) -> None:
    """Nothing waits any more, and nothing is held back."""
    for node in nodes:
        node.registry._changes.batches.on = False
        await node.registry.flush()
        await until(lambda node=node: node.webhooks._departures.held.next_due is None)
        await node.registry.flush()


@contextlib.asynccontextmanager
async def two_nodes(chance: random.Random) -> AsyncIterator[list[Node]]:
    with RedisServer(BINARIES["valkey"]) as server:
        async with redis_client(server.url) as redis:
            nodes = [Node(redis, name, chance) for name in ("one", "two")]
            for node in nodes:
                await node.webhooks.start()
                await node.registry.start(lambda *_: None)
            try:
                yield nodes
            finally:
                for node in nodes:
                    node.registry._changes.batches.on = False
                    await node.registry.close()
                    await node.webhooks.close()


@pytest.mark.parametrize("key", [NEWS, ROOM])
@pytest.mark.parametrize("second", [0, 1])
async def test_who_unsubscribes_is_told_although_a_departure_before_is_still_held_back(second, key):
    """That one was undone by the return."""
    member = ANN if key == ROOM else None
    async with two_nodes(random.Random(0)) as nodes:
        for node in nodes:
            node.registry._changes.batches.on = False
            node.webhooks._departures.held.seconds = 3_600
        nodes[0].join(key, "1.1", member)
        nodes[0].leave(key, "1.1", disconnect=True)
        await nodes[0].registry.flush()
        for socket_id, number in (("1.2", second), ("1.3", 0)):
            nodes[number].join(key, socket_id, member)
            nodes[number].leave(key, socket_id, disconnect=False)
            await nodes[number].registry.flush()
        told = sum((node.webhooks.told for node in nodes), Counter())
        assert set(told.values()) == {2}
        assert len(told) == (2 if member is None else 4)


def broken(nodes) -> int:
    """How many pipelines have lost their answers."""
    return sum(node.registry._changes.batches.broken for node in nodes)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(amount(4, 50)))
async def test_each_coming_and_going_is_told_once(seed, monkeypatch):
    monkeypatch.setattr("legato.protocol.redis.retry.seconds", lambda *_: 0.001)
    chance = random.Random(seed)
    async with two_nodes(chance) as nodes:
        steps = 0
        while steps < STEPS or broken(nodes) <= STEPS / 10:  # a slow machine sends more changes at a time
            assert steps < 10 * STEPS, "hardly any answer was lost"
            steps += 1
            number = chance.randrange(2)
            move(nodes[number], number, chance)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0, 0.002, HOLD]))
        await quiet(nodes)
        told = sum((node.webhooks.told for node in nodes), Counter())
        there = [place for node in nodes for place in node.places.items()]
    channels = {key.channel for (key, _), _ in there}
    users = {member.id for _, member in there if member is not None}
    for channel in (NEWS.channel, ROOM.channel):
        comings, goings = told["channel_occupied", channel, ""], told["channel_vacated", channel, ""]
        assert comings - goings == (channel in channels)
    for user in (ANN.id, BOB.id):
        comings, goings = (told[name, ROOM.channel, user] for name in ("member_added", "member_removed"))
        assert comings - goings == (user in users)
