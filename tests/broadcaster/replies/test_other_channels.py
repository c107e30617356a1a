"""Replies on channels other than the users' own: what a node heals, with and without ``chat.channels``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat
from legato.protocol import wire
from legato.protocol.jobs import Job
from legato.protocol.settings import Redis
from legato.worker.replies.log import TokenLog
from legato.worker.replies.reply import Decision, Reply, encode_decision
from tests.broadcaster.conftest import client, local_settings
from tests.broadcaster.replies.test_healing import away
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.broadcaster.conftest import Client
    from tests.broadcaster.replies.conftest import ProxyLink

TEAM = "private-team.red"


@pytest.fixture
def chat() -> Chat:
    return Chat()


@pytest.fixture
async def server(link: ProxyLink, chat: Chat) -> AsyncIterator[Any]:
    url = f"redis://127.0.0.1:{link.port}"
    async with running(
        local_settings(redis=Redis(url=url), auth=Auth(jwt_secret="s" * 32), chat=chat)
    ) as one:
        yield one


class TeamWriter:
    """A worker with one reply on the team's channel."""

    def __init__(self, redis: Any) -> None:
        self.job = Job("m", "1", 7, "Hello", 1, reply_channel=TEAM)
        self.log = TokenLog(redis, tries=9, retention=3600).open(self.job, "claim")

    async def begin(self) -> TeamWriter:
        self.reply = Reply(self.job, await self.log.claim(), model="puppet")
        return self

    async def says(self, text: str, *, heard: bool = True) -> None:
        bus = self.log._bus
        self.log._bus = bus if heard else f"{wire.bus_channel('1', TEAM)}:nowhere"
        await self.log.append(self.reply.tokens(text))
        self.log._bus = bus

    async def ends(self) -> None:
        decision = Decision("end_turn", model="puppet")
        await self.log.decide(encode_decision(decision))
        frame, error = self.reply.terminal(decision)
        await self.log.finish(decision.state, frame, error)


async def heard(one: Client, *expected: tuple[str, Any]) -> None:
    """Assert that exactly these events arrive: their name, and their token or its number."""
    for name, value in expected:
        message = await one.receive()
        data = json.loads(message["data"])
        told = data["token"] if name == "token.received" else data.get("totalTokens", data.get("text"))
        assert (message["event"], message["channel"], told) == (name, TEAM, value)
    await one.send("pusher:ping")
    assert (await one.receive())["event"] == "pusher:pong"


async def test_a_lost_token_is_healed_on_any_channel(server, redis):
    async with client(server.port) as ann:
        await ann.subscribe(TEAM)
        writer = await TeamWriter(redis).begin()
        await writer.says("a")
        await heard(ann, ("token.received", "a"))
        await writer.says("b", heard=False)
        await writer.says("c")
        await writer.ends()
        await heard(ann, ("token.received", "b"), ("token.received", "c"), ("stream.completed", 3))
    assert server.node.healer.tokens >= 1


async def test_a_late_subscriber_of_a_channel_that_is_not_listed_hears_the_rest(server, redis):
    writer = await TeamWriter(redis).begin()
    await writer.says("a")
    async with client(server.port) as ann:
        await ann.subscribe(TEAM)
        await writer.says("b")
        await heard(ann, ("token.received", "b"))


class TestListed:
    @pytest.fixture
    def chat(self) -> Chat:
        return Chat(channels=("private-team.*",))

    async def test_a_late_subscriber_gets_a_snapshot_and_the_rest(self, server, redis):
        writer = await TeamWriter(redis).begin()
        await writer.says("a")
        async with client(server.port) as ann:
            await ann.subscribe(TEAM)
            await heard(ann, ("stream.snapshot", "a"))
            await writer.says("b")
            await heard(ann, ("token.received", "b"))

    async def test_a_reply_that_began_and_ended_in_a_gap_is_found(self, server, link, redis):
        async with client(server.port) as ann:
            await ann.subscribe(TEAM)
            await until(lambda: all(channel.synced for channel in server.node.healer._channels.values()))
            await away(server, link)
            writer = await TeamWriter(redis).begin()
            await writer.says("a")
            await writer.ends()
            link.heal()
            await heard(ann, ("token.received", "a"), ("stream.completed", 1))
