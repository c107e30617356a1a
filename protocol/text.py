r"""Makes text well-formed: replaces lone surrogates by U+FFFD and joins split pairs.

Python strings, JavaScript strings and JSON escapes can hold half of a surrogate pair; UTF-8 cannot
(RFC 3629, section 3), and a JSON reader may refuse it (RFC 8259, section 8.2). They come from programs that
cut text between UTF-16 code units: an emoji arrives as ``"\ud83d"`` and ``"\ude00"``.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

REPLACEMENT: Final = "\ufffd"

_LAST_HIGH: Final = "\udbff"
_FIRST_HIGH: Final = "\ud800"

_LONE: Final = re.compile(
    rb"\\u[dD](?:"
    rb"[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a high one without a low one behind it
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F][0-9a-fA-F]\\u[dD])[c-fC-F][0-9a-fA-F]{2}"  # and the other way round
    rb")"
)
_REPLACED: Final = rb"\\ufffd"  # a template, of what is as long as what it replaces: offsets stay
_BACKSLASH: Final = rb"\\"
_NO_ESCAPE: Final = b"\0\0"  # stands for an escaped backslash for a while: no JSON has these bytes


def well_formed(text: str) -> str:
    """``text`` with surrogate pairs joined and each lone surrogate replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class Joiner:
    """Makes a text in pieces well-formed: the results joined are :func:`well_formed` of the whole text."""

    def __init__(self) -> None:
        self._high = ""

    def feed(self, piece: str) -> str:
        """Process a piece. A high surrogate at its end waits for the next piece."""
        if not piece or (not self._high and piece.isascii()):
            return piece
        piece = self._high + piece
        self._high = piece[-1] if _FIRST_HIGH <= piece[-1] <= _LAST_HIGH else ""
        return well_formed(piece[:-1] if self._high else piece)

    def rest(self) -> str:
        """End the text: U+FFFD if a surrogate waits, else nothing."""
        high, self._high = self._high, ""
        return high and REPLACEMENT


def replace_lone_escapes(body: bytes) -> bytes:
    r"""JSON with each escape of a lone surrogate (``\ud83d``) replaced by ``\ufffd``: of the same length.

    No Python code runs for each escape: a client may send nothing else. What is no JSON may stay as it is.
    """
    if (b"\\ud" not in body and b"\\uD" not in body) or b"\0" in body:
        return body
    replaced = _LONE.sub(_REPLACED, body.replace(_BACKSLASH, _NO_ESCAPE))
    return replaced.replace(_NO_ESCAPE, _BACKSLASH)


def decode_json(decoder: msgspec.json.Decoder[T], body: bytes | str) -> T:
    """``decoder.decode(body)`` with U+FFFD for escapes of lone surrogates, which the decoder refuses.

    :raises msgspec.DecodeError: and :raises UnicodeError: as the decoder does.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raw = well_formed(body).encode() if isinstance(body, str) else body
        return decoder.decode(replace_lone_escapes(raw))


def printable(text: str) -> str:
    """The text with everything escaped that could end a line, control a terminal or hide other text."""
    if text.isprintable():
        return text
    return "".join(
        [char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text]
    )
