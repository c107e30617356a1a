"""Tools: async functions that a model may call.

The input's JSON Schema comes from the type hints, and the arguments are checked against it before the call.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_type_hints, overload

import msgspec
from msgspec import Meta

from legato.protocol.parts import CitationReceived
from legato.protocol.text import well_formed
from legato.worker.limits import (
    APPROVAL_MAX_SECONDS,
    APPROVAL_SECONDS,
    CITATION_MAX_CHARACTERS,
    TOOL_MAX_CITATIONS,
    TOOL_MAX_DESCRIPTION_CHARACTERS,
    TOOL_SECONDS,
)
from legato.worker.providers.base import ToolSpec

from .errors import AgentError
from .schemas import check as check_schema

if TYPE_CHECKING:
    from legato.protocol.jobs import Job

__all__ = ["Call", "Meta", "Show", "Tool", "tool"]

Show = Literal["nothing", "name", "input", "output"]
"""How much of a call readers see: nothing, its name, its name and input, or its output too."""

SHOWS: Final[tuple[Show, ...]] = get_args(Show)
"""The same as values, from the least to the most."""

OnInterrupted = Literal["tell", "retry"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PARAMETER: Final = re.compile(r"\s*(?::param\s+)?(\w+):\s+(\S.*)")


class Call:
    """One call, for a tool that has a parameter of this type.

    :ivar id: unique, and the same when the call is run again: use it as idempotency key.
    :ivar job: the job of the reply: its ``user_id``, ``message_id``, ``metadata`` and so on.
    :ivar citations: what :meth:`cite` was given.
    """

    def __init__(self, id_: str, job: Job) -> None:
        self.id = id_
        self.job = job
        self.citations: list[CitationReceived] = []

    def cite(self, url: str = "", title: str = "", text: str = "", source: str = "") -> None:
        """Show readers a source, after the tool's result.

        :param url: ``http://`` or ``https://``; empty where ``source`` identifies the document.
        :param text: the cited words. Long ones are cut.
        :raises ValueError: there are too many, or a value is too long or of another kind.
        """
        if len(self.citations) >= TOOL_MAX_CITATIONS:
            raise ValueError(f"a call has at most {TOOL_MAX_CITATIONS} citations")
        named = {"url": url, "title": title, "text": text, "source": source}
        for name, value in named.items():
            if not isinstance(value, str):  # users' code is not type-checked
                raise ValueError(f"{name}: expected text, got {type(value).__name__}")  # noqa: TRY004 - as told
            if name != "text" and len(value) > CITATION_MAX_CHARACTERS:
                raise ValueError(f"{name}: expected at most {CITATION_MAX_CHARACTERS} characters")
        if url and not url.startswith(("http://", "https://")):  # readers may follow it
            raise ValueError("url: expected http:// or https://")
        words = [well_formed(value[:CITATION_MAX_CHARACTERS]) for value in named.values()]
        self.citations.append(CitationReceived(*words))


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool; made by :func:`tool`.

    :ivar spec: name, description and schema, as the model gets them.
    :ivar arguments: the type of the arguments.
    :ivar call_parameter: the parameter that takes the :class:`Call`; empty for none.
    :ivar show: how much readers see; None: as the agent says.
    """

    spec: ToolSpec
    function: Callable[..., Awaitable[Any]]
    arguments: type[msgspec.Struct]
    call_parameter: str
    needs_approval: bool
    approval_seconds: float
    on_interrupted: OnInterrupted
    timeout: float
    show: Show | None

    @property
    def name(self) -> str:
        """The name by which the model calls it."""
        return self.spec.name


_Function = Callable[..., Awaitable[Any]]


@overload
def tool(function: _Function, /) -> Tool: ...


@overload
def tool(
    *,
    name: str = "",
    needs_approval: bool = False,
    approval_seconds: float = APPROVAL_SECONDS,
    on_interrupted: OnInterrupted = "tell",
    timeout: float = TOOL_SECONDS,
    show: Show | None = None,
) -> Callable[[_Function], Tool]: ...


def tool(  # noqa: PLR0913 - options of a decorator
    function: _Function | None = None,
    /,
    *,
    name: str = "",
    needs_approval: bool = False,
    approval_seconds: float = APPROVAL_SECONDS,
    on_interrupted: OnInterrupted = "tell",
    timeout: float = TOOL_SECONDS,
    show: Show | None = None,
) -> Tool | Callable[[_Function], Tool]:
    """Make an async function a tool.

    The docstring describes the tool; a line ``name: text`` in it describes a parameter, and so does
    ``:param name: text``. Bounds come from
    ``Annotated[int, Meta(ge=1)]``, choices from ``Literal`` or an enum. The result is any JSON.

    :param name: default: the function's.
    :param needs_approval: each call waits until a person approves it.
    :param approval_seconds: for so long; then it counts as refused.
    :param on_interrupted: what happens to a call whose worker died before it ended: the model is told
        (``tell``), or it is run again with the same ``Call.id`` (``retry``).
    :param timeout: seconds for one call.
    :param show: how much readers see. Default: as the agent says; a call that needs approval shows its input.
    :raises AgentError: the function cannot be a tool.
    """

    def make(function: _Function) -> Tool:
        called = name or getattr(function, "__name__", "tool")
        try:
            description, parameters = _documentation(function)
            arguments, call_parameter = _arguments(function, called)
            spec = ToolSpec(called, description, _schema(arguments, parameters))
            _check(called, on_interrupted, timeout)
            _check_approval(needs_approval, approval_seconds, show)
            return Tool(
                spec=spec,
                function=function,
                arguments=arguments,
                call_parameter=call_parameter,
                needs_approval=needs_approval,
                approval_seconds=approval_seconds,
                on_interrupted=on_interrupted,
                timeout=timeout,
                show=show,
            )
        except AgentError as error:
            raise AgentError(f"tool {called}: {' '.join(str(error).split())}") from None

    return make if function is None else make(function)


def _check(called: str, rule: str, timeout: float) -> None:
    if not _NAME.fullmatch(called):
        raise AgentError("the name must be 1 to 64 of A-Z a-z 0-9 _ -")
    if rule not in ("tell", "retry"):
        raise AgentError(f'on_interrupted: expected "tell" or "retry", not {rule!r}')
    if not 0 < timeout <= 86_400:
        raise AgentError("timeout: expected seconds, more than 0 and at most a day")


def _check_approval(needs_approval: bool, seconds: float, show: str | None) -> None:
    if show not in (None, *SHOWS):
        raise AgentError(f'show: expected "nothing", "name", "input" or "output", not {show!r}')
    if needs_approval and show in ("nothing", "name"):
        raise AgentError("a call that needs approval must show its input")
    if not 1 <= seconds <= APPROVAL_MAX_SECONDS:
        raise AgentError(f"approval_seconds: expected 1 to {APPROVAL_MAX_SECONDS:.0f}")


def _documentation(function: _Function) -> tuple[str, dict[str, str]]:
    """The docstring, without the lines that describe parameters, and those by parameter."""
    if not inspect.iscoroutinefunction(function):
        raise AgentError("the function must be async")
    names, text, parameters = inspect.signature(function).parameters, [], {}
    for line in (inspect.getdoc(function) or "").splitlines():
        found = _PARAMETER.fullmatch(line)
        if found and found[1] in names:
            parameters[found[1]] = found[2]
        else:
            text.append(line)
    description = "\n".join(text).strip()[:TOOL_MAX_DESCRIPTION_CHARACTERS]
    if not description:
        raise AgentError("the function needs a docstring: the model reads it")
    return description, parameters


def _arguments(function: _Function, called: str) -> tuple[type[msgspec.Struct], str]:
    """The type of the arguments, and the name of the parameter for the call, if there is one."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 - whatever evaluating the user's hints raises
        raise AgentError(f"its type hints cannot be read: {error}") from None
    fields: list[Any] = []
    call_parameter = ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise AgentError(f"parameter {parameter.name}: expected one that can be given by name")
        if not _NAME.fullmatch(parameter.name):
            raise AgentError(f"parameter {parameter.name}: the name must be 1 to 64 of A-Z a-z 0-9 _")
        if parameter.name not in hints:
            raise AgentError(f"parameter {parameter.name} has no type hint")
        if hints[parameter.name] is Call:
            if call_parameter:
                raise AgentError(f"parameter {parameter.name}: {call_parameter} is the call already")
            call_parameter = parameter.name
        elif parameter.default is parameter.empty:
            fields.append((parameter.name, hints[parameter.name]))
        else:
            fields.append((parameter.name, hints[parameter.name], parameter.default))
    try:
        return msgspec.defstruct(
            called if called.isidentifier() else "arguments", fields, forbid_unknown_fields=True, kw_only=True
        ), call_parameter
    except (TypeError, ValueError) as error:
        raise AgentError(str(error)) from None


def _schema(arguments: type[msgspec.Struct], parameters: Mapping[str, str]) -> Mapping[str, Any]:
    """The JSON Schema of the arguments: an object whose definitions are in ``$defs``."""
    try:
        (top,), definitions = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    except (TypeError, ValueError) as error:
        said = str(error).splitlines()[-1]  # the others speak of options that a tool does not have
        raise AgentError(f"a type cannot be described to a model: {said}") from None
    schema: dict[str, Any] = definitions.pop(top["$ref"].rpartition("/")[2])
    del schema["title"]
    for name, text in parameters.items():
        if name in schema["properties"]:
            schema["properties"][name] = {"description": text, **schema["properties"][name]}
    if definitions:
        schema["$defs"] = definitions
    check_schema(schema)
    return schema
