"""What readers see of an event of the model: the part of the reply, or nothing.

Enforced here, before anything is written: what is hidden never enters the log that readers can fetch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from legato.protocol import parts
from legato.protocol.text import well_formed
from legato.worker.limits import CITATION_MAX_CHARACTERS, MAX_SHOWN_BYTES
from legato.worker.providers import base

from .tools import SHOWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agent import Agent
    from .tools import Show


class View(NamedTuple):
    """What readers may see.

    :ivar reasoning: the model's reasoning.
    :ivar inputs_streamed: the input of a call while it is written.
    :ivar show: how much of a call, by the tool's name.
    """

    reasoning: bool
    inputs_streamed: bool
    show: Callable[[str], Show]

    def allows(self, name: str, level: Show) -> bool:
        """Whether readers may see so much of a call of this tool."""
        return SHOWS.index(self.show(name)) >= SHOWS.index(level)


EVERYTHING: Final = View(reasoning=True, inputs_streamed=True, show=lambda _: "output")
"""For a handler: it yields what readers shall see."""


def view_of(agent: Agent) -> View:
    """What the agent lets readers see."""
    return View(agent.show_reasoning, agent.stream_inputs, agent.shown)


def part_of(event: base.Event, view: View, names: dict[str, str]) -> parts.Part | None:
    """The part that readers get; None if they get none.

    :param names: call -> the tool's name, of the calls begun so far in this request. Changed here.
    """
    make = _PARTS.get(type(event))
    return None if make is None else make(event, view, names)


def _reasoning(event: base.Reasoning, view: View, _: dict[str, str]) -> parts.Part | None:
    return parts.ReasoningReceived(event.text) if view.reasoning else None


def _started(event: base.ToolStart, view: View, names: dict[str, str]) -> parts.Part | None:
    names[event.call] = event.name
    if view.inputs_streamed and view.allows(event.name, "input"):
        return parts.ToolStarted(event.call, event.name)
    return None


def _input(event: base.ToolInput, view: View, names: dict[str, str]) -> parts.Part | None:
    name = names.get(event.call)
    if name is not None and view.inputs_streamed and view.allows(name, "input"):
        return parts.ToolInputReceived(event.call, event.delta)
    return None


def _server_call(event: base.ServerToolCall, view: View, _: dict[str, str]) -> parts.Part | None:
    return called(event.call, event.name, event.input, view)


def _server_result(event: base.ServerToolResult, view: View, _: dict[str, str]) -> parts.Part | None:
    return finished(parts.ToolFinished(event.call, event.name, event.ok, event.output), view)


def _citation(event: base.Citation, _view: View, _: dict[str, str]) -> parts.Part:
    return cited(parts.CitationReceived(event.url, event.title, event.text, event.source))


def cited(source: parts.CitationReceived) -> parts.CitationReceived:
    """A citation whose texts fit into an event. Readers follow its address: none but of the web is left."""
    url = source.url if source.url.lower().startswith(("http://", "https://")) else ""
    most = CITATION_MAX_CHARACTERS
    return parts.CitationReceived(
        *(well_formed(text[:most]) for text in (url, source.title, source.text, source.source))
    )


def called(call: str, name: str, given: Any, view: View) -> parts.ToolCalled | None:
    """A call, as far as readers may see it."""
    if not view.allows(name, "name"):
        return None
    shown = _bounded(given) if view.allows(name, "input") else msgspec.UNSET
    return parts.ToolCalled(call, name, shown)


def finished(result: parts.ToolFinished, view: View) -> parts.ToolFinished | None:
    """The result of a call, as far as readers may see it. That a call was not approved is no secret."""
    if not view.allows(result.name, "name"):
        return None
    if not view.allows(result.name, "output"):
        return msgspec.structs.replace(result, output=msgspec.UNSET, error="")
    error = well_formed(result.error[:MAX_SHOWN_BYTES])
    return msgspec.structs.replace(result, output=_bounded(result.output), error=error)


def _bounded(value: Any) -> Any:
    """The value; UNSET if it is too long for an event or cannot be written as JSON."""
    return value if is_shown(value, MAX_SHOWN_BYTES) else msgspec.UNSET


def is_shown(value: Any, most: int) -> bool:
    """Whether a value is JSON of at most so many bytes that an event can have; UNSET is none."""
    around = value
    for _ in range(_LEVELS_AROUND):
        around = (around,)
    try:
        return len(msgspec.json.encode(around)) - 2 * _LEVELS_AROUND <= most
    except (TypeError, ValueError, RecursionError):
        return False


_LEVELS_AROUND: Final = 16
"""What is nested less deeply than the encoder allows, by so much, can be part of an event, too."""


_PARTS: Final[dict[type[Any], Callable[[Any, View, dict[str, str]], parts.Part | None]]] = {
    base.Reasoning: _reasoning,
    base.ToolStart: _started,
    base.ToolInput: _input,
    base.ServerToolCall: _server_call,
    base.ServerToolResult: _server_result,
    base.Citation: _citation,
}
"""Event -> what makes its part. Other events have none: text, calls, usage and the end are treated apart."""
