"""Reads server-sent events from bytes as they arrive.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, without ``id`` and
``retry``, which are for clients that reconnect.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from legato.worker.limits import SSE_MAX_EVENT_BYTES

_BOM: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = (b"\n", b"\r")


class SseError(Exception):
    """The bytes are not a stream of events."""


class ServerEvent(NamedTuple):
    """One event. ``name`` and ``data`` are empty where the server gives none."""

    name: bytes
    data: bytes


class SseReader:
    """The state of one stream: what came of the line and of the event that are not complete yet.

    The bytes may be cut anywhere, also inside a character or a line end: the events are the same. An event
    at the end of the stream without its blank line is incomplete, so it is dropped.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that these bytes complete.

        :raises SseError: an event is larger than :data:`SSE_MAX_EVENT_BYTES`.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        events: list[ServerEvent] = []
        lines = data.splitlines(keepends=True)
        if lines and not data.endswith(_LINE_ENDS):
            unfinished = lines.pop()
        else:
            unfinished = b""
            self._after_cr = data.endswith(b"\r")
        for line in lines:
            self._take(self._joined(line).rstrip(b"\r\n"), events)
        if unfinished:
            self._count(len(unfinished))
            self._line.append(unfinished)
        return events

    def _joined(self, line: bytes) -> bytes:
        """The line with what came of it before."""
        if self._line:
            self._size -= sum(map(len, self._line))  # counted again with the whole line
            line = b"".join((*self._line, line))
            self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        return line

    def _take(self, line: bytes, events: list[ServerEvent]) -> None:
        if not line:
            if self._name or self._data:
                events.append(ServerEvent(self._name, b"\n".join(self._data)))
            self._name, self._data, self._size = b"", [], 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._count(len(line))
            self._data.append(value)
        elif field == b"event":
            self._name = value

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > SSE_MAX_EVENT_BYTES:
            raise SseError(f"an event has more than {SSE_MAX_EVENT_BYTES} bytes")
