r"""Parses ``#script`` lines: what the scripted provider answers. The words are described in docs/worker.md.

The words for parts of the reply count in their order. A step ends behind successive ``tool=`` words, and at
``pause``. Its events are complete but for two things, which only a request determines: the ids of calls, and
the text of ``echo``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from legato.protocol.text import decode_json
from legato.worker.limits import (
    SCRIPTED_INPUT_PIECE_CHARACTERS,
    SCRIPTED_MAX_FAULTS,
    SCRIPTED_MAX_TOKENS,
    SCRIPTED_MAX_TOKENS_PER_SECOND,
    SCRIPTED_MAX_WORD_CHARACTERS,
    SCRIPTED_MAX_WORDS,
    SCRIPTED_TOKENS_PER_SECOND,
)

from . import base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FAULTS: Final = ("overloaded", "disconnect", "hang", "refusal", "eof")

_MARK: Final = "#script"
_ALWAYS: Final = "always"
_NAME: Final = r"[A-Za-z0-9_-]{1,64}"
_CALL: Final = re.compile(rf"({_NAME})(?::(.*))?", re.DOTALL)
_WORD: Final = re.compile(rf"\s*((?:tool|server)={_NAME}:(?=\{{)|\S+)")
_PROSE_WORD: Final = re.compile(r"\s*\S+")
_decoder: Final = msgspec.json.Decoder()


class ScriptError(ValueError):
    """An invalid ``#script`` line. The text can be shown to the user."""


class Echo(NamedTuple):
    """Stands for the outputs of the latest tool calls, as text."""


class TokenRun(NamedTuple):
    """Stands for numbered pieces: tokens ``w0 w1 ...``, or reasoning ``r0 r1 ...``.

    They are distinct, so that tests notice reordering, gaps and duplicates.
    """

    mark: str
    begin: int
    end: int

    def events(self) -> Iterator[base.Event]:
        """The events, made one after the other: there may be very many."""
        make: Callable[[str], base.Event] = base.Text if self.mark == "w" else base.Reasoning
        return (make(f"{self.mark}{index} ") for index in range(self.begin, self.end))


ScriptItem: TypeAlias = base.Event | Echo | TokenRun


class Fault(NamedTuple):
    """A fault in place of the event with index ``at``. ``attempt``: None for every attempt."""

    kind: str
    at: int
    attempt: int | None = 1


class ScriptedStep(NamedTuple):
    """What one request is answered. The ``call`` of an event is its number in the reply, from 0.

    :ivar calls: numbers of the calls whose results the next request must bring.
    """

    items: list[ScriptItem]
    calls: tuple[str, ...]
    stop_reason: str


class ScriptedReply(NamedTuple):
    """An answer, of one step at least. ``overlap``: how many tokens a continuation repeats."""

    steps: tuple[ScriptedStep, ...]
    rate: int = SCRIPTED_TOKENS_PER_SECOND
    faults: tuple[Fault, ...] = ()
    overlap: int = 0

    def fault(self, attempt: int, begin: int, end: int) -> Fault | None:
        """The first fault of an attempt between two events, both included."""
        met = [
            fault for fault in self.faults if begin <= fault.at <= end and fault.attempt in (None, attempt)
        ]
        return min(met, key=lambda fault: fault.at, default=None)


def script_for(message: str) -> ScriptedReply:
    """The answer to ``message``. The answer to an invalid ``#script`` line is its error."""
    for line in message.splitlines():
        mark, *rest = line.split(maxsplit=1) or ("",)
        if mark == _MARK:
            try:
                return parse("".join(rest))
            except ScriptError as error:
                return _prose(f"This #script line is invalid: {error}.")
    return _prose(_answer(message))


def parse(line: str) -> ScriptedReply:
    """Parse the words behind ``#script``.

    :raises ScriptError: an unknown word, or a value out of its range.
    """
    parser = _ScriptParser()
    for word in _words(line):
        name, equals, value = word.partition("=")
        take = _TAKES.get(name + equals)
        if take is None:
            expected = f"{', '.join(list(_TAKES)[:-1])} or {list(_TAKES)[-1]}"
            raise ScriptError(f"{name[:40]!r} is unknown; expected {expected}")
        take(parser, value)
    return parser.reply()


def _words(line: str) -> Iterator[str]:
    """The words. A JSON object behind ``tool=NAME:`` is part of the word, spaces included."""
    at = 0
    for _ in range(SCRIPTED_MAX_WORDS + 1):
        found = _WORD.match(line, at)
        if found is None:
            return
        word, at = found[1], found.end()
        if line.startswith("{", at):
            begin, at = at, _end_of_object(line, at)
            word += line[begin:at]
        if len(word) > SCRIPTED_MAX_WORD_CHARACTERS:
            raise ScriptError(f"{word[:40]}… has more than {SCRIPTED_MAX_WORD_CHARACTERS} characters")
        yield word
    raise ScriptError(f"there are more than {SCRIPTED_MAX_WORDS} words")


def _end_of_object(line: str, begin: int) -> int:
    """Where the JSON object that begins there ends; a blank must follow it."""
    text = line[begin : begin + SCRIPTED_MAX_WORD_CHARACTERS]
    try:
        _, length = json.JSONDecoder().raw_decode(text)
        decode_json(_decoder, text[:length])
    except (ValueError, RecursionError, msgspec.DecodeError):
        raise ScriptError(f"{text[:40]} is not the beginning of a JSON object") from None
    if not text[length : length + 1].isspace() and len(text) > length:
        raise ScriptError(f"{text[:length][-40:]} must be followed by a space")
    return begin + length


class _ScriptParser:
    """What was read of a line: the finished steps, and the one that is being read."""

    def __init__(self) -> None:
        self._steps: list[ScriptedStep] = []
        self._items: list[ScriptItem] = []
        self._calls: list[str] = []
        self._counts = {"w": 0, "r": 0, "call": 0, "event": 0}
        self._begun = False
        self._echoes = False
        self._settings = {"rate": str(SCRIPTED_TOKENS_PER_SECOND), "overlap": "0"}
        self._faults: list[str] = []

    def reply(self) -> ScriptedReply:
        """The answer. A script without parts is one of 50 tokens."""
        if not self._begun:
            self.tokens("50")
        self._end("end_turn")
        if len(self._faults) > SCRIPTED_MAX_FAULTS:
            raise ScriptError(f"fail= is given more than {SCRIPTED_MAX_FAULTS} times")
        most = SCRIPTED_MAX_TOKENS if self._echoes else self._counts["event"] - 1
        return ScriptedReply(
            tuple(self._steps),
            _number(f"rate={self._settings['rate']}", SCRIPTED_MAX_TOKENS_PER_SECOND),
            tuple(_fault(fault, most) for fault in self._faults),
            _number(f"overlap={self._settings['overlap']}", SCRIPTED_MAX_TOKENS),
        )

    def setting(self, name: str, value: str) -> None:
        self._settings[name] = value

    def fail(self, value: str) -> None:
        self._faults.append(value)

    def tokens(self, value: str) -> None:
        self._run("w", f"tokens={value}")

    def reason(self, value: str) -> None:
        self._run("r", f"reason={value}")

    def _run(self, mark: str, word: str) -> None:
        begin, count = self._counts[mark], _number(word, SCRIPTED_MAX_TOKENS)
        self._counts[mark] += count
        self._add([TokenRun(mark, begin, begin + count)], count)

    def cite(self, value: str) -> None:
        if not re.fullmatch(r"https?://\S+", value):
            raise ScriptError(f"cite={value[:40]} is not an address with http:// or https://")
        self._add([base.Citation(url=value)])

    def tool(self, value: str) -> None:
        name, arguments = _call(f"tool={value}")
        call = self._new_call()
        pieces = [
            base.ToolInput(call, arguments[at : at + SCRIPTED_INPUT_PIECE_CHARACTERS])
            for at in range(0, len(arguments), SCRIPTED_INPUT_PIECE_CHARACTERS)
        ]
        self._add_to_step([base.ToolStart(call, name), *pieces, base.ToolCall(call, name, arguments)])
        self._calls.append(call)

    def server(self, value: str) -> None:
        name, arguments = _call(f"server={value}")
        try:
            given = decode_json(_decoder, arguments)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ScriptError(f"server={value[:40]}: expected JSON after the colon") from None
        call = self._new_call()
        result = base.ServerToolResult(call, name, ok=True, output={"input": given})
        self._add([base.ServerToolCall(call, name, given), result])

    def echo(self, _value: str) -> None:
        if not self._counts["call"] or not any((*self._calls, *(step.calls for step in self._steps))):
            raise ScriptError("echo stands before the first tool=")
        self._echoes = True
        self._add([Echo()])

    def pause(self, _value: str) -> None:
        self._add([])
        self._end("pause_turn")

    def _new_call(self) -> str:
        self._counts["call"] += 1
        return str(self._counts["call"] - 1)

    def _add(self, items: Sequence[ScriptItem], events: int | None = None) -> None:
        """Add what is no call: it belongs to the next step if there were calls.

        :param events: their number, where it is not that of the items.
        """
        if self._calls:
            self._end("tool_use")
        self._add_to_step(items, events)

    def _add_to_step(self, items: Sequence[ScriptItem], events: int | None = None) -> None:
        self._begun = True
        self._items += items
        self._count(len(items) if events is None else events)

    def _end(self, stop_reason: str) -> None:
        """End the step. One that calls tools is followed by another in any case."""
        if stop_reason == "end_turn" and self._calls:
            self._end("tool_use")
        self._steps.append(ScriptedStep(self._items, tuple(self._calls), stop_reason))
        self._items, self._calls = [], []
        self._count(1)

    def _count(self, events: int) -> None:
        self._counts["event"] += events
        if self._counts["event"] > SCRIPTED_MAX_TOKENS + 1:  # the end of the last step is one
            raise ScriptError(f"the reply has more than {SCRIPTED_MAX_TOKENS} events")


_TAKES: Final[dict[str, Callable[[_ScriptParser, str], None]]] = {
    "tokens=": _ScriptParser.tokens,
    "reason=": _ScriptParser.reason,
    "tool=": _ScriptParser.tool,
    "server=": _ScriptParser.server,
    "cite=": _ScriptParser.cite,
    "echo": _ScriptParser.echo,
    "pause": _ScriptParser.pause,
    "rate=": lambda parser, value: parser.setting("rate", value),
    "fail=": _ScriptParser.fail,
    "overlap=": lambda parser, value: parser.setting("overlap", value),
}


def _call(word: str) -> tuple[str, str]:
    """Name and arguments; the arguments need not be JSON, as with a real model."""
    found = _CALL.fullmatch(word.partition("=")[2])
    if found is None:
        raise ScriptError(f"{word[:40]}: expected NAME or NAME:JSON after the equals sign")
    return found[1], "{}" if found[2] is None else found[2]


def _number(word: str, most: int) -> int:
    """The number at the end of the word."""
    digits = re.search(r"[=@]([0-9]{1,9})\Z", word)
    if not digits or int(digits[1]) > most:
        raise ScriptError(f"{word[:40]} does not end with a number from 0 to {most}")
    return int(digits[1])


def _fault(text: str, most: int) -> Fault:
    where, slash, attempt = text.partition("/")
    kind = where.partition("@")[0]
    if kind not in FAULTS:
        raise ScriptError(f"fail={text[:40]}: expected KIND@INDEX, where KIND is one of {', '.join(FAULTS)}")
    if slash and attempt != _ALWAYS and not re.fullmatch("[1-9][0-9]{0,2}", attempt):
        raise ScriptError(
            f"fail={text[:40]}: expected the number of an attempt, or {_ALWAYS}, after the slash"
        )
    at = _number(f"fail={where}", most)
    return Fault(kind, at, None if attempt == _ALWAYS else int(attempt or 1))


def _prose(text: str) -> ScriptedReply:
    return ScriptedReply((ScriptedStep([base.Text(word) for word in spoken(text)], (), "end_turn"),))


def spoken(text: str) -> list[str]:
    """Words, each with the spaces before it."""
    return _PROSE_WORD.findall(text)


def _answer(message: str) -> str:
    words = re.findall(r"\w+", message)
    quoted = " ".join(message.split())
    short = quoted if len(quoted) <= 120 else f"{quoted[:119]}…"
    counted = "one word" if len(words) == 1 else f"{len(words)} words"
    longest = max(words, key=len, default="that")
    return (
        f"You wrote: “{short}” I count {counted}, and the one that stays with me is “{longest}”. "
        "I am the scripted stand-in for a model, so I know nothing about it, but every word of this answer "
        "travels the whole way: from a worker, through the token log, over the WebSocket, to this page. "
        "Put an API key in place and a real model answers here instead."
    )
