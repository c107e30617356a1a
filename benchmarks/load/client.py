"""A cheap client: subscribes to a channel, and follows events without parsing their JSON."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from . import frames
from .orders import GeneratorCounts
from .schedule import now
from .tally import StreamPosition, Tally, count

if TYPE_CHECKING:
    from .assignment import Assignment
    from .frames import Piece

HEAD_LIMIT: Final = 16_384
_COUNT: Final = re.compile(rb'\\?"count\\?":\s*(\d+)')
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class LoadClient(asyncio.Protocol):
    """A connection. ``done`` completes when it has subscribed or failed."""

    __slots__ = (
        "_apart",
        "_assignment",
        "_leaving",
        "_place",
        "_reader",
        "_reason",
        "_shared",
        "_tail",
        "_tally",
        "_transport",
        "_upgraded",
        "done",
    )

    def __init__(self, assignment: Assignment, shared: Shared) -> None:
        self._assignment, self._shared = assignment, shared
        self._tally, self._reader = shared.tally, shared.reader
        join = assignment.join
        self._apart = join.late or join.stalled
        self._place = StreamPosition(late=join.late)
        self._tail = b""
        self._upgraded = self._leaving = False
        self._reason = ""
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._assignment.upgrade_request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the reason, if the server closed the connection."""
        reason = self._reason or (f"broken: {exc}" if exc else "closed without a reason")
        if not self.done.done():
            self.done.set_exception(ConnectionError(reason))
        elif not self._leaving:
            count(self._tally.counts.lost, reason)

    def data_received(self, data: bytes) -> None:
        """Process complete frames."""
        if self._tail:
            data = self._tail + data
        if not self._upgraded:
            data = self._after_upgrade(data)
            if not data:
                return
        piece = self._reader.read(data)
        self._tail = data[piece.used :]
        if piece.times:
            self._on_events(piece)
        for opcode, payload in piece.others:
            self._on_other(opcode, payload)

    def _on_events(self, piece: Piece) -> None:
        if self._apart:
            self._shared.aside.received += len(piece.times)
            self._place.follow(piece, self._shared.aside)
        else:
            self._tally.delivered(piece, now())
            self._place.follow(piece, self._tally.counts)

    def _after_upgrade(self, data: bytes) -> bytes:
        """The bytes after the upgrade response; empty while that is incomplete."""
        head, found, rest = data.partition(b"\r\n\r\n")
        status = head[:12].rpartition(b" ")[2].decode("latin-1")
        if found and status == "101":
            self._upgraded, self._tail = True, b""
            return rest
        self._tail = data
        if found or len(data) > HEAD_LIMIT:
            self._reason = f"HTTP {status}"
            self._abort()
        return b""

    def _on_other(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.PING:
            self._write(frames.client_frame(payload, 10))
        elif opcode == frames.CLOSE:
            self._reason = self._reason or f"closed with {int.from_bytes(payload[:2])}"
            self._write(frames.client_frame(payload[:2], frames.CLOSE))
        elif b"pusher_internal:member_added" in payload:
            self._tally.counts.members += 1
        elif b'"pusher:ping"' in payload:
            self._send("pusher:pong", {})
        elif not self.done.done():
            self._on_way_in(payload)

    def _on_way_in(self, payload: bytes) -> None:
        message = _decode(payload)
        event, data = message.get("event", ""), message.get("data")
        if event == "pusher:connection_established":
            self._tally.histograms["connected"].record(now() - self._assignment.due)
            socket_id = (_decode(data) if isinstance(data, str) else data or {})["socket_id"]
            self._send("pusher:subscribe", self._assignment.subscription(socket_id))
        elif event == "pusher_internal:subscription_succeeded":
            self._on_subscribed(payload)
        elif event.endswith("error"):
            told = data if isinstance(data, dict) else {}
            self._reason = f"{event} {told.get('code') or told.get('status') or ''}".strip()
            self._abort()

    def _on_subscribed(self, payload: bytes) -> None:
        counts = self._tally.counts
        counts.joined += 1
        self._tally.histograms["subscribed"].record(now() - self._assignment.due)
        if self._assignment.join.data and (found := _COUNT.search(payload)):
            counts.members += int(found[1])
        self.done.set_result(None)
        if self._assignment.join.stalled and self._transport is not None:
            self._transport.pause_reading()

    def read_on(self) -> None:
        """Read again after a stall."""
        if self._assignment.join.stalled and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def leave(self) -> None:
        """Close as a browser does when a page is closed."""
        self._leaving = True
        if self._transport is not None and not self._transport.is_closing():
            if self._upgraded:
                self._write(frames.client_frame(b"\x03\xe9", frames.CLOSE))
            self._transport.close()

    def _send(self, event: str, data: Any) -> None:
        self._write(frames.client_frame(msgspec.json.encode({"event": event, "data": data})))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Shared:
    """The shared state of all clients of a process. ``aside`` counts late and stalled clients."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.aside = GeneratorCounts()
        self.reader = frames.PieceReader()

    def reset(self) -> None:
        """Reset all counts."""
        self.tally.reset()
        self.aside = GeneratorCounts()

    def told(self) -> GeneratorCounts:
        """All counts."""
        counts, aside = self.tally.told(), self.aside
        counts.aside, counts.aside_gaps, counts.aside_backwards = (
            aside.received,
            aside.gaps,
            aside.backwards,
        )
        return counts
