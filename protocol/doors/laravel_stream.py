"""The text of a reply for ``useEventStream`` and ``useStream`` of ``@laravel/stream-react`` and ``-vue``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .base import Framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.stream import Decision
    from legato.protocol.transcript import Piece

    from .base import Opening

UPDATES: Final = Framing(before=b"", after=b"")
TEXT: Final = Framing("text/plain; charset=utf-8", before=b"", after=b"", keep_alive=b"")

END_SIGNAL: Final = "</stream>"
"""The default ``endSignal`` of the hook. A failed reply ends without it: the hook calls ``onError``."""

_STRIPPED: Final = "data: "
"""The hook takes this off the beginning of an event's data."""

_LINE: Final = re.compile(r"\r\n|\r|\n")


class Updates:
    r"""Events named ``update`` for ``useEventStream``. See :class:`.base.Translator`.

    Line breaks arrive as ``\n``, as with all server-sent events.

    :param replace: each event has the whole text so far, one per :meth:`feed`; otherwise the next piece.
    """

    def __init__(self, *, replace: bool = False) -> None:
        self.done = False
        self._replace = replace
        self._text = ""
        self._ends_with_return = False

    def begin(self, opening: Opening) -> list[bytes]:  # noqa: ARG002 - nothing is told of it
        """See :class:`.base.Translator`."""
        return []

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        texts = [text for piece in pieces if isinstance(piece, str) and (text := self._lines(piece))]
        if not self._replace:
            return [_update(part) for text in texts for part in _delta_parts(text)]
        if not texts:
            return []
        self._text = "".join((self._text, *texts))
        return _whole(self._text)

    def end(self, decision: Decision) -> list[bytes]:
        """See :class:`.base.Translator`."""
        self.done = True
        return [] if decision.state == "failed" else [_update(END_SIGNAL)]

    def _lines(self, text: str) -> str:
        r"""The text with ``\n`` for each line break, of which a piece may have a half."""
        if self._ends_with_return and text.startswith("\n"):
            text = text[1:]
            self._ends_with_return = False
        if text:
            self._ends_with_return = text.endswith("\r")
        return _LINE.sub("\n", text)


def _delta_parts(text: str) -> tuple[str, ...]:
    """The piece, cut in two if the hook would take it for something else."""
    if text.startswith(_STRIPPED) or text == END_SIGNAL:
        return text[:1], text[1:]
    return (text,)


def _whole(text: str) -> list[bytes]:
    if text == END_SIGNAL:
        return []
    return [_update(_STRIPPED + text if text.startswith(_STRIPPED) else text)]


def _update(text: str) -> bytes:
    lines = b"".join(b"data: %b\n" % line.encode() for line in text.split("\n"))
    return b"event: update\n%b\n" % lines


class PlainText:
    """The bare text, for ``useStream``: every message has whole characters. See :class:`.base.Translator`.

    A failed reply must break the connection: a clean end is a success.
    """

    def __init__(self) -> None:
        self.done = False

    def begin(self, opening: Opening) -> list[bytes]:  # noqa: ARG002 - nothing is told of it
        """See :class:`.base.Translator`."""
        return []

    def feed(self, pieces: Sequence[Piece]) -> list[bytes]:
        """See :class:`.base.Translator`."""
        return [piece.encode() for piece in pieces if isinstance(piece, str) and piece]

    def end(self, decision: Decision) -> list[bytes]:  # noqa: ARG002 - the text says nothing of it
        """See :class:`.base.Translator`."""
        self.done = True
        return []
