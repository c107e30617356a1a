"""Chat completions as OpenAI's SDKs read them: requests, answers in a stream or whole, errors, models.

Calls of tools are not told: a client that sees one would make it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from legato.protocol.stream import FAILED_TEXT

from . import projection
from .base import Framing, encode
from .requests import Said, TextPart, chat_request, parse, prompt_options, system_texts, text_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from legato.protocol.jobs import ChatRequest
    from legato.protocol.stream import Decision, Usage
    from legato.protocol.transcript import Piece

    from .base import Opening

FRAMING: Final = Framing()

DONE: Final = b"[DONE]"
"""The last message of a reply that has not failed."""

_REASONS: Final[Mapping[str, str]] = {
    "max_tokens": "length",
    "length": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "content_filter": "content_filter",
}
"""Stop reason -> ``finish_reason``, which is ``stop`` for the rest."""

_RUN_FIELDS: Final = {"text": "content", "reasoning": "reasoning_content"}


class CompletionRequest(NamedTuple):
    """A request for a completion.

    :ivar model: the name that the client asks for.
    :ivar include_usage: a chunk with the usage comes last.
    """

    request: ChatRequest
    model: str
    stream: bool
    include_usage: bool


class _ChatMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | list[TextPart] | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _CompletionBody(msgspec.Struct, frozen=True):
    model: str
    messages: list[_ChatMessage]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_body_decoder: Final = msgspec.json.Decoder(_CompletionBody)


def parse_completion(body: bytes, allowed: Collection[str] = ()) -> CompletionRequest:
    """Parse the body of ``POST /v1/chat/completions``.

    :param allowed: options of a job that it may have; ``system`` and ``max_tokens`` are ignored otherwise.
    :raises InvalidRequest: it does not fit.
    """
    asked = parse(_body_decoder, body)
    said = [Said(one.role, text_in(one.content)) for one in asked.messages]
    most = asked.max_completion_tokens or asked.max_tokens
    request = chat_request(said, "messages", prompt_options(system_texts(said), most, allowed))
    wishes = asked.stream_options or _StreamOptions()
    return CompletionRequest(request, asked.model, bool(asked.stream), bool(wishes.include_usage))


class Chunks:
    """The chunks of one reply, each as JSON. See :class:`.base.Translator`.

    :param model: its name where the provider reports none.
    """

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self.done = False
        self._model = model
        self._include_usage = include_usage
        self._projection = projection.Projection()
        self._head: dict[str, Any] = {}

    def begin(self, opening: Opening) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._head = _head(opening, self._model, "chat.completion.chunk")
        return [self._chunk({"role": "assistant", "content": ""})]

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        return [self._chunk({_RUN_FIELDS[run.kind]: delta}) for run, delta in grown(self._projection, pieces)]

    def end(self, decision: Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self.done = True
        if decision.state == "failed":
            return [failure(decision)]
        found = [self._chunk({}, finish_reason(decision))]
        if self._include_usage and decision.usage is not None:
            found.append(encode({**self._head, "choices": [], "usage": _usage(decision.usage)}))
        return [*found, DONE]

    def _chunk(self, delta: Mapping[str, str], reason: str | None = None) -> bytes:
        return encode({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def whole(model: str, opening: Opening, pieces: Sequence[Piece], decision: Decision) -> bytes:
    """The completion of a reply that has ended, but has not failed, for a request without ``stream``.

    :param model: its name where the provider reports none.
    """
    texts: dict[str, list[str]] = {field: [] for field in _RUN_FIELDS.values()}
    for run, delta in grown(projection.Projection(), pieces):
        texts[_RUN_FIELDS[run.kind]].append(delta)
    message: dict[str, str] = {"role": "assistant", "content": "".join(texts.pop("content"))}
    message |= {field: "".join(deltas) for field, deltas in texts.items() if deltas}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason(decision)}
    usage = {} if decision.usage is None else {"usage": _usage(decision.usage)}
    return encode({**_head(opening, model, "chat.completion"), "choices": [choice], **usage})


def failure(decision: Decision) -> bytes:
    """The error of a reply that has failed."""
    return error_body(FAILED_TEXT, "server_error", decision.code or "internal")


def error_body(message: str, type_: str, code: str | None = None, param: str | None = None) -> bytes:
    """The body of an error.

    :param type_: such as ``invalid_request_error``.
    :param param: the field that is wrong.
    """
    return encode({"error": {"message": message, "type": type_, "code": code, "param": param}})


def models(names: Iterable[str]) -> bytes:
    """The body of the answer to ``GET /v1/models``."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "legato"} for name in names]
    return encode({"object": "list", "data": data})


def _head(opening: Opening, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{opening.message_id}",
        "object": kind,
        "created": opening.begun.at,
        "model": opening.begun.model or model,
    }


def grown(projected: projection.Projection, pieces: Sequence[Piece]) -> list[projection.RunGrew]:
    """What the pieces add to text and reasoning."""
    return [event for event in projected.feed(pieces) if isinstance(event, projection.RunGrew)]


def finish_reason(decision: Decision) -> str:
    """Why a reply that has not failed has ended: ``stop``, ``length`` or ``content_filter``."""
    return _REASONS.get(decision.stop_reason or "", "stop")


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }
