"""An agent's reply with the providers of real models, each in front of a server that answers as told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from legato.worker.providers.openai_compatible import ModelServer, OpenAiCompatible
from legato.worker.replies.runner import Outcome
from legato.worker.replies.stop import Control
from tests.worker.providers import anthropic_streams as claude
from tests.worker.providers import chat_completions as chat
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.providers.sse_server import SseServer
from tests.worker.replies.test_agent_writer import AgentStage, data_of, offsets_are_whole
from tests.worker.support import Ears, make_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from legato.worker.providers import base
    from legato.worker.store.conversations import Store

OSLO = '{"city":"Oslo"}'


@pytest.fixture
def stage(redis: Redis, store: Store) -> AgentStage:
    return AgentStage(redis, store)


class Service(NamedTuple):
    """A model's API: a step that reasons and calls ``weather``, one that breaks off, and the rest of it."""

    make: Callable[[str], base.Provider]
    calling: list[sse.Step]
    cut: list[sse.Step]
    rest: list[sse.Step]


def anthropic() -> Service:
    call = claude.call(1, OSLO[:4], OSLO[4:], type="tool_use", id="toolu_1", name="weather")
    return Service(
        lambda url: anthropic_provider(api_key="key", model="m", max_tokens=9, base_url=url),
        sse.answer(*claude.thinking(0, "Hm, ", "so."), *call, reason="tool_use"),
        [sse.STREAM, sse.START, sse.BLOCK, sse.text("It has 7 degrees"), sse.ABORT],
        sse.whole("It has 7 degrees", " there."),
    )


def openai_compatible() -> Service:
    thoughts = [chat.data(chat.piece({"reasoning": piece})) for piece in ("Hm, ", "so.")]
    pieces = [
        chat.data(chat.piece({"tool_calls": [{"index": 0, **fields}]}))
        for fields in (
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": OSLO[:4]}},
            {"function": {"arguments": OSLO[4:]}},
        )
    ]
    return Service(
        lambda url: OpenAiCompatible(ModelServer(f"{url}/v1"), model="m", max_tokens=9),
        [sse.STREAM, *thoughts, *pieces, chat.finished("tool_calls"), chat.DONE, sse.EOF_],
        [sse.STREAM, chat.ROLE, chat.text("It has 7 degrees"), sse.ABORT],
        chat.whole("It has 7 degrees", " there."),
    )


def roles(request: Any) -> list[str]:
    return [message["role"] for message in request["messages"]]


@pytest.mark.parametrize("service", [anthropic(), openai_compatible()], ids=["anthropic", "openai"])
async def test_agent_asks_the_model_until_it_is_done(stage: AgentStage, service: Service) -> None:
    """With a tool, and an interruption behind it."""
    job = make_job("How warm is Oslo?")
    agent = stage.agent(show_reasoning=True, stream_inputs=True)
    async with (
        SseServer(service.calling, service.cut, service.rest) as server,
        Ears(stage.redis, job) as ears,
    ):
        runner = stage.runner(agent)
        provider = service.make(server.url)
        runner = replace(runner, model=replace(runner.model, provider=provider))
        assert await runner.run(job, Control(), "", stage.parking(job)) is Outcome.DONE
        await ears.all()
        await provider.aclose()
    offsets_are_whole(ears)
    assert "".join(ears.tokens) == "It has 7 degrees there."
    assert "".join(data["delta"] for data in data_of(ears, "reasoning.received")) == "Hm, so."
    assert "".join(data["delta"] for data in data_of(ears, "tool.input_received")) == OSLO
    (called,), (finished,) = data_of(ears, "tool.called"), data_of(ears, "tool.finished")
    assert (called["input"], finished["output"]) == ({"city": "Oslo"}, {"city": "Oslo", "degrees": 7})
    assert [name for name, _ in stage.world.calls] == ["weather"]
    first, second, third = server.requests
    assert [tool.get("name", "") or tool["function"]["name"] for tool in first["tools"]] == [
        *("weather", "pay", "broken", "slow"),
    ]
    for before, after in ((first, second), (second, third)):
        assert after["messages"][: len(before["messages"])] == before["messages"]
    assert '\\"degrees\\":7' in server.bodies[1].decode()
    assert roles(third) == [*roles(second), "assistant", "user"]
