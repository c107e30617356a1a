"""An agent: a model with instructions and tools."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.worker.limits import AGENT_MAX_STEPS, AGENT_MAX_TOOLS, AGENT_STEPS, AGENT_SYSTEM_SECONDS
from legato.worker.providers.base import RequestOptions, Thinking

from .containing import contained
from .errors import AgentError
from .tools import SHOWS, Tool

if TYPE_CHECKING:
    from legato.protocol.jobs import Job

    from .tools import Show

System = str | Callable[["Job"], str | Awaitable[str]] | None


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A model that may call tools, and is asked again with their results until it is done.

    :ivar model: empty: that of the settings. So are ``system`` with None, and ``max_tokens`` with 0.
    :ivar system: the system prompt, or a function of the job that answers it, async or not.
    :ivar max_steps: requests to the model for one reply. At the bound the reply ends with what it has.
    :ivar thinking: extended thinking; None for none.
    :ivar show_reasoning: whether readers see the model's reasoning.
    :ivar show_tools: how much readers see of calls, for tools that do not say so themselves.
    :ivar stream_inputs: whether readers see the input of a call while the model writes it.
    :ivar server_tools: tools that the provider runs, in its own form.
    :ivar mcp_servers: MCP servers that the provider calls, in its own form.
    :ivar extra: further fields of the request's body, such as ``{"temperature": 0.2}``.
    :raises AgentError: a value makes no sense. One line.
    """

    model: str = ""
    system: System = None
    tools: Sequence[Tool | Any] = ()
    max_steps: int = AGENT_STEPS
    max_tokens: int = 0
    thinking: Thinking | None = None
    show_reasoning: bool = False
    show_tools: Show = "input"
    stream_inputs: bool = False
    server_tools: Sequence[Mapping[str, Any]] = ()
    mcp_servers: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("tools", "server_tools", "mcp_servers"):
            object.__setattr__(self, name, _listed(name, getattr(self, name)))
        _check_json("server_tools", self.server_tools)
        _check_json("mcp_servers", self.mcp_servers)
        for name in _KINDS:
            _check_kind(name, getattr(self, name))
        _check_extra(self.extra)
        for one in self.tools:
            if not isinstance(one, Tool):  # users' code is not type-checked
                name = getattr(one, "__name__", repr(one))
                raise AgentError(f"tools: {name} is not a tool; decorate the function with @tool")
        _check_names(self.tools, self.server_tools)
        if not 1 <= self.max_steps <= AGENT_MAX_STEPS:
            raise AgentError(f"max_steps: expected 1 to {AGENT_MAX_STEPS}")
        if self.max_tokens < 0:
            raise AgentError("max_tokens: expected 0 or more")
        if self.thinking is not None:
            _check_budget(self.thinking.budget_tokens, self.max_tokens)
        if self.show_tools not in SHOWS:
            raise AgentError('show_tools: expected "nothing", "name", "input" or "output"')
        if not (self.system is None or isinstance(self.system, str) or callable(self.system)):
            raise AgentError("system: expected a text or a function of the job")

    def tool(self, name: str) -> Tool | None:
        """The tool of this name."""
        return next((one for one in self.tools if one.name == name), None)

    def shown(self, name: str) -> Show:
        """How much readers see of a call of this tool; of one that the agent does not have, as of its own.

        Who approves a call must see its input.
        """
        found = self.tool(name)
        show = self.show_tools if found is None or found.show is None else found.show
        if found is not None and found.needs_approval and show in ("nothing", "name"):
            return "input"
        return show

    async def options(self, job: Job) -> RequestOptions:
        """What to ask the provider for, for this job.

        :raises AgentError: ``system`` is a function, and does not answer a text in time. It may also raise
            errors of its own, but none that would end the process or look like a stop from outside.
        """
        system = await _called(self.system, job) if callable(self.system) else self.system
        return RequestOptions(
            self.model,
            system,
            self.max_tokens,
            self.thinking,
            tuple(self.server_tools),
            tuple(self.mcp_servers),
            self.extra,
        )


_KINDS: Final[Mapping[str, tuple[Any, str]]] = {
    "model": (str, "a text"),
    "max_steps": (int, "a whole number"),
    "max_tokens": (int, "a whole number"),
    "thinking": (Thinking | None, "Thinking()"),
    "extra": (Mapping, "a mapping"),
}
"""Users' code is not type-checked: option -> its type, and how that is told."""


def _check_kind(name: str, given: Any) -> None:
    kind, said = _KINDS[name]
    if not isinstance(given, kind) or (isinstance(given, bool) and kind is int):
        raise AgentError(f"{name}: expected {said}, got {type(given).__name__}")


def _check_names(tools: Sequence[Tool], server_tools: Sequence[Mapping[str, Any]]) -> None:
    """Check that a model can tell the tools apart: the provider's, too, of which some have no name."""
    if len(tools) + len(server_tools) > AGENT_MAX_TOOLS:
        raise AgentError(f"tools: expected at most {AGENT_MAX_TOOLS}, those of server_tools included")
    own = [one.name for one in tools]
    named = [one["name"] for one in server_tools if isinstance(one.get("name"), str)]
    for option, names in (("tools", own), ("server_tools", [*own, *named])):
        if twice := {name for name in names if names.count(name) > 1}:
            raise AgentError(f"{option}: {min(twice)} stands twice")


def _check_budget(budget: object, max_tokens: int) -> None:
    """Check a thinking budget, which counts towards ``max_tokens``."""
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
        raise AgentError("thinking: expected budget_tokens to be a whole number of 0 or more")
    if 0 < max_tokens <= budget:
        raise AgentError(f"thinking: budget_tokens must be less than max_tokens, which is {max_tokens}")


def _listed(name: str, given: Any) -> tuple[Any, ...]:
    """The values as a tuple; a generator would be used up by the first reply."""
    if isinstance(given, str | bytes | Mapping):
        raise AgentError(f"{name}: expected a list")
    try:
        return tuple(given)
    except TypeError:
        raise AgentError(f"{name}: expected a list") from None


def _check_json(name: str, given: Any) -> None:
    """Check what is sent as it is. The values may be secrets: they are not told."""
    if name != "extra" and not all(isinstance(one, Mapping) for one in given):
        raise AgentError(f"{name}: expected a list of mappings")
    try:
        msgspec.json.encode(given)
    except (TypeError, ValueError, RecursionError):
        raise AgentError(f"{name}: it cannot be written as JSON") from None


def _check_extra(extra: Mapping[str, Any]) -> None:
    _check_json("extra", extra)
    if "compaction" in extra:  # of Anthropic: each request would bring a summary, and none an answer
        raise AgentError("extra: compaction would summarise in each request; use context_management")


async def _called(system: Callable[[Job], str | Awaitable[str]], job: Job) -> str:
    try:
        with contained("system: the function", AgentError):
            answer: object = system(job)
            if inspect.isawaitable(answer):
                async with asyncio.timeout(AGENT_SYSTEM_SECONDS):
                    answer = await answer
    except TimeoutError:
        raise AgentError(f"system: no answer within {AGENT_SYSTEM_SECONDS:g} seconds") from None
    if not isinstance(answer, str):
        raise AgentError(f"system: the function answered a {type(answer).__name__}, not a text")
    return answer
