"""Agents: what is refused, what readers see of a tool, and what the provider is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from legato.worker.agents import Agent, AgentError, Thinking, tool
from tests.worker.support import make_job

if TYPE_CHECKING:
    from legato.worker.agents.tools import Show


async def look() -> None:
    """Look."""


LOOK = tool(look)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tools": [look]}, "tools: look is not a tool; decorate the function with @tool"),
        ({"tools": ["look"]}, "tools: 'look' is not a tool"),
        ({"tools": [LOOK, LOOK]}, "tools: look stands twice"),
        ({"tools": [LOOK], "server_tools": [{"name": "look"}]}, "server_tools: look stands twice"),
        ({"server_tools": [{"name": "fetch"}, {"name": "fetch"}]}, "server_tools: fetch stands twice"),
        ({"server_tools": [{"type": "mcp_toolset"}] * 129}, "tools: expected at most 128, those of"),
        ({"thinking": Thinking(-5)}, "thinking: expected budget_tokens to be a whole number of 0 or more"),
        ({"thinking": Thinking("x")}, "thinking: expected budget_tokens to be a whole number"),  # type: ignore[arg-type]
        ({"thinking": Thinking(True)}, "thinking: expected budget_tokens to be a whole number"),
        (
            {"thinking": Thinking(1000), "max_tokens": 1000},
            "thinking: budget_tokens must be less than max_tokens, which is 1000",
        ),
        ({"max_steps": 0}, "max_steps: expected 1 to 100"),
        ({"max_steps": 101}, "max_steps: expected 1 to 100"),
        ({"show_tools": "all"}, "show_tools: expected"),
        ({"system": 7}, "system: expected a text or a function of the job"),
        ({"extra": [1]}, "extra: expected a mapping"),
        ({"max_tokens": -1}, "max_tokens: expected 0 or more"),
        ({"max_steps": 2.5}, "max_steps: expected a whole number, got float"),
        ({"max_steps": True}, "max_steps: expected a whole number, got bool"),
        ({"max_tokens": "100"}, "max_tokens: expected a whole number, got str"),
        ({"model": 7}, "model: expected a text, got int"),
        ({"thinking": True}, "thinking: expected Thinking(), got bool"),
        ({"tools": None}, "tools: expected a list"),
        ({"server_tools": {"type": "x"}}, "server_tools: expected a list"),
        ({"server_tools": ["web_search"]}, "server_tools: expected a list of mappings"),
        ({"mcp_servers": [{"token": object()}]}, "mcp_servers: it cannot be written as JSON"),
        (
            {"extra": {"compaction": {"type": "summarize"}}},
            "extra: compaction would summarise in each",
        ),
        ({"extra": {"metadata": object()}}, "extra: it cannot be written as JSON"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentError) as caught:
        Agent(**values)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_tools_of_the_provider_without_a_name_and_a_budget_without_a_limit_are_accepted() -> None:
    agent = Agent(tools=[LOOK], server_tools=[{"type": "mcp_toolset"}] * 127, thinking=Thinking(9_000))
    assert len(agent.server_tools) == 127
    assert Agent(max_tokens=1, thinking=Thinking()).thinking == Thinking(0)


def test_tools_may_come_from_a_generator() -> None:
    agent = Agent(tools=(one for one in [LOOK]))  # type: ignore[arg-type]
    assert agent.tool("look") is LOOK
    assert agent.tool("look") is LOOK, "not used up"
    assert agent.tool("other") is None


@pytest.mark.parametrize(
    ("of_agent", "of_tool", "approval", "shown"),
    [
        ("input", None, False, "input"),
        ("nothing", None, False, "nothing"),
        ("nothing", "output", False, "output"),
        ("output", "nothing", False, "nothing"),
        ("nothing", None, True, "input"),
        ("name", None, True, "input"),
        ("output", None, True, "output"),
    ],
)
def test_a_tool_says_how_much_is_seen_of_it_or_else_the_agent(
    of_agent: Show, of_tool: Show | None, approval: bool, shown: Show
) -> None:
    one = tool(show=of_tool, needs_approval=approval)(look)
    agent = Agent(tools=[one], show_tools=of_agent)
    assert agent.shown("look") == shown
    assert agent.shown("a tool of the provider") == of_agent


async def test_options_are_those_of_the_agent() -> None:
    agent = Agent(model="m", system="s", max_tokens=101, thinking=Thinking(100), server_tools=[{"type": "x"}])
    options = await agent.options(make_job())
    assert (options.model, options.system, options.max_tokens) == ("m", "s", 101)
    assert options.thinking == Thinking(100)
    assert options.server_tools == ({"type": "x"},)


async def test_the_system_prompt_may_be_a_function_of_the_job_async_or_not() -> None:
    async def later(job: Any) -> str:
        return f"later {job.user_id}"

    job = make_job(user_id=9)
    assert (await Agent(system=lambda job: f"now {job.user_id}").options(job)).system == "now 9"
    assert (await Agent(system=later).options(job)).system == "later 9"
    assert (await Agent().options(job)).system is None


async def test_a_function_for_the_system_prompt_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("legato.worker.agents.agent.AGENT_SYSTEM_SECONDS", 0.01)

    async def hang(_job: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(AgentError, match=r"^system: no answer within 0\.01 seconds$"):
        await Agent(system=hang).options(make_job())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("later", [False, True])
async def test_a_function_for_the_system_prompt_cannot_end_the_process(
    error: BaseException, later: bool
) -> None:
    def at_once(_job: Any) -> str:
        raise error

    async def awaited(_job: Any) -> str:
        raise error

    with pytest.raises(AgentError, match=f"^system: the function raised {type(error).__name__}$"):
        await Agent(system=awaited if later else at_once).options(make_job())


async def test_a_stop_from_outside_cancels_the_function_for_the_system_prompt() -> None:
    started = asyncio.Event()

    async def hang(_job: Any) -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(Agent(system=hang).options(make_job()))
    await started.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.parametrize("answer", [None, 7, b"bytes"])
async def test_a_system_prompt_that_is_no_text_is_refused(answer: Any) -> None:
    with pytest.raises(AgentError, match=r"^system: the function answered a"):
        await Agent(system=lambda _: answer).options(make_job())


async def test_a_generator_of_tools_of_the_provider_serves_every_reply() -> None:
    agent = Agent(server_tools=({"name": name} for name in ("search", "fetch")))  # type: ignore[arg-type]
    for _ in range(2):
        assert len((await agent.options(make_job())).server_tools) == 2
