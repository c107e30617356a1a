"""Decodes a stream of the Chat Completions API to events, without I/O.

https://platform.openai.com/docs/api-reference/chat-streaming. Servers differ, so a field that is not used may
have any type.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.stream import Usage
from legato.protocol.text import Joiner
from legato.worker.limits import MAX_MODEL_NAME_CHARACTERS

from . import base, event_json, openai_errors
from .openai_calls import REASONING_FIELDS
from .sse import SseError, SseReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .openai_calls import AnswerCollector
    from .sse import ServerEvent

MAX_COUNT: Final = 2**53

DONE: Final = b"[DONE]"

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
"""``finish_reason`` -> stop reason as Anthropic names it. Others are passed on unchanged."""

_WITHOUT_CALLS: Final = ("max_tokens", "refusal")
"""Stop reasons that count even if there are calls: they may be incomplete. Some servers call others so."""

_FAILED: Final = "error"
"""``finish_reason`` of a gateway (OpenRouter) whose model has failed; also ``object`` of an error (vLLM)."""

_GARBLED: Final = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    ValueError,  # json's, also of a number of thousands of digits
    SseError,
)


class _ChoiceDelta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: Any = 0
    delta: _ChoiceDelta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    model: Any = None
    usage: Any = None
    error: Any = None
    object: Any = None


_decoder: Final = msgspec.json.Decoder(_Chunk)


class StreamReader:
    """The state of one stream.

    :ivar done: ``[DONE]`` was received: nothing follows.
    :ivar finish_reason: empty until the model has ended. Then only the usage may follow.
    :param model: the requested model, reported if the server does not name one.
    :param secrets: see :func:`.openai_errors.of_event`.
    :param answer: collects what is said. None: calls are ignored, and nothing is kept.
    """

    def __init__(
        self, model: str, secrets: tuple[str, ...] = (), answer: AnswerCollector | None = None
    ) -> None:
        self.done = False
        self.finish_reason = ""
        self._model = model
        self._secrets = secrets
        self._answer = answer
        self._reasoning = Joiner()
        self._sse = SseReader()
        self._started = False
        self._refused = False
        self._usage = Usage()

    def feed(self, data: bytes) -> Iterator[base.Event]:
        """The events that these bytes complete. They may be cut anywhere.

        :raises ProviderError: the server reports an error, or the stream is invalid. Raised after the events
            before it. Errors after the model's end are ignored.
        """
        try:
            for event in self._sse.feed(data):
                if not self.done:
                    yield from self._take(event)
        except _GARBLED as error:
            if not self.finish_reason:
                raise base.CutError("the stream is garbled") from error
            self.done = True

    def end(self) -> Iterator[base.Event]:
        """The last events: the calls, and the end of the answer.

        :raises CutError: the stream has ended before the model.
        """
        if not self.finish_reason:
            raise base.CutError("the stream ended without a finish_reason")
        reason = _STOP_REASONS.get(self.finish_reason, self.finish_reason)
        content = None
        if rest := self._reasoning.rest():
            yield base.Reasoning(rest)
        if self._answer is not None:
            yield from self._answer.end()
            content = self._answer.messages()
            if self._answer.calls and reason not in _WITHOUT_CALLS:
                reason = "tool_use"
        yield base.Final("refusal" if self._refused else reason, self._usage, content)

    def _take(self, event: ServerEvent) -> list[base.Event]:
        if event.data == DONE:
            self.done = True
        elif event.data:
            chunk = event_json.decode(_decoder, event.data)
            if not (chunk.error or chunk.object == _FAILED or event.name == b"error"):
                return self._read(chunk)
            self._failed(event.data)
        return []

    def _failed(self, data: bytes) -> None:
        if not self.finish_reason:
            raise openai_errors.of_event(json.loads(data), self._secrets)
        self.done = True

    def _read(self, chunk: _Chunk) -> list[base.Event]:
        events: list[base.Event] = []
        if not self._started:
            self._started = True
            name = chunk.model if isinstance(chunk.model, str) and chunk.model else self._model
            events.append(base.RequestAccepted(name[:MAX_MODEL_NAME_CHARACTERS]))
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._choose(choice, events)
        if chunk.usage is not None:
            self._count(chunk.usage, events)
        return events

    def _choose(self, choice: _Choice, events: list[base.Event]) -> None:
        """What comes after a ``finish_reason`` cancels it: some servers send one with every piece."""
        delta = choice.delta
        if delta is not None:
            if delta.reasoning_content is not None or delta.reasoning is not None:
                self._reason(delta, events)
            content = delta.content
            if text := content if isinstance(content, str) else _text(content):
                self.finish_reason = ""
                events.append(base.Text(text))
            if self._answer is not None:
                self._collect(self._answer, delta, text, events)
            self._refused = self._refused or bool(delta.refusal)
        if choice.finish_reason == _FAILED:
            raise base.ProviderUnavailableError("the server reports that the model has failed")
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason

    def _collect(
        self, answer: AnswerCollector, delta: _ChoiceDelta, text: str, events: list[base.Event]
    ) -> None:
        if text:
            answer.add_text(text)
        if delta.reasoning_details:
            answer.add_details(delta.reasoning_details)
        if delta.tool_calls:
            self.finish_reason = ""
            events += answer.add_calls(delta.tool_calls)

    def _reason(self, delta: _ChoiceDelta, events: list[base.Event]) -> None:
        """Take the reasoning, once: some servers send it under both names."""
        for field in REASONING_FIELDS:
            text = getattr(delta, field)
            if not isinstance(text, str):
                continue
            if self._answer is not None:
                self._answer.add_reasoning(field, text)
            if text:
                self.finish_reason = ""
                if piece := self._reasoning.feed(text):
                    events.append(base.Reasoning(piece))
                return

    def _count(self, usage: Any, events: list[base.Event]) -> None:
        """Take over the counts, which are cumulative. Those of the prompt include what came from a cache."""
        prompt, output = _number(usage, "prompt_tokens"), _number(usage, "completion_tokens")
        details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
        cached = min(_number(details, "cached_tokens"), prompt)
        counted = Usage(input=prompt - cached, output=output, cache_read=cached)
        if counted not in (self._usage, Usage()):
            self._usage = counted
            events.append(base.Used(counted))


def _text(content: list[Any] | None) -> str:
    """The text of a list of parts (Mistral)."""
    if content is None:
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _number(counts: Any, name: str) -> int:
    """A count; 0 for anything else than a number of tokens."""
    count = counts.get(name) if isinstance(counts, dict) else None
    return count if type(count) is int and 0 <= count < MAX_COUNT else 0
