r"""A provider without a model, for demonstrations, tests and load: deterministic text at a steady rate.

It answers a message with a short text about it, unless a line of the message begins with ``#script``. Then
the following words on that line determine the answer. Other providers do not interpret such lines.

====================  ====================================================================================
``tokens=300``        300 tokens: ``w0 w1 ...``
``rate=100``          tokens per second; 0: as fast as possible
``fail=KIND@120``     in the first attempt, a fault in place of the token with index 120: ``overloaded``,
                      ``disconnect``, ``eof``, ``hang`` or ``refusal``. Can be repeated
``fail=KIND@120/2``   the same in the second attempt; ``/always``: in every attempt
``overlap=5``         a continuation repeats the last 5 tokens first
====================  ====================================================================================

A continuation starts exactly where the text ended. A text that is not the beginning of the script is refused.
"""

from __future__ import annotations

import asyncio
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from legato.protocol.stream import Usage
from legato.worker.limits import (
    SCRIPTED_MAX_FAULTS,
    SCRIPTED_MAX_TOKENS,
    SCRIPTED_MAX_TOKENS_PER_SECOND,
    SCRIPTED_TOKENS_PER_SECOND,
)

from . import base

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

FAULTS: Final = ("overloaded", "disconnect", "hang", "refusal", "eof")

_RAISED: Final[dict[str, type[base.ProviderError]]] = {
    "overloaded": base.OverloadedError,
    "disconnect": base.CutError,
    "eof": base.CutError,
}
_MARK: Final = "#script"
_ALWAYS: Final = "always"
_WORD: Final = re.compile(r"\s*\S+")


class ScriptError(ValueError):
    """An invalid ``#script`` line. The text can be shown to the user."""


class Fault(NamedTuple):
    """A fault in place of the token with index ``at``. ``attempt``: None for every attempt."""

    kind: str
    at: int
    attempt: int | None = 1


class ScriptedReply(NamedTuple):
    """An answer. ``overlap``: how many tokens a continuation repeats."""

    tokens: Sequence[str]
    rate: int = SCRIPTED_TOKENS_PER_SECOND
    faults: tuple[Fault, ...] = ()
    overlap: int = 0

    def fault(self, attempt: int, begin: int) -> Fault | None:
        """The first fault of an attempt that starts with token ``begin``."""
        met = [fault for fault in self.faults if fault.at >= begin and fault.attempt in (None, attempt)]
        return min(met, key=lambda fault: fault.at, default=None)

    def said(self, text: str) -> int:
        """How many tokens ``text`` consists of.

        :raises RequestRefusedError: it does not consist of the first tokens of the script.
        """
        ends = [0, *accumulate(map(len, self.tokens))]
        if len(text) not in ends or not "".join(self.tokens).startswith(text):
            raise base.RequestRefusedError("the text to continue is not the beginning of the script")
        return ends.index(len(text))


class Scripted:
    """The provider ``scripted``; see the module."""

    model = "scripted"

    async def aclose(self) -> None:
        """Does nothing: no connection is open."""

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        script = script_for(request.message)
        clock = asyncio.get_running_loop().time
        began = clock()
        first = script.said(request.so_far)
        fault = script.fault(request.attempt, first)
        if fault and fault.at == first and fault.kind in _RAISED:
            raise _RAISED[fault.kind](fault.kind)  # before Started: the request was not accepted
        yield base.RequestAccepted(self.model)
        yield base.Used(_usage(request, 0))
        said = script.tokens[max(0, first - script.overlap) if first else 0 : fault.at if fault else None]
        for count, token in enumerate(said, 1):
            if script.rate:  # relative to the start, so that delays do not add up
                await asyncio.sleep(max(0.0, began + count / script.rate - clock()))
            yield base.Text(token)
        if fault and fault.kind in _RAISED:
            raise _RAISED[fault.kind](fault.kind)
        if fault and fault.kind == "hang":
            await asyncio.Event().wait()
        yield base.Final("refusal" if fault else "end_turn", _usage(request, len(said)))


def script_for(message: str) -> ScriptedReply:
    """The answer to ``message``. The answer to an invalid ``#script`` line is its error."""
    for line in message.splitlines():
        words = line.split()
        if words and words[0] == _MARK:
            try:
                return parse(words[1:])
            except ScriptError as error:
                return ScriptedReply(_tokens(f"This #script line is invalid: {error}."))
    return ScriptedReply(_tokens(_answer(message)))


def parse(words: Sequence[str]) -> ScriptedReply:
    """Parse ``name=value`` words.

    :raises ScriptError: an unknown name, or a value out of its range.
    """
    values, faults = {"tokens": "50", "rate": str(SCRIPTED_TOKENS_PER_SECOND), "overlap": "0"}, []
    for word in words:
        name, _, value = word.partition("=")
        if name == "fail":
            faults.append(value)
        elif name in values:
            values[name] = value
        else:
            raise ScriptError(f"{name[:40]!r} is unknown; expected tokens=, rate=, fail= or overlap=")
    if len(faults) > SCRIPTED_MAX_FAULTS:
        raise ScriptError(f"fail= is given more than {SCRIPTED_MAX_FAULTS} times")
    count = _number(f"tokens={values['tokens']}", SCRIPTED_MAX_TOKENS)
    numbered = [
        f"w{index} " for index in range(count)
    ]  # distinct, so that tests notice reordering, gaps and duplicates
    return ScriptedReply(
        numbered,
        _number(f"rate={values['rate']}", SCRIPTED_MAX_TOKENS_PER_SECOND),
        tuple(_fault(fault, count) for fault in faults),
        _number(f"overlap={values['overlap']}", SCRIPTED_MAX_TOKENS),
    )


def _number(word: str, most: int) -> int:
    """The number at the end of the word."""
    digits = re.search(r"[=@]([0-9]{1,9})\Z", word)
    if not digits or int(digits[1]) > most:
        raise ScriptError(f"{word[:40]} does not end with a number from 0 to {most}")
    return int(digits[1])


def _fault(text: str, count: int) -> Fault:
    where, slash, attempt = text.partition("/")
    kind = where.partition("@")[0]
    if kind not in FAULTS:
        raise ScriptError(f"fail={text[:40]}: expected KIND@TOKEN, where KIND is one of {', '.join(FAULTS)}")
    if slash and attempt != _ALWAYS and not re.fullmatch("[1-9][0-9]{0,2}", attempt):
        raise ScriptError(
            f"fail={text[:40]}: expected the number of an attempt, or {_ALWAYS}, after the slash"
        )
    at = _number(f"fail={where}", count)
    return Fault(kind, at, None if attempt == _ALWAYS else int(attempt or 1))


def _tokens(text: str) -> Sequence[str]:
    """Words, each with the spaces before it."""
    return _WORD.findall(text)


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


def _usage(request: base.ProviderRequest, output: int) -> Usage:
    """Invented but deterministic usage: words of the request, tokens of the answer."""
    said = [request.message, *(turn.content for turn in request.history), request.so_far]
    return Usage(input=sum(len(text.split()) for text in said), output=output)
