"""The interface of model providers: a request, a stream of events, and the errors.

A provider of text needs RequestAccepted, Text, Used and Final. One that also has ``takes_tools = True`` is
given tools, and yields the other events.

Each provider translates the errors of its SDK; no other module of the worker knows one.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias

import msgspec

from legato.protocol.stream import Usage
from legato.protocol.text import well_formed
from legato.worker.limits import MAX_USAGE_TOKENS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from legato.protocol.jobs import Turn


class Retry(enum.Enum):
    """When the same request may succeed."""

    NOW = "now"
    """The connection failed: there is no reason to wait."""
    LATER = "later"
    NEVER = "never"


class ProviderError(Exception):
    """The request has failed, or the stream has ended early.

    :cvar code: the ``code`` of ``stream.failed``.
    :cvar retry: when the same request may succeed.
    :cvar crowded: whether the provider is overloaded, so that all processes with the same key should wait.
    :ivar retry_after: seconds that the provider asked to wait; None if it gave none.
    """

    code: ClassVar[str] = "provider_error"
    retry: ClassVar[Retry] = Retry.NEVER
    crowded: ClassVar[bool] = False

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RequestRefusedError(ProviderError):
    """The request is invalid: bad key, unknown model, no permission."""


class TooLongError(ProviderError):
    """The conversation exceeds the context window."""

    code = "context_window"


class RateLimitedError(ProviderError):
    """Too many requests by this account."""

    code = "rate_limited"
    retry = Retry.LATER
    crowded = True


class OverloadedError(ProviderError):
    """The provider is overloaded."""

    code = "overloaded"
    retry = Retry.LATER
    crowded = True


class ProviderUnavailableError(ProviderError):
    """The provider is unreachable or has an internal error."""

    retry = Retry.LATER


class CutError(ProviderError):
    """The stream ended before the model did, by an error or by a regular close of the connection."""

    code = "interrupted"
    retry = Retry.NOW


class StalledError(ProviderError):
    """The stream is open, but no text arrives."""

    code = "timeout"
    retry = Retry.NOW


class RequestAccepted(NamedTuple):
    """The model has accepted the request. ``model`` is the name that the provider reports."""

    model: str


class Text(NamedTuple):
    """The next piece of the reply, never empty."""

    text: str


class Used(NamedTuple):
    """The usage of the request so far. Cumulative: the last one counts."""

    usage: Usage


class Final(NamedTuple):
    """The model has ended, with the total usage of the request. No event follows.

    :ivar stop_reason: as Anthropic names them. ``tool_use``: the calls wait for their results;
        ``pause_turn`` and ``compaction``: the same request, with this step added, goes on.
    :ivar content: what the model has said, as the provider wants it back in :attr:`Step.content`: any JSON.
        None from a provider of text.
    """

    stop_reason: str
    usage: Usage
    content: Any = None


class Reasoning(msgspec.Struct, frozen=True):
    """The next piece of the model's reasoning, never empty. Its signature is in :attr:`Final.content`."""

    text: str


class ToolStart(msgspec.Struct, frozen=True):
    """The model begins to write the input of a call."""

    call: str
    name: str


class ToolInput(msgspec.Struct, frozen=True):
    """The next piece of a call's input, never empty: JSON text."""

    call: str
    delta: str


class ToolCall(msgspec.Struct, frozen=True):
    """The model calls a tool of the request. ``arguments``: JSON text as the model wrote it, unchecked."""

    call: str
    name: str
    arguments: str


class ServerToolCall(msgspec.Struct, frozen=True):
    """The provider calls a tool of its own, such as a web search or one of an MCP server."""

    call: str
    name: str
    input: Any


class ServerToolResult(msgspec.Struct, frozen=True):
    """The result of a :class:`ServerToolCall`; ``output`` is any JSON."""

    call: str
    name: str
    ok: bool
    output: Any


class Citation(msgspec.Struct, frozen=True):
    """A source of the text before it; see :class:`legato.protocol.parts.CitationReceived`."""

    url: str = ""
    title: str = ""
    text: str = ""
    source: str = ""


PAUSES = frozenset({"pause_turn", "compaction"})
"""Stop reasons with which the model has not answered yet: it goes on when the step is sent back."""


def total(*parts: Usage) -> Usage:
    """The total usage of several requests."""
    return Usage(
        input=sum(part.input for part in parts),
        output=sum(part.output for part in parts),
        cache_read=sum(part.cache_read for part in parts),
        cache_write=sum(part.cache_write for part in parts),
    )


def bounded(usage: Usage) -> Usage:
    """The usage with numbers that the database has room for: a provider may report any."""
    return Usage(
        **{name: min(max(getattr(usage, name), 0), MAX_USAGE_TOKENS) for name in Usage.__struct_fields__}
    )


def short_name(text: str, most: int) -> str:
    """A name that a provider gives, as a database takes it: at most so many characters, none of them NUL."""
    return well_formed(text[:most]).replace("\0", "")


Event: TypeAlias = (
    RequestAccepted
    | Text
    | Used
    | Final
    | Reasoning
    | ToolStart
    | ToolInput
    | ToolCall
    | ServerToolCall
    | ServerToolResult
    | Citation
)


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool that the model may call. ``schema``: JSON Schema of its input, an object."""

    name: str
    description: str
    schema: Mapping[str, Any]


class ToolOutput(msgspec.Struct, frozen=True):
    """The result of a call, for the model. ``failed``: ``text`` says why."""

    call: str
    name: str
    text: str
    failed: bool = False


class Step(msgspec.Struct, frozen=True):
    """A request of this reply that has ended, and the results of its calls.

    :ivar content: :attr:`Final.content`, unchanged.
    :ivar outputs: one per :class:`ToolCall`, in the order of the calls.
    """

    content: Any
    outputs: tuple[ToolOutput, ...] = ()


class Thinking(msgspec.Struct, frozen=True):
    """Extended thinking: at most so many tokens. 0: as many as the model finds right (``adaptive``)."""

    budget_tokens: int = 0


class RequestOptions(msgspec.Struct, frozen=True):
    """What a reply wants otherwise than the settings say. A provider ignores what it does not know.

    :ivar system: None: that of the settings.
    :ivar server_tools: tools that the provider runs, in its own form, such as Anthropic's web search.
    :ivar mcp_servers: MCP servers that the provider calls, in its own form.
    :ivar extra: further fields of the request's body.
    """

    model: str = ""
    system: str | None = None
    max_tokens: int = 0
    thinking: Thinking | None = None
    server_tools: tuple[Mapping[str, Any], ...] = ()
    mcp_servers: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = {}


PLAIN = RequestOptions()
"""Everything as the settings say."""


class Attachment(msgspec.Struct, frozen=True):
    """An image or a PDF that belongs to the message: by ``url``, or as base64 in ``data``.

    :ivar media_type: such as ``image/png`` or ``application/pdf``. Needed with ``data``, and for a PDF.
    """

    media_type: str = ""
    url: str = ""
    data: str = ""
    title: str = ""


class ProviderRequest(NamedTuple):
    """The conversation so far and the message to answer.

    :ivar so_far: the text of the reply, of its unfinished step if it has steps, up to where it was cut off;
        empty at first.
    :ivar continuation: the user's turn that asks for the rest; empty at first. The answer may repeat some
        words (:mod:`legato.worker.replies.overlap`).
    :ivar attempt: counts from 1.
    :ivar steps: the finished steps of the reply. They follow the message, before ``so_far``.
    :ivar message_id: the id of the reply, the same in all its requests; empty if unknown. Not for the model.
    """

    message: str
    history: tuple[Turn, ...] = ()
    so_far: str = ""
    continuation: str = ""
    attempt: int = 1
    steps: tuple[Step, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    options: RequestOptions = PLAIN
    attachments: tuple[Attachment, ...] = ()
    message_id: str = ""


class Provider(Protocol):
    """A source of replies. One object per process, shared by all replies.

    An optional attribute ``takes_tools = True`` says that it uses ``steps`` and ``tools``
    (:func:`takes_tools`); ``takes_server_tools = True`` says the same of ``server_tools`` and ``mcp_servers``
    of the options.
    """

    @property
    def model(self) -> str:
        """The model that is requested."""

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Event, None]:
        """Send one request: yields RequestAccepted, any number of Text, Final, and Used anywhere between.

        Closing the generator, or cancelling the task that waits for it, closes the request at once.

        :raises ProviderError: at any point.
        """

    async def aclose(self) -> None:
        """Close connections."""


class Patience(NamedTuple):
    """Seconds to wait for the first text, and for each further one."""

    first: float
    next: float


class TimeOuts(NamedTuple):
    """Seconds to connect, and the longest wait for text: no connection is given up before."""

    connect: float = 5.0
    silence: float = 0.0


DEFAULT_TIME_OUTS = TimeOuts()


def takes_server_tools(provider: Provider) -> bool:
    """Whether the provider can run tools itself, or call MCP servers."""
    return bool(getattr(provider, "takes_server_tools", False))


def takes_tools(provider: Provider) -> bool:
    """Whether the provider can be given tools."""
    return bool(getattr(provider, "takes_tools", False))
