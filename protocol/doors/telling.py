"""What the translations that tell a reply by its projection share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .base import encode
from .projection import Projection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .projection import ProjectedEvent

    Handlers = Mapping[type[Any], Callable[[Any, Any], None]]


class Telling:
    """Hands the events of a projection to a handler for each kind, and collects what these put."""

    _HANDLERS: ClassVar[Handlers]

    def __init__(self) -> None:
        self.done = False
        self._projection = Projection()
        self._messages: list[bytes] = []

    def _tell(self, events: Iterable[ProjectedEvent]) -> None:
        for event in events:
            self._HANDLERS[type(event)](self, event)

    def _put(self, kind: str, **fields: Any) -> None:
        self._messages.append(encode({"type": kind, **fields}))

    def _taken(self) -> list[bytes]:
        messages, self._messages = self._messages, []
        return messages
