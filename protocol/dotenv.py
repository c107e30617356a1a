"""Reads ``.env`` files by the rules of phpdotenv, which Laravel uses. Executes nothing.

The one difference: an unclosed double quote is always an error here. If a value begins with one, phpdotenv
silently ignores the rest of the file.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SPACE: Final = " \n\r\t\0\x0b"
_BLANKS: Final = frozenset(" \t\n\v\f\r")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_TOKEN: Final = re.compile(r"[\r\n]+|[ \t\v\f]+|[\\'\"#$]|[^ \t\n\v\f\r\\'\"#$]+")
_QUOTE: Final = re.compile(r'(?=[^\\]")')
_REFERENCE: Final = re.compile(r"\$\{([a-zA-Z0-9_.]+)\}")
_EXPORT: Final = re.compile(r"export[ \t\n\r\v\f]+")
_CATEGORIES: Final = frozenset({"Ll", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No"})
"""Unicode categories of characters in names: letters, marks and numbers."""

_ESCAPES: Final = {"f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

UNCLOSED: Final = "a quote is not closed"


class DotenvError(ValueError):
    """An invalid file. The text names the line and repeats no value."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


class _SyntaxError(Exception):
    """An invalid entry."""


class _Text(NamedTuple):
    """A value in pieces, with a mark for each ``$`` that may begin a reference."""

    pieces: list[str]
    marks: list[int]  # of pieces

    def add(self, piece: str) -> None:
        self.pieces.append(piece)

    def mark(self) -> None:
        self.marks.append(len(self.pieces))
        self.pieces.append("$")


def parse(text: str, known: Mapping[str, str]) -> dict[str, str]:
    """The variables that a file sets.

    :param known: the environment. It takes precedence over the file, also for ``${NAME}``.
    :raises DotenvError: phpdotenv would refuse the file, or ignore a part of it.
    """
    found: dict[str, str] = {}
    for number, entry in _entries(text.removeprefix("\ufeff")):
        try:
            name, value = _entry(entry)
        except _SyntaxError as error:
            raise DotenvError(number, str(error)) from None
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _resolve(value, lambda reference: known.get(reference, found.get(reference)))
    return found


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """Each entry with the number of its first line, without comments and empty lines."""
    held: list[str] = []
    first = 0
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if held:
            held.append(line)
            if not _closes(line, 1):
                continue
            yield first, "\n".join(held)
            held = []
        elif '="' in line and not _closes(line, 2):
            held, first = [line], number
        elif (bare := line.strip(_SPACE)) and not bare.startswith("#"):
            yield number, line
    if held:
        raise DotenvError(first, UNCLOSED)


def _closes(line: str, quotes: int) -> bool:
    """Whether a line has this many unescaped double quotes."""
    return line == '"' or len(_QUOTE.findall(line.replace("\\\\", ""))) >= quotes


def _entry(entry: str) -> tuple[str, _Text | None]:
    name, equals, value = entry.partition("=")
    name = _name(name.strip(_SPACE))
    return name, _value(value.strip(_SPACE)) if equals else None


def _name(name: str) -> str:
    if not name:
        raise _SyntaxError("expected a name before the =")
    export = _EXPORT.match(name) if len(name) > 8 else None
    if export is not None:
        name = name[export.end() :]
    if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"":
        name = name[1:-1]
    if not name or not all(_in_name(character) for character in name):
        raise _SyntaxError("expected a name of letters, digits, dots and underscores")
    return name


def _in_name(character: str) -> bool:
    return character in "_." or unicodedata.category(character) in _CATEGORIES


def _value(text: str) -> _Text:
    """Parse a value with phpdotenv's state machine: remove quotes, escapes and the comment."""
    value = _Text([], [])
    state: _State = _start
    for piece in _TOKEN.findall(text):
        state = state(piece, value)
    if state in (_single, _double, _escape):
        raise _SyntaxError(UNCLOSED)
    return value


def _start(piece: str, value: _Text) -> _State:
    quoted = {"'": _single, '"': _double}.get(piece)
    return quoted or _bare(piece, value)


def _bare(piece: str, value: _Text) -> _State:
    if piece == "#":
        return _comment
    if piece[0] in _BLANKS:
        return _end
    if piece == "$":
        value.mark()
    else:
        value.add(piece)
    return _bare


def _single(piece: str, value: _Text) -> _State:
    if piece == "'":
        return _end
    value.add(piece)
    return _single


def _double(piece: str, value: _Text) -> _State:
    if piece == '"':
        return _end
    if piece == "\\":
        return _escape
    if piece == "$":
        value.mark()
    else:
        value.add(piece)
    return _double


def _escape(piece: str, value: _Text) -> _State:
    if piece in ('"', "\\", "$"):
        value.add(piece)
    elif piece[0] in _ESCAPES:
        value.add(_ESCAPES[piece[0]] + piece[1:])
    else:
        raise _SyntaxError('a backslash between double quotes goes with one of " \\ $ f n r t v')
    return _double


def _end(piece: str, value: _Text) -> _State:
    del value
    if piece == "#":
        return _comment
    if piece[0] not in _BLANKS:
        raise _SyntaxError("a value with spaces, or with more behind its quotes, has to be quoted as a whole")
    return _end


def _comment(piece: str, value: _Text) -> _State:
    del piece, value
    return _comment


if TYPE_CHECKING:
    _State = Callable[[str, _Text], "_State"]


def _resolve(value: _Text, look_up: Callable[[str], str | None]) -> str:
    """Replace each ``${NAME}``, from the last to the first, because one may be part of another's name."""
    pieces = value.pieces
    for at in reversed(value.marks):
        if not pieces[at + 1 : at + 2] or not pieces[at + 1].startswith("{"):
            continue
        rest = "".join(pieces[at:])
        match = _REFERENCE.match(rest)
        found = None if match is None else look_up(match[1])
        pieces = [*pieces[:at], rest if match is None or found is None else found + rest[match.end() :]]
    return "".join(pieces)
