"""Decodes the event stream of Anthropic's Messages API.

The SDK would build a model object of every event, which costs more than everything else that is done with it.
Events and fields that are not known here are ignored: the API adds some without notice. So is all content but
text, unless it is collected (:mod:`.anthropic_content`).

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.stream import Usage
from legato.protocol.text import well_formed
from legato.worker.limits import MAX_TOOL_NAME_CHARACTERS

from . import base, event_json
from .anthropic_steps import kept
from .sse import SseError, SseReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .anthropic_content import ContentReader


class ErrorEvent(Exception):  # noqa: N818 - it is the name of what the API sends
    """The API has ended the stream with an error. ``body`` is its JSON; None if it is none."""

    def __init__(self, body: object) -> None:
        super().__init__("error event")
        self.body = body


class _Content(msgspec.Struct):
    """A block of content, or what is added to one. ``text`` belongs to some kinds of it."""

    type: str = ""
    text: Any = ""


class _ContentDelta(msgspec.Struct):
    delta: _Content


class _BlockStart(msgspec.Struct):
    content_block: _Content


class _Message(msgspec.Struct):
    model: str = ""
    usage: dict[str, Any] | None = None
    container: Any = None


class _MessageStart(msgspec.Struct):
    message: _Message


class _Stop(msgspec.Struct):
    stop_reason: str | None = None
    container: Any = None


class _MessageDelta(msgspec.Struct):
    delta: _Stop
    usage: dict[str, Any] | None = None


_delta: Final = msgspec.json.Decoder(_ContentDelta)
_block_start: Final = msgspec.json.Decoder(_BlockStart)
_message_start: Final = msgspec.json.Decoder(_MessageStart)
_message_delta: Final = msgspec.json.Decoder(_MessageDelta)


class StreamDecoder:
    """The state of one stream.

    :ivar ended: ``message_stop`` came. What follows it does not belong to the reply, and is dropped.
    :param content: collects the blocks. None: only text counts, and nothing is kept.
    """

    def __init__(self, content: ContentReader | None = None) -> None:
        self.ended = False
        self._content = content
        self._container = ""
        self._reader = SseReader()
        self._stop_reason = ""
        self._usage: dict[str, int] = {}
        self._handlers: dict[bytes, Callable[[bytes], Iterator[base.Event]]] = {
            b"content_block_delta": _text_added,
            b"content_block_start": _block_started,
            b"message_start": self._message_started,
            b"message_delta": self._message_changed,
            b"message_stop": self._message_ended,
            b"error": _failed,
        }
        if content is not None:
            self._handlers |= {
                b"content_block_start": content.started,
                b"content_block_delta": content.added,
                b"content_block_stop": content.stopped,
            }

    def feed(self, data: bytes) -> Iterator[base.Event]:
        """The events in the next bytes, which may be cut anywhere.

        :raises ErrorEvent: after the events before it.
        :raises CutError: the bytes are garbled; after the events before them.
        """
        try:
            for name, body in self._reader.feed(data):
                handle = self._handlers.get(name)
                if handle is not None and body and not self.ended:
                    yield from handle(body)
        except (SseError, ValueError) as error:  # msgspec's errors are among the latter
            raise base.CutError("the stream is garbled") from error

    def _message_started(self, body: bytes) -> Iterator[base.Event]:
        message = event_json.decode(_message_start, body).message
        self._keep(message.container)
        yield base.RequestAccepted(message.model)
        yield self._count(message.usage)

    def _message_changed(self, body: bytes) -> Iterator[base.Event]:
        change = event_json.decode(_message_delta, body)
        self._stop_reason = change.delta.stop_reason or self._stop_reason
        self._keep(change.delta.container)
        yield self._count(change.usage)

    def _message_ended(self, _body: bytes) -> Iterator[base.Event]:
        self.ended = True
        content: Any = None
        if self._content is not None:
            yield from self._content.close()
            content = kept(self._content.blocks(), self._container)
        yield base.Final(self._stop_reason or "end_turn", Usage(**self._usage), content)

    def _keep(self, container: Any) -> None:
        name = container.get("id") if isinstance(container, dict) else None
        if isinstance(name, str):
            self._container = well_formed(name[:MAX_TOOL_NAME_CHARACTERS])

    def _count(self, usage: dict[str, Any] | None) -> base.Used:
        """Take over the counts that are given: they are cumulative, and may be absent."""
        for ours, theirs in _USAGE.items():
            count = (usage or {}).get(theirs)
            if isinstance(count, int):
                self._usage[ours] = count
        return base.Used(Usage(**self._usage))


_USAGE: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_input_tokens",
    "cache_write": "cache_creation_input_tokens",
}


def _text_added(body: bytes) -> Iterator[base.Event]:
    return _text(event_json.decode(_delta, body).delta, "text_delta")


def _block_started(body: bytes) -> Iterator[base.Event]:
    return _text(event_json.decode(_block_start, body).content_block, "text")


def _text(content: _Content, kind: str) -> Iterator[base.Event]:
    """The text of content of this ``kind``.

    :raises ValueError: its text is none.
    """
    if content.type == kind and content.text:
        if not isinstance(content.text, str):
            raise ValueError("text is not a string")
        yield base.Text(content.text)


def _failed(body: bytes) -> Iterator[base.Event]:
    try:
        raise ErrorEvent(json.loads(body))
    except (ValueError, RecursionError):
        raise ErrorEvent(None) from None
