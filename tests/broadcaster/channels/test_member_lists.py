"""Member lists after a gap of the bus: those who stayed get a correct list again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from legato.broadcaster.channels.delivery import Delivery
from legato.broadcaster.channels.kinds import ChannelKinds
from legato.broadcaster.channels.presence import MemberLists
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.composition import running
from legato.broadcaster.registry.base import added_envelope, removed_envelope
from legato.broadcaster.registry.queries import RegistryQueries
from legato.protocol import signatures
from legato.protocol.presence import Member
from legato.protocol.settings import Redis
from legato.protocol.wire import Envelope
from tests.broadcaster.conftest import APP, Client, client, local_settings
from tests.broadcaster.replies.conftest import link, server  # noqa: F401 - fixtures
from tests.broadcaster.replies.test_healing import away
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

ROOM = "presence-room"
KEY = Key("1", ROOM)


class Guest:
    """A client that maintains the member list as the SDKs do."""

    def __init__(self, one: Client) -> None:
        self.one = one
        self.users: set[str] = set()
        self.lists = 0

    async def join(self, user: str) -> None:
        data = json.dumps({"user_id": user, "user_info": {"name": user.upper()}})
        auth = signatures.sign_channel(APP.key, APP.secret, self.one.socket_id, ROOM, data)
        await self.one.send("pusher:subscribe", {"channel": ROOM, "auth": auth, "channel_data": data})
        await self.hear()

    async def hear(self) -> None:
        message = await self.one.receive()
        data = json.loads(message["data"])
        match message["event"].removeprefix("pusher_internal:"):
            case "subscription_succeeded":
                self.users = set(data["presence"]["ids"])
                assert data["presence"]["hash"] == {user: {"name": user.upper()} for user in self.users}
                self.lists += 1
            case "member_added":
                self.users.add(data["user_id"])
            case "member_removed":
                self.users.discard(data["user_id"])

    async def sees(self, *users: str) -> None:
        while self.users != set(users):
            await self.hear()

    async def hears_nothing(self) -> None:
        await self.one.send("pusher:ping")
        assert (await self.one.receive())["event"] == "pusher:pong"


@contextlib.asynccontextmanager
async def guest(port: int, user: str) -> AsyncIterator[Guest]:
    async with client(port) as one:
        made = Guest(one)
        await made.join(user)
        yield made


async def test_joins_and_departures_missed_in_a_gap_are_known_afterwards(server, link, valkey_url):  # noqa: F811
    """Once for all subscribers that stayed, whether or not they are the first of their user."""
    async with contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(running(local_settings(redis=Redis(url=valkey_url))))
        ann = await stack.enter_async_context(guest(server.port, "ann"))
        again = await stack.enter_async_context(guest(server.port, "ann"))
        async with guest(other.port, "bob"):
            for one in (ann, again):
                await one.sees("ann", "bob")
            await away(server, link)
        cyd = await stack.enter_async_context(guest(other.port, "cyd"))
        await until(lambda: other.node.connections.by_app["1"] == 1)
        await cyd.sees("ann", "cyd")
        link.heal()
        for one in (ann, again):
            await one.sees("ann", "cyd")
        assert (server.node.member_lists.told, other.node.member_lists.told) == (1, 0)
        dan = await stack.enter_async_context(guest(other.port, "dan"))
        for one in (ann, again, cyd, dan):
            await one.sees("ann", "cyd", "dan")
            await one.hears_nothing()
        assert (ann.lists, again.lists, cyd.lists) == (2, 2, 1)
    assert not server.node.member_lists._reading


class Slow(RegistryQueries):
    """A registry that answers with the list when the test says so."""

    def __init__(self, members: list[Member]) -> None:
        self.members_then = members
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def member_lists(self, keys: Any) -> list[list[Member]]:
        self.asked.set()
        await self.answer.wait()
        return [self.members_then for _ in keys]


class Heard:
    """A hub that records deliveries."""

    def __init__(self, *unanswered: str) -> None:
        self.heard: list[tuple[bytes, str | None]] = []
        self.nor: list[set[str]] = []
        self._unanswered = unanswered

    def unanswered(self, key: Key) -> list[Any]:
        assert key == KEY
        return [SimpleNamespace(socket_id=one) for one in self._unanswered]

    def deliver(
        self, key: Key, payload: bytes, except_socket_id: str | None = None, nor: Collection[str] = ()
    ) -> None:
        if key == KEY:
            self.heard.append((payload, except_socket_id))
            self.nor.append(set(nor))


@pytest.mark.parametrize("other", [Envelope(b'{"event":"news"}'), None])
async def test_changes_during_the_read_of_a_list_follow_it(other):
    """Otherwise a member that left meanwhile would stay in the list for ever."""
    registry, hub = Slow([Member("ann"), Member("bob")]), Heard()
    member_lists = MemberLists(registry, hub)  # type: ignore[arg-type]
    kinds = ChannelKinds(None, Mock(), member_lists)
    delivery = Delivery(hub, kinds, Mock(), Mock(), Mock())  # type: ignore[arg-type]
    gone, come = removed_envelope(KEY, "2.2", Member("bob")), added_envelope(KEY, "3.3", Member("cyd"))
    delivery.deliver(KEY, come)  # before it is read: it is in the list, or was undone
    task = asyncio.create_task(member_lists.tell_again([KEY]))
    await registry.asked.wait()
    for envelope in (gone, come) if other is None else (gone, other, come):
        delivery.deliver(KEY, envelope)
    delivery.deliver(Key("1", "presence-other"), come)
    registry.answer.set()
    await task
    live, (roster, nobody), *behind = [*hub.heard[:1], *hub.heard[-3:]]
    assert live == (come.payload, "3.3")
    assert json.loads(json.loads(roster)["data"])["presence"]["ids"] == ["ann", "bob"]
    assert nobody is None
    assert behind == [(gone.payload, "2.2"), (come.payload, "3.3")]
    assert not member_lists._reading


async def test_no_user_gets_its_own_member_removed():
    """A user that returns at once on another node may get its departure after its answer."""
    async with running(local_settings()) as alone, guest(alone.port, "bob") as bob:
        for _ in range(2):
            async with guest(alone.port, "ann") as ann:
                await bob.sees("ann", "bob")
                for event in (removed_envelope, added_envelope):
                    alone.node.delivery.deliver(KEY, event(KEY, "9.9", Member("ann")))
                    if event is removed_envelope:
                        await bob.sees("bob")
                await bob.sees("ann", "bob")
                await ann.hear()  # only that ann has come, from elsewhere
                assert ann.users == {"ann", "bob"}
                await ann.hears_nothing()
            await bob.sees("bob")
            await until(lambda: list(alone.node.member_lists._sockets) == [(KEY, "bob")])


async def test_a_subscriber_answered_during_the_read_does_not_get_the_list():
    """The list may be older than the answer and lack this subscriber."""
    registry, hub = Slow([Member("ann")]), Heard("2.2")
    member_lists = MemberLists(registry, hub)  # type: ignore[arg-type]
    member_lists.came(KEY, Member("ann"), "1.1")
    member_lists.came(KEY, Member("bob"), "2.2")
    task = asyncio.create_task(member_lists.tell_again([KEY]))
    await registry.asked.wait()
    member_lists.came(KEY, Member("cyd"), "3.3")
    gone = removed_envelope(KEY, "4.4", Member("dan"))
    member_lists.take(KEY, gone)
    registry.answer.set()
    await task
    member_lists.take(KEY, gone)
    assert hub.nor == [set(), {"2.2", "3.3"}, {"2.2", "3.3"}, set()]


async def test_a_subscriber_that_waits_for_the_bus_gets_no_older_list(server, link, valkey_url):  # noqa: F811
    """When the bus is back, the list is read and the subscriber is registered at the same time."""
    async with contextlib.AsyncExitStack() as stack:
        ann = await stack.enter_async_context(guest(server.port, "ann"))
        registry, asked, go_on = server.node.registry, asyncio.Event(), asyncio.Event()
        read, join = registry.member_lists, registry.join

        async def slowly(keys: Any) -> Any:
            found = await read(keys)
            asked.set()
            await go_on.wait()
            return found

        async def behind(*arguments: Any) -> None:
            await asked.wait()
            join(*arguments)

        await away(server, link)
        one = await stack.enter_async_context(client(server.port))
        bob = Guest(one)
        joining = asyncio.create_task(bob.join("bob"))
        await until(lambda: bool(server.node.hub.unanswered(KEY)))
        registry.member_lists = slowly
        registry.join = lambda *arguments: server.node.background.spawn(behind(*arguments))
        link.heal()
        await joining
        go_on.set()
        await ann.sees("ann", "bob")
        await until(lambda: server.node.member_lists.told == 1)
        await bob.hears_nothing()
        assert bob.users == {"ann", "bob"}
        assert bob.lists == 1
