"""OpenAI's Responses API: requests, answers in a stream or whole.

Calls of tools are not told: a client that sees one would make it. Reasoning is told as a summary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import msgspec

from legato.protocol.stream import FAILED_TEXT

from . import projection
from .base import Framing, encode
from .openai_chat import finish_reason, grown
from .projection import RunClosed, RunGrew, RunOpened
from .requests import Said, TextPart, chat_request, parse, prompt_options, system_texts, text_in
from .telling import Telling

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from legato.protocol.jobs import ChatRequest
    from legato.protocol.stream import Decision, Usage
    from legato.protocol.transcript import Piece

    from .base import Opening
    from .telling import Handlers

FRAMING: Final = Framing(before=b"")
"""Each message has its own ``event:`` line."""

_INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""``finish_reason`` of a completion -> why the response is incomplete; it is complete after any other."""

_TEXTS: Final = frozenset({"input_text", "output_text", "text"})


class ResponseRequest(NamedTuple):
    """A request for a response.

    :ivar model: the name that the client asks for.
    """

    request: ChatRequest
    model: str
    stream: bool


class _InputItem(msgspec.Struct, frozen=True):
    type: str = "message"
    role: str = ""
    content: str | list[TextPart] | None = None


class _ResponseBody(msgspec.Struct, frozen=True):
    model: str
    input: str | list[_InputItem]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None


_body_decoder: Final = msgspec.json.Decoder(_ResponseBody)


def parse_response(body: bytes, allowed: Collection[str] = ()) -> ResponseRequest:
    """Parse the body of ``POST /v1/responses``.

    :param allowed: options of a job that it may have; ``system`` and ``max_tokens`` are ignored otherwise.
    :raises InvalidRequest: it does not fit.
    """
    asked = parse(_body_decoder, body)
    given = [_InputItem(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input
    said = [Said(one.role, text_in(one.content, _TEXTS)) for one in given if one.type == "message"]
    system = (asked.instructions or "", *system_texts(said))
    options = prompt_options(system, asked.max_output_tokens, allowed)
    return ResponseRequest(chat_request(said, "input", options), asked.model, bool(asked.stream))


class Responses(Telling):
    """The events of one response, each a whole frame. See :class:`.base.Translator`.

    :param model: its name where the provider reports none.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model
        self._message_id = ""
        self._item_id = ""
        self._number = 0
        self._response: dict[str, Any] = {}
        self._output: list[dict[str, Any]] = []
        self._deltas: list[str] = []

    def begin(self, opening: Opening) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._message_id = opening.message_id
        self._response = _response(opening, self._model)
        self._put("response.created", response=self._response)
        self._put("response.in_progress", response=self._response)
        return self._taken()

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._tell(self._projection.feed(pieces))
        return self._taken()

    def end(self, decision: Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self._tell(self._projection.end())
        self.done = True
        found = _ended(self._response, self._output, decision)
        self._put(f"response.{found['status']}", response=found)
        return self._taken()

    def _tell(self, events: Iterable[projection.ProjectedEvent]) -> None:
        """Of text and reasoning alone."""
        super()._tell(event for event in events if type(event) in self._HANDLERS)

    def _open(self, event: RunOpened) -> None:
        kind = _KINDS[event.run.kind]
        self._deltas = []
        self._item_id = _item_id(event.run, self._message_id)
        item = kind.item(self._item_id, None)
        self._put("response.output_item.added", output_index=len(self._output), item=item)
        self._put(f"response.{kind.part}.added", **self._where(kind), part=kind.of(""))

    def _grow(self, event: RunGrew) -> None:
        kind = _KINDS[event.run.kind]
        self._deltas.append(event.delta)
        self._put(f"response.{kind.text}.delta", **self._where(kind), delta=event.delta, **kind.more)

    def _close(self, event: RunClosed) -> None:
        kind = _KINDS[event.run.kind]
        text = "".join(self._deltas)
        item = kind.item(self._item_id, text)
        self._put(f"response.{kind.text}.done", **self._where(kind), text=text, **kind.more)
        self._put(f"response.{kind.part}.done", **self._where(kind), part=kind.of(text))
        self._put("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)

    _HANDLERS: ClassVar[Handlers] = {
        RunOpened: _open,
        RunGrew: _grow,
        RunClosed: _close,
    }

    def _where(self, kind: _Kind) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": len(self._output), kind.index_field: 0}

    def _put(self, kind: str, **fields: Any) -> None:
        body = encode({"type": kind, "sequence_number": self._number, **fields})
        self._messages.append(b"event: %b\ndata: %b" % (kind.encode(), body))
        self._number += 1


def whole(model: str, opening: Opening, pieces: Sequence[Piece], decision: Decision) -> bytes:
    """The response of a reply that has ended, but has not failed, for a request without ``stream``.

    :param model: its name where the provider reports none.
    """
    texts: dict[projection.Run, list[str]] = {}
    for run, delta in grown(projection.Projection(), pieces):
        texts.setdefault(run, []).append(delta)
    output = [
        _KINDS[run.kind].item(_item_id(run, opening.message_id), "".join(deltas))
        for run, deltas in texts.items()
    ]
    return encode(_ended(_response(opening, model), output, decision))


class _Kind(NamedTuple):
    """How a kind of run is told: the names of its events, and their fields."""

    prefix: str
    part: str
    text: str
    index_field: str
    more: Mapping[str, Any]
    of: Callable[[str], dict[str, Any]]
    item: Callable[[str, str | None], dict[str, Any]]
    """The item with this id and text; None while it is open."""


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _message(item_id: str, text: str | None) -> dict[str, Any]:
    status = "in_progress" if text is None else "completed"
    content = [] if text is None else [_output_text(text)]
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def _summary_text(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def _reasoning(item_id: str, text: str | None) -> dict[str, Any]:
    return {"id": item_id, "type": "reasoning", "summary": [] if text is None else [_summary_text(text)]}


_KINDS: Final[Mapping[projection.RunKind, _Kind]] = {
    "text": _Kind(
        "msg", "content_part", "output_text", "content_index", {"logprobs": []}, _output_text, _message
    ),
    "reasoning": _Kind(
        *("rs", "reasoning_summary_part", "reasoning_summary_text", "summary_index"),
        *({}, _summary_text, _reasoning),
    ),
}


def _item_id(run: projection.Run, message_id: str) -> str:
    numbered = "" if run.number == 1 else f"_{run.number}"
    return f"{_KINDS[run.kind].prefix}_{message_id}{numbered}"


def _response(opening: Opening, model: str) -> dict[str, Any]:
    return {
        "id": f"resp_{opening.message_id}",
        "object": "response",
        "created_at": opening.begun.at,
        "status": "in_progress",
        "model": opening.begun.model or model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": False,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }


def _ended(response: Mapping[str, Any], output: Sequence[Any], decision: Decision) -> dict[str, Any]:
    """The response at its end. One that is cancelled is complete, as OpenAI's clients know no other end."""
    found = {**response, "output": output, "status": "completed"}
    if decision.state == "failed":
        error = {"code": decision.code or "internal", "message": FAILED_TEXT}
        found |= {"status": "failed", "error": error}
    elif reason := _INCOMPLETE.get(finish_reason(decision)):
        found |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
    if decision.usage is not None:
        found["usage"] = _usage(decision.usage)
    return found


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input + usage.output,
    }
