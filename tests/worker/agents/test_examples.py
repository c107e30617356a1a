"""The agents of docs/examples, with a script, with Anthropic's stream, and with a worker that dies."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.protocol import wire
from legato.worker.agents import Agent
from legato.worker.agents.loading import Agents
from legato.worker.replies.log import MessageLog
from legato.worker.replies.runner import Outcome
from tests.worker.providers import anthropic_streams as streams
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.replies.test_agent_writer import AgentStage, data_of, offsets_are_whole
from tests.worker.support import Ears, make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from legato.protocol.jobs import Job
    from legato.worker.providers.base import Provider
    from legato.worker.replies.runner import Runner
    from legato.worker.store.conversations import Store
    from tests.worker.agents.folder import Folder

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
NAMES = ("weather", "library", "refund")
CALLS = {
    "weather": ("weather", {"city": "Oslo", "unit": "f"}),
    "library": ("search", {"words": "lease"}),
    "refund": ("refund", {"order": "A-1", "cents": 1250}),
}
SAID = {"weather": "snow", "library": "renews its lease", "refund": "Refunded 1250 cents of order A-1"}


def module_of(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def agent_of(name: str) -> Agent:
    agent = module_of(name).agent
    assert isinstance(agent, Agent)
    return agent


class Till:
    """The database of the refunds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def refunds(self) -> list[tuple[str, str, int]]:
        if not self.path.exists():
            return []
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute("SELECT key, of, cents FROM refunds").fetchall()


@pytest.fixture
def till(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Till:
    monkeypatch.setenv("LIBRARY_DB", str(tmp_path / "library.db"))
    monkeypatch.setenv("REFUNDS_DB", str(tmp_path / "refunds.db"))
    return Till(tmp_path / "refunds.db")


class ExampleStage(AgentStage):
    """Runs replies with any provider."""

    provider: Provider | None = None

    def runner(self, agent: Any, tries: int = 2, **model: Any) -> Runner:
        runner = super().runner(agent, tries, **model)
        if self.provider is None:
            return runner
        return dataclasses.replace(runner, model=dataclasses.replace(runner.model, provider=self.provider))

    async def to_the_end(self, agent: Agent, job: Job, *, approve: bool = True, ticket: str = "1") -> Outcome:
        """Answer the job, and decide its first approval if it waits for one."""
        outcome = await self.answer(agent, job, ticket=ticket)
        if outcome is not Outcome.WAITING:
            return outcome
        calls: Any = await self.redis.hkeys(wire.approvals_key(job.app_id, job.channel, job.message_id))
        (call,) = calls
        await self.decide(job, call.decode(), approve=approve)
        return await self.answer(agent, job, ticket=f"{ticket}a")


@pytest.fixture
async def stage(redis: Redis, store: Store, till: Till) -> ExampleStage:
    return ExampleStage(redis, store)


def script_of(name: str) -> str:
    """The line that the example tells the reader to write."""
    (line,) = re.findall(r"^#script .+$", (EXAMPLES / f"{name}.py").read_text(), re.MULTILINE)
    return str(line)


@pytest.mark.parametrize("name", NAMES)
async def test_the_line_that_an_example_shows_does_what_it_says(stage: ExampleStage, name: str) -> None:
    job = make_job(script_of(name))
    async with Ears(stage.redis, job) as ears:
        assert await stage.to_the_end(agent_of(name), job) is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    assert SAID[name] in "".join(ears.tokens)
    assert ears.ends == ["stream.completed"]


@pytest.fixture
async def claude(stage: ExampleStage) -> AsyncIterator[Callable[[str, int], Any]]:
    """Starts a server that calls the tool of an example, and then answers so many further requests."""
    opened: list[Any] = []

    async def start(name: str, answers: int = 1) -> sse.SseServer:
        called, given = CALLS[name]
        written = msgspec.json.encode(given).decode()
        pieces = (written[:5], written[5:])
        asks = sse.answer(
            *streams.text(0, "Let me see. "),
            *streams.call(1, *pieces, type="tool_use", id="toolu_1", name=called),
            reason="tool_use",
        )
        server = sse.SseServer(asks, *(sse.answer(*streams.text(0, "Done.")) for _ in range(answers)))
        await server.__aenter__()
        stage.provider = anthropic_provider(
            api_key="k", model="claude-test", max_tokens=100, base_url=server.url
        )
        opened.extend((server, stage.provider))
        return server

    yield start
    for one in opened:
        await (one.__aexit__(None, None, None) if isinstance(one, sse.SseServer) else one.aclose())


@pytest.mark.parametrize("name", NAMES)
async def test_claude_is_given_the_tool_and_its_result(stage: ExampleStage, claude: Any, name: str) -> None:
    server = await claude(name)
    job = make_job("Please")
    async with Ears(stage.redis, job) as ears:
        assert await stage.to_the_end(agent_of(name), job) is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    assert "".join(ears.tokens) == "Let me see. Done."
    first, second = server.requests
    (told,) = first["tools"]
    called, given = CALLS[name]
    assert told["name"] == called
    assert set(told["input_schema"]["properties"]) >= set(given)
    assert "call" not in told["input_schema"]["properties"]
    (result,) = second["messages"][-1]["content"]
    assert result["tool_use_id"] == "toolu_1"
    assert SAID[name] in str(result["content"])


async def test_the_library_names_its_sources(stage: ExampleStage) -> None:
    job = make_job(script_of("library"))
    async with Ears(stage.redis, job) as ears:
        await stage.answer(agent_of("library"), job)
        await ears.all()
    (citation,) = data_of(ears, "citation.received")
    assert (citation["url"], citation["title"]) == ("https://example.com/leases", "Leases")
    assert citation["text"].startswith("A worker renews its lease")


async def test_a_refund_that_is_refused_does_not_happen(stage: ExampleStage, till: Till) -> None:
    job = make_job(script_of("refund"))
    assert await stage.to_the_end(agent_of("refund"), job, approve=False) is Outcome.DONE
    assert till.refunds == []


async def test_no_more_is_refunded_than_was_paid(stage: ExampleStage, till: Till) -> None:
    job = make_job('#script rate=0 tool=refund:{"order": "A-2", "cents": 1000} echo')
    async with Ears(stage.redis, job) as ears:
        assert await stage.to_the_end(agent_of("refund"), job) is Outcome.DONE
        await ears.all()
    assert "Only 999 cents were paid." in "".join(ears.tokens)
    assert till.refunds == []


@pytest.mark.parametrize(
    ("model", "after"),
    [("script", False), ("script", True), ("claude", False), ("claude", True)],
    ids=lambda value: value if isinstance(value, str) else ("before", "after")[value],
)
@pytest.mark.parametrize("name", NAMES)
async def test_a_worker_that_dies_with_the_result_leaves_one_effect(
    stage: ExampleStage,
    till: Till,
    claude: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str,
    model: str,
    after: bool,
) -> None:
    """It has run the tool, and dies before or after Redis has the result."""
    append, died = MessageLog.append, False

    async def dying(self: MessageLog, entries: Any, *beside: Any) -> bool:
        nonlocal died
        if died or not any(getattr(entry, "kind", "") == "tool_result" for entry in entries):
            return await append(self, entries, *beside)
        died = True
        if after:
            await append(self, entries, *beside)
        raise asyncio.CancelledError

    monkeypatch.setattr(MessageLog, "append", dying)
    if model == "claude":
        await claude(name)
    job = make_job("Please" if model == "claude" else script_of(name))
    agent = agent_of(name)
    async with Ears(stage.redis, job) as ears:
        with pytest.raises(asyncio.CancelledError):
            await stage.to_the_end(agent, job)
        assert died
        assert await stage.answer(agent, job, ticket="2") is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    (result,) = data_of(ears, "tool.finished")
    assert result["ok"]
    assert ears.ends == ["stream.completed"]
    if name == "refund":
        assert till.refunds == [(result["call"], "A-1", 1250)]
    if name == "library":
        assert len(data_of(ears, "citation.received")) == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_found_in_the_repository_and_where_it_is_copied_to(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert f"legato up --agent docs.examples.{name}:agent " in text
    assert f"legato up --agent {name}:agent\n" in text
    folder.write(f"{name}.py", text)
    assert isinstance(Agents({"default": f"{name}:agent"})["default"], Agent)
    monkeypatch.chdir(EXAMPLES.parents[1])
    assert isinstance(Agents({"default": f"docs.examples.{name}:agent"})["default"], Agent)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60
