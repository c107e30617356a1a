"""What a model has said to a handler, as it is stored: so that the model is not asked for it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.stream import Usage  # noqa: TC001 - msgspec reads the annotation
from legato.worker.providers import base

from .values import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable


class _Stored(msgspec.Struct, array_like=True):
    """``[[["text", ...], ["reasoning", ...]], usage, stop reason, content]``; the last two came later."""

    events: list[tuple[str, Any]]
    usage: Usage
    stop_reason: str = "end_turn"
    content: Any = None


class StoredAnswer:
    """One answer of a model: its text, reasoning and citations, and its end.

    :ivar end: None as long as it has none.
    """

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []
        self.end: base.Final | None = None

    def add(self, event: base.Event) -> bool:
        """Add an event. Whether a handler gets it."""
        if isinstance(event, base.Text):
            if self._events and self._events[-1][0] == "text":
                self._events[-1] = ("text", self._events[-1][1] + event.text)
            else:
                self._events.append(("text", event.text))
        elif isinstance(event, base.Reasoning):
            self._events.append(("reasoning", event.text))
        elif isinstance(event, base.Citation):
            self._events.append(("citation", msgspec.to_builtins(event)))
        else:
            if isinstance(event, base.Final):
                self.end = event
            return False
        return True

    @property
    def events(self) -> list[base.Event]:
        """What a handler gets."""
        return [_MAKES[kind](value) for kind, value in self._events]

    def encode(self) -> bytes:
        """What to store, once there is an end."""
        assert self.end is not None  # noqa: S101 - the caller's promise
        return encode_json((self._events, self.end.usage, self.end.stop_reason, self.end.content))

    @staticmethod
    def decode(stored: bytes) -> StoredAnswer:
        """Undo :meth:`encode`."""
        read = msgspec.json.decode(stored, type=_Stored)
        said = StoredAnswer()
        said._events = read.events
        said.end = base.Final(read.stop_reason, read.usage, read.content)
        return said


_MAKES: Final[dict[str, Callable[[Any], base.Event]]] = {
    "text": base.Text,
    "reasoning": base.Reasoning,
    "citation": lambda value: base.Citation(**value),
}
