r"""Text that UTF-8 can carry: lone surrogates become U+FFFD, and pairs that were split are joined.

Python strings, JavaScript strings and JSON escapes can hold half of a surrogate pair; UTF-8 cannot
(RFC 3629, section 3), and a JSON reader may refuse it (RFC 8259, section 8.2). Halves come from programs that
cut text between UTF-16 code units: an emoji arrives as ``"\ud83d"`` and ``"\ude00"``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

REPLACEMENT: Final = "\ufffd"

_LAST_HIGH: Final = "\udbff"
_FIRST_HIGH: Final = "\ud800"

_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)",
    re.DOTALL,
)
_REPLACED: Final = rb"\ufffd"  # as long as what it replaces: offsets stay


def well_formed(text: str) -> str:
    """``text`` with surrogate pairs joined and each lone surrogate replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class Joiner:
    """Joins surrogate pairs over the pieces of a text: all pieces together give :func:`well_formed` of it."""

    def __init__(self) -> None:
        self._high = ""

    def feed(self, piece: str) -> str:
        """The piece, well-formed. A high surrogate at its end waits for the next piece."""
        if not piece or (not self._high and piece.isascii()):
            return piece
        piece = self._high + piece
        self._high = piece[-1] if _FIRST_HIGH <= piece[-1] <= _LAST_HIGH else ""
        return well_formed(piece[:-1] if self._high else piece)

    def rest(self) -> str:
        """What still waits when the text has ended: U+FFFD, or nothing."""
        high, self._high = self._high, ""
        return high and REPLACEMENT


def replace_lone_escapes(body: bytes) -> bytes:
    r"""JSON with each escape of a lone surrogate (``\ud83d``) replaced by ``\ufffd``: of the same length."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    return b"".join(_replaced(body))


def _replaced(body: bytes) -> Iterator[bytes]:
    end = 0
    for escape in _ESCAPE.finditer(body):
        if escape["lone"] is not None:
            yield body[end : escape.start()]
            yield _REPLACED
            end = escape.end()
    yield body[end:]


def decode_json(decoder: msgspec.json.Decoder[T], body: bytes | str) -> T:
    """``decoder.decode(body)``, which refuses escapes of lone surrogates, with U+FFFD in their place.

    :raises msgspec.DecodeError: and :raises UnicodeError: as the decoder does.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raw = well_formed(body).encode() if isinstance(body, str) else body
        return decoder.decode(replace_lone_escapes(raw))
