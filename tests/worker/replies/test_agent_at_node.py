"""An agent's reply from the worker to a browser: approved over HTTP, missed in a gap, and read afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from legato.benchmarks.chaos.proxy import ProxyLink
from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth
from legato.protocol import wire
from legato.protocol.settings import Redis as RedisSettings
from legato.worker.replies.runner import Outcome
from tests.broadcaster.api.test_chat import SECRET, call
from tests.broadcaster.conftest import local_settings
from tests.broadcaster.replies.test_healing import away, synced, told
from tests.broadcaster.replies.test_healing import reader as subscribed
from tests.waiting import until
from tests.worker.replies.test_agent_writer import QUEUE, AgentStage, script
from tests.worker.support import Ears

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from legato.worker.agents import Agent
    from legato.worker.store.conversations import Store
    from tests.broadcaster.conftest import Client

WORDS = (
    'reason=3 tokens=2 tool=weather:{"city":"Oslo"} tool=pay:{"amount":5} '
    "reason=2 tokens=2 cite=https://example.org tokens=1"
)


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[ProxyLink]:
    """A link between the node and Redis that the test can cut."""
    path = redis_url.removeprefix("unix://")
    link = ProxyLink(lambda: asyncio.open_unix_connection(path))
    await link.start()
    yield link
    await link.close()


@pytest.fixture
async def server(link: ProxyLink) -> AsyncIterator[Any]:
    url = f"redis://127.0.0.1:{link.port}"
    async with running(local_settings(redis=RedisSettings(url=url), auth=Auth(jwt_secret=SECRET))) as started:
        yield started


@pytest.fixture
def stage(redis: Redis, store: Store) -> AgentStage:
    return AgentStage(redis, store)


@pytest.fixture
def agent(stage: AgentStage) -> Agent:
    return stage.agent(
        stage.world.tools(needs_approval=True), show_reasoning=True, show_tools="output", stream_inputs=True
    )


async def receives(client: Client, events: Sequence[tuple[str, Any]]) -> None:
    """Assert that these events arrive next."""
    assert [told(await client.receive()) for _ in events] == list(events)


@contextlib.asynccontextmanager
async def heard(stage: AgentStage, agent: Agent, outcome: Outcome, ticket: str) -> AsyncIterator[list[Any]]:
    """Run the reply once, and give what it has published."""
    job = script(WORDS, "m")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(agent, job, ticket=ticket) is outcome
        yield await ears.all()


async def approve(server: Any, events: Sequence[tuple[str, Any]], status: int = 200) -> Any:
    """Approve the call that the events announce."""
    (one,) = [data["call"] for event, data in events if event == "tool.approval_requested"]
    answer = await call(server, "POST", f"/api/chat/m/tools/{one}", {"approve": True})
    assert answer[0] == status
    return answer[1]


async def queued(stage: AgentStage) -> int:
    return int(await stage.redis.xlen(wire.jobs_key(QUEUE)))


async def test_a_call_is_approved_over_http_and_the_reply_goes_on(
    server: Any, stage: AgentStage, agent: Agent
) -> None:
    async with subscribed(server) as ann:
        await synced(server)
        async with heard(stage, agent, Outcome.WAITING, "1") as before:
            await receives(ann, before)
        assert {"reasoning.received", "tool.started", "tool.input_received"} <= {event for event, _ in before}
        _, answer = await call(server, "GET", "/api/chat/m")
        assert answer["status"] == "waiting"
        async with subscribed(server) as bob:
            event, snapshot = told(await bob.receive())
            assert (event, snapshot["status"]) == ("stream.snapshot", "waiting")
            shared = ("text", "nextIndex", "offset", "parts")
            assert {name: snapshot[name] for name in shared} == {name: answer[name] for name in shared}
            assert await queued(stage) == 0
            await approve(server, before)
            assert await queued(stage) == 1
            async with heard(stage, agent, Outcome.DONE, "2") as after:
                await receives(ann, after)
                await receives(bob, after)
    assert stage.world.effects.total() == 1
    _, answer = await call(server, "GET", "/api/chat/m")
    assert answer["status"] == "complete"
    tokens = [data["token"] for event, data in (*before, *after) if event == "token.received"]
    assert answer["tokens"] == tokens
    assert dict(after)["stream.completed"]["totalTokens"] == len(tokens) < answer["offset"]
    finished = [part for part in answer["parts"] if part["event"] == "tool.finished"]
    assert [part["output"] for part in finished] == [{"city": "Oslo", "degrees": 7}, "paid 5"]
    assert await approve(server, before, status=409) == {"message": "This message has ended."}


async def test_what_a_node_misses_of_it_is_healed_as_it_was_published(
    server: Any, link: ProxyLink, stage: AgentStage, agent: Agent
) -> None:
    async with subscribed(server) as ann:
        await synced(server)
        async with heard(stage, agent, Outcome.WAITING, "1") as before:
            await receives(ann, before)
        await approve(server, before)
        await away(server, link)
        async with heard(stage, agent, Outcome.DONE, "2") as after:
            link.heal()
            await receives(ann, [event for event in after if event[0] != "stream.started"])
    assert server.node.healer.failed == 0


async def test_a_waiting_reply_that_is_cancelled_ends(server: Any, stage: AgentStage, agent: Agent) -> None:
    async with subscribed(server) as ann:
        await synced(server)
        async with heard(stage, agent, Outcome.WAITING, "1") as before:
            await receives(ann, before)
        assert (await call(server, "POST", "/api/chat/m/cancel"))[0] == 200
        assert await queued(stage) == 1
        async with heard(stage, agent, Outcome.DONE, "2") as after:
            await receives(ann, after)
    assert after[-1][0] == "stream.cancelled"
    assert not stage.world.effects
    assert server.node.healer.failed == 0


async def test_a_call_that_nobody_approves_in_time_is_decided_for_good(
    server: Any, stage: AgentStage, agent: Agent
) -> None:
    """Nobody can approve it afterwards, and a later call does not wait for it."""
    hasty = stage.agent(stage.world.tools(needs_approval=True, approval_seconds=1))
    job = script('tool=pay:{"amount":5} tokens=1 tool=pay:{"amount":6} tokens=1', "m")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(hasty, job, ticket="1") is Outcome.WAITING
        (first,) = [data for event, data in await ears.all() if event == "tool.approval_requested"]
        await until(lambda: time.time() > first["expiresAt"])
        assert await stage.answer(agent, job, ticket="2") is Outcome.WAITING
        *_, second = [data for event, data in await ears.all() if event == "tool.approval_requested"]
    assert second["call"] != first["call"]
    body = {"approve": True}
    assert (await call(server, "POST", f"/api/chat/m/tools/{first['call']}", body))[0] == 409
    assert (await call(server, "POST", f"/api/chat/m/tools/{second['call']}", body))[0] == 200
    assert await queued(stage) == 1
    assert await stage.answer(agent, job, ticket="3") is Outcome.DONE
    assert stage.world.effects == {second["call"]: 1}
