"""Collects what a model says over the Chat Completions API, to send it back in the next step.

Servers differ in how they stream calls. Most number them with ``index``, and send id and name first, then
pieces of the arguments. Some send whole calls, all with the index 0 or none (Ollama, Gemini), no id, name and
id with every piece, or another id with every piece (vLLM).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.text import Joiner, well_formed
from legato.worker.limits import (
    MAX_PARALLEL_CALLS,
    MAX_STEP_CONTENT_CHARACTERS,
    MAX_TOOL_INPUT_CHARACTERS,
    MAX_TOOL_NAME_CHARACTERS,
)

from . import base, event_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REASONING_FIELDS: Final = ("reasoning_content", "reasoning")
"""Names of the field with the reasoning: vLLM, DeepSeek, llama.cpp; OpenRouter, Ollama, newer vLLM.

https://api-docs.deepseek.com/guides/thinking_mode: it must be sent back with the calls, even if it is empty.
"""

_WRITTEN: Final = ("text", "summary")
"""Fields of ``reasoning_details`` that come in pieces."""


class _FunctionDelta(msgspec.Struct, gc=False):
    name: Any = None
    arguments: Any = None


class _CallDelta(msgspec.Struct, gc=False):
    index: Any = None
    id: Any = None
    function: _FunctionDelta | None = None
    extra_content: Any = None


_NO_FUNCTION: Final = _FunctionDelta()


def random_id() -> str:
    """A new id for a call: servers have some that they use again in other replies, or none."""
    return f"call_{secrets.token_hex(12)}"


class _OpenCall:
    """A call that the model writes.

    :ivar call: our id.
    :ivar given_id: the server's id, empty for none. The server gets it back.
    :ivar extra: so it does with this: Gemini's signature of its thoughts.
    """

    def __init__(self, call: str) -> None:
        self.call = call
        self.given_id = ""
        self.name = ""
        self.extra: Any = None
        self._pieces: list[str] = []
        self._size = 0
        self._started = False
        self._joiner = Joiner()

    def is_other(self, given_id: str, name: str, arguments: str) -> bool:
        """Whether this piece, for the same place, begins another call: a whole one has come already."""
        if not name:
            return False
        if given_id and self.given_id:
            return given_id != self.given_id
        return bool(arguments) and is_object(self.arguments)

    def take(self, given_id: str, name: str, arguments: str) -> Iterator[base.Event]:
        """Take the next piece. Nothing is told before the name is known."""
        self.given_id = self.given_id or given_id
        self.name = self.name or name
        self._size += len(arguments)
        if self._size > MAX_TOOL_INPUT_CHARACTERS:
            raise base.ProviderError(
                f"the input of a tool call has more than {MAX_TOOL_INPUT_CHARACTERS} characters"
            )
        piece = self._joiner.feed(arguments)
        if piece:
            self._pieces.append(piece)
        if self._started and piece:
            yield base.ToolInput(self.call, piece)
        elif self.name and not self._started:
            yield from self._start()

    def _start(self) -> Iterator[base.Event]:
        self._started = True
        yield base.ToolStart(self.call, self.name)
        if self._pieces:
            yield base.ToolInput(self.call, self.arguments)

    def end(self) -> Iterator[base.Event]:
        if not self._started:
            yield from self._start()
        if rest := self._joiner.rest():
            self._pieces.append(rest)
            yield base.ToolInput(self.call, rest)
        yield base.ToolCall(self.call, self.name, self.arguments)

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    def message(self) -> dict[str, Any]:
        """The call as the server takes it back. Some refuse arguments that are no JSON object."""
        arguments = self.arguments if is_object(self.arguments) else "{}"
        function = {"name": self.name, "arguments": arguments}
        extra = {"extra_content": self.extra} if self.extra else {}
        return {"id": self.given_id or self.call, "type": "function", "function": function, **extra}


class _Detail:
    """One of the ``reasoning_details``, of which each chunk may bring a piece."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._pieces = {name: [fields[name]] for name in _WRITTEN if isinstance(fields.get(name), str)}

    def add(self, piece: dict[str, Any]) -> bool:
        """Add the piece if it belongs to this detail."""
        mine = (self._fields.get("type"), self._fields.get("index"))
        if not self._pieces or mine != (piece.get("type"), piece.get("index")):
            return False
        for name, value in piece.items():
            if name in self._pieces and isinstance(value, str):
                self._pieces[name].append(value)
            elif value is not None:
                self._fields[name] = value
        return True

    def whole(self) -> dict[str, Any]:
        joined = {name: "".join(pieces) for name, pieces in self._pieces.items()}
        fields: dict[str, Any] = event_json.clean(self._fields | joined)
        return fields


class AnswerCollector:
    """What the model says in one request.

    :param before: messages of the same step that are part of the request: text of an earlier attempt.
    """

    def __init__(self, before: Sequence[dict[str, Any]] = (), new_id: Callable[[], str] = random_id) -> None:
        self._before = before
        self._new_id = new_id
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}
        self._texts: list[str] = []
        self._reasoning: dict[str, list[str]] = {}
        self._details: list[_Detail] = []
        self._size = 0

    @property
    def calls(self) -> bool:
        """Whether the model calls tools."""
        return bool(self._calls)

    def add_text(self, text: str) -> None:
        """:raises ProviderError: the answer is larger than any that can be kept; also of the next two."""
        self._grow(len(text))
        self._texts.append(text)

    def add_reasoning(self, field: str, text: str) -> None:
        self._grow(len(text))
        self._reasoning.setdefault(field, []).append(text)

    def add_details(self, details: Any) -> None:
        """Take over ``reasoning_details``, which hold signatures.

        https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks

        :raises ValueError: they are garbled; msgspec's errors are among them.
        """
        for piece in msgspec.convert(details, list[dict[str, Any]]):
            self._grow(_size(piece))
            if not self._details or not self._details[-1].add(piece):
                self._details.append(_Detail(piece))

    def add_calls(self, deltas: Any) -> Iterator[base.Event]:
        """The events of ``tool_calls``.

        :raises msgspec.ValidationError: they are garbled.
        """
        for delta in msgspec.convert(deltas, list[_CallDelta]):
            function = delta.function or _NO_FUNCTION
            given_id, name = _short(delta.id), _short(function.name)
            arguments = _arguments(function.arguments)
            self._grow(len(arguments))
            call = self._find(delta.index, given_id, name)
            if call is None or call.is_other(given_id, name, arguments):
                call = self._begin(delta.index)
            if isinstance(delta.extra_content, dict):
                self._grow(_size(delta.extra_content))
                call.extra = event_json.clean(delta.extra_content)
            yield from call.take(given_id, name, arguments)

    def _find(self, index: Any, given_id: str, name: str) -> _OpenCall | None:
        """The call that a piece belongs to; None for a new one."""
        if isinstance(index, int):
            return self._by_index.get(index)
        known = [call for call in self._calls if call.given_id == given_id] if given_id else []
        return known[0] if known else None if name or not self._calls else self._calls[-1]

    def _begin(self, index: Any) -> _OpenCall:
        if len(self._calls) == MAX_PARALLEL_CALLS:
            raise base.ProviderError(f"the model calls more than {MAX_PARALLEL_CALLS} tools at once")
        call = _OpenCall(self._new_id())
        self._calls.append(call)
        if isinstance(index, int):
            self._by_index[index] = call
        return call

    def end(self) -> Iterator[base.Event]:
        """The calls, which are complete now."""
        for call in self._calls:
            yield from call.end()

    def messages(self) -> list[dict[str, Any]]:
        """What the model has said, as messages of the next request."""
        text = well_formed("".join(self._texts))
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if self._calls else "")}
        for field, pieces in self._reasoning.items():
            message[field] = well_formed("".join(pieces))
        if self._details:
            message["reasoning_details"] = [detail.whole() for detail in self._details]
        if self._calls:
            message["tool_calls"] = [call.message() for call in self._calls]
        return [*self._before, message]

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_STEP_CONTENT_CHARACTERS:
            raise base.ProviderError(f"the answer has more than {MAX_STEP_CONTENT_CHARACTERS} characters")


def is_object(text: str) -> bool:
    """Whether the text is a JSON object."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False


def _size(value: dict[str, Any]) -> int:
    """Its length as JSON.

    :raises ValueError: it cannot be sent back.
    """
    return len(msgspec.json.encode(event_json.clean(value)))


def _short(value: Any) -> str:
    """A name or an id; empty for anything else."""
    return well_formed(value[:MAX_TOOL_NAME_CHARACTERS]) if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    """The piece of the arguments. Some servers send the object instead of its JSON."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else ""
