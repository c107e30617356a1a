"""Nodes as processes over a real Redis: killed, stopped, cut off; Redis with and without its data.

One after another on the same nodes, since starting them and waiting for leases is what takes the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from legato.protocol import signatures, wire
from tests.broadcaster.api.test_http_api import call, signed
from tests.broadcaster.conftest import APP, Client, client, dial
from tests.broadcaster.test_server import ENVIRON, Process, legato
from tests.broadcaster.webhooks.webhook_receiver import Receiver
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

ROOM = "presence-room"

LEASE = 5
"""Seconds; longer than any stall of the machine."""

CONFIG = """
[server]
port = 0
drain_seconds = 0
lease_seconds = {lease}

[redis]
url = "{redis}"

[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
max_connections = 4
webhooks = [{{ url = "{hooks}", events = [
  "channel_occupied", "channel_vacated", "member_added", "member_removed"] }}]
"""


class Node:
    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    def send(self, number: signal.Signals) -> None:
        self.process.process.send_signal(number)

    async def get(self, path: str) -> Any:
        status, answer = await call(self.port, signed(path, b"", method="GET"), method="GET")
        assert status == 200, answer
        return answer

    async def members(self) -> set[str]:
        """The members of the room, by the HTTP API."""
        return {one["id"] for one in (await self.get(f"/apps/1/channels/{ROOM}/users"))["users"]}


@contextlib.asynccontextmanager
async def node(config: Path) -> AsyncIterator[Node]:
    environ = {name: value for name, value in ENVIRON.items() if not name.startswith("REVERB_")}
    environ.pop("LEGATO_SERVER_DRAIN_SECONDS")
    async with legato("broadcaster", "--config", str(config), environ=environ) as process:
        yield Node(process, int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1]))


class Person:
    """A client that records everything it receives."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.told: list[dict[str, Any]] = []
        self._listening = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self.client.connection:
                self.told.append(json.loads(message))

    async def hears(self, event: str) -> dict[str, Any]:
        """The first event with this name, received or still to come."""
        await until(lambda: any(one["event"] == event for one in self.told))
        return next(one for one in self.told if one["event"] == event)

    def moves(self) -> list[tuple[str, str]]:
        """The joins and departures in order."""
        return [
            (one["event"].removeprefix("pusher_internal:member_"), json.loads(one["data"])["user_id"])
            for one in self.told
            if one["event"].startswith("pusher_internal:member_")
        ]

    async def join(self) -> set[str]:
        """Join the room. Returns its members."""
        data = json.dumps({"user_id": self.name})
        auth = signatures.sign_channel(APP.key, APP.secret, self.client.socket_id, ROOM, data)
        await self.client.send("pusher:subscribe", {"channel": ROOM, "auth": auth, "channel_data": data})
        answer = await self.hears("pusher_internal:subscription_succeeded")
        return set(json.loads(answer["data"])["presence"]["ids"])

    async def subscribe(self) -> None:
        """A channel of this client alone."""
        channel = f"private-{self.name}"
        auth = signatures.sign_channel(APP.key, APP.secret, self.client.socket_id, channel)
        await self.client.send("pusher:subscribe", {"channel": channel, "auth": auth})

    async def sign_in(self, *watchlist: str) -> None:
        data = json.dumps({"id": self.name, "watchlist": watchlist})
        text = signatures.user_text(self.client.socket_id, data)
        auth = f"{APP.key}:{signatures.sign(APP.secret, text)}"
        await self.client.send("pusher:signin", {"auth": auth, "user_data": data})
        await self.hears("pusher:signin_success")

    def online(self) -> list[tuple[str, list[str]]]:
        """The events of the watchlist in order."""
        said = [one for one in self.told if one["event"] == "pusher_internal:watchlist_events"]
        return [
            (event["name"], event["user_ids"]) for one in said for event in json.loads(one["data"])["events"]
        ]


def is_equal(ask: Callable[[], Awaitable[Any]], expected: Any) -> Callable[[], Any]:
    async def asked() -> bool:
        try:
            return await ask() == expected
        except AssertionError:  # not a 200
            return False

    return asked


class Stage:
    """Nodes, clients, a webhook receiver and Redis."""

    def __init__(self, redis_server: RedisServer, hooks: Receiver, stack: contextlib.AsyncExitStack) -> None:
        self.server = redis_server
        self.redis = Redis.from_url(redis_server.url)
        self.hooks = hooks
        self._stack = stack

    async def enter(self, at: Node, name: str) -> Person:
        """Connect one more client, in the room and on a channel of its own."""
        person = Person(await self._stack.enter_async_context(client(at.port)), name)
        await person.join()
        await person.subscribe()
        channel = f"private-{name}"
        await until(lambda: any(one.get("channel") == channel for one in person.told))
        return person

    async def lets_in(self, *nodes: Node) -> int:
        """The number of connections left in the quota, over all nodes."""
        async with contextlib.AsyncExitStack() as stack:
            for number in range(10):
                one = await stack.enter_async_context(dial(nodes[number % len(nodes)].port))
                if (await one.receive())["event"] == "pusher:error":
                    return number
        raise AssertionError("there is no quota")

    def webhooks(self) -> Counter[str]:
        """The webhook events received, with their counts."""
        names = (
            " ".join(str(event[key]) for key in ("name", "channel", "user_id") if key in event)
            for event in self.hooks.events
        )
        return Counter(names)

    async def told(self, *expected: str) -> None:
        """Assert that these events were received once, and none twice."""
        await until(lambda: set(expected) <= self.webhooks().keys())
        assert set(self.webhooks().values()) == {1}, self.webhooks()

    async def has_taken_back(self, nodes: int) -> None:
        """Assert that exactly this many nodes are listed, and that only they have entries."""

        async def only_these() -> bool:
            names = {name.decode() for name in await self.redis.smembers(wire.NODES_KEY)}
            listed = {key.decode() async for key in self.redis.scan_iter("legato:entries:*")}
            return len(names) == nodes and listed <= {wire.entries_key(name) for name in names}

        await until(only_these)


async def test_many_nodes_act_as_one_whatever_fails(tmp_path: Path) -> None:
    hooks = Receiver()
    async with contextlib.AsyncExitStack() as stack:
        redis_server = stack.enter_context(RedisServer(BINARIES["valkey"]))
        await stack.enter_async_context(hooks.listening())
        config = tmp_path / "legato.toml"
        config.write_text(CONFIG.format(redis=redis_server.url, hooks=hooks.url, lease=LEASE))
        nodes = [await stack.enter_async_context(node(config)) for _ in range(3)]
        stage = Stage(redis_server, hooks, stack)
        stack.push_async_callback(stage.redis.aclose)
        bob = await a_killed_node_takes_nothing_with_it(stage, *nodes)
        await a_stopped_node_starts_anew(stage, bob, *nodes[1:])
        await redis_loses_its_connections_and_its_data(stage, *nodes[1:])


async def a_killed_node_takes_nothing_with_it(stage: Stage, first: Node, second: Node, third: Node) -> Person:
    """Two nodes notice it at once. Each departure is announced once. Returns a client of the second."""
    ann, bob, cyd = [
        await stage.enter(at, name) for at, name in ((first, "ann"), (second, "bob"), (third, "cyd"))
    ]
    await ann.sign_in()
    await cyd.sign_in("ann")
    await until(lambda: cyd.online()[-1:] == [("online", ["ann"])])
    assert await stage.lets_in(second, third) == 1
    first.send(signal.SIGKILL)
    for person in (bob, cyd):
        await until(lambda person=person: ("removed", "ann") in person.moves())
        assert person.moves().count(("removed", "ann")) == 1
    await until(lambda: cyd.online()[-1:] == [("offline", ["ann"])])
    assert cyd.online().count(("offline", ["ann"])) == 1
    await stage.told(f"member_removed {ROOM} ann", "channel_vacated private-ann")
    await stage.has_taken_back(nodes=2)
    assert await second.members() == {"bob", "cyd"}
    assert await stage.lets_in(second, third) == 2
    return bob


async def a_stopped_node_starts_anew(stage: Stage, bob: Person, second: Node, third: Node) -> None:
    """Entries that the others have removed while the node was stopped do not return with it."""
    second.send(signal.SIGSTOP)
    await stage.told(f"member_removed {ROOM} bob", "channel_vacated private-bob")
    second.send(signal.SIGCONT)
    await second.process.line("have declared this node dead")
    assert (await bob.hears("pusher:error"))["data"]["code"] == 4100
    await stage.has_taken_back(nodes=2)
    assert await second.members() == {"cyd"}
    dan = await stage.enter(second, "dan")
    assert await third.members() == {"cyd", "dan"}
    assert dan.moves() == []
    await stage.told("channel_occupied private-dan", f"member_added {ROOM} dan")


async def redis_loses_its_connections_and_its_data(stage: Stage, second: Node, third: Node) -> None:
    """No join or departure is announced, since there was none."""
    before = stage.webhooks()
    lapsed = second.process.output.count("declared this node dead")
    await stage.redis.client_kill_filter(_type="normal", skipme=True)
    await stage.redis.client_pause(1000)
    assert await second.members() == {"cyd", "dan"}

    stage.server.kill()
    stage.server.start()
    for node in (second, third):
        await until(is_equal(node.members, {"cyd", "dan"}))
    channels = {"channels": {ROOM: {}, "private-cyd": {}, "private-dan": {}}}
    await until(is_equal(lambda: third.get("/apps/1/channels"), channels))

    # A snapshot from before eve came.
    await stage.redis.save()
    eve = await stage.enter(third, "eve")
    stage.server.kill()
    stage.server.start()
    for node in (second, third):
        await until(is_equal(node.members, {"cyd", "dan", "eve"}))
    await eve.client.connection.close()
    await stage.told(f"member_removed {ROOM} eve", "channel_vacated private-eve")
    eves = {name for name in stage.webhooks() if name.endswith("eve")}
    assert stage.webhooks().keys() - eves == before.keys()
    await stage.has_taken_back(nodes=2)
    assert second.process.output.count("declared this node dead") == lapsed
