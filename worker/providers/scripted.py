r"""A model that is none: deterministic text at a steady rate, for demonstrations, tests and load.

Any message gets a short answer made from it. A line in the message that begins with ``#script`` says
otherwise, in words out of these. No other provider reads such lines.

====================  ====================================================================================
``tokens=300``        the tokens ``w0 w1 ...``, this many
``rate=100``          tokens a second; 0 is as fast as possible
``fail=KIND@120``     at the first attempt, a fault in place of the token with index 120: ``overloaded``,
                      ``disconnect``, ``eof``, ``hang`` or ``refusal``. May be given several times
``fail=KIND@120/2``   the same at the second attempt; ``/always`` at every attempt
``overlap=5``         when asked to go on, first repeat the last 5 tokens
====================  ====================================================================================

Asked to go on, it does so from the very token, and refuses a text that it has not said.
"""

from __future__ import annotations

import asyncio
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from legato.protocol.stream import Usage

from . import base

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

RATE: Final = 30
"""Tokens a second, where the message does not say."""

MAX_TOKENS: Final = 100_000
MAX_RATE: Final = 100_000
MAX_FAULTS: Final = 20

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
    """A ``#script`` line that cannot be followed. The text is fit for the user."""


class Fault(NamedTuple):
    """Takes the place of the token with index ``at``. ``attempt`` is None for every attempt."""

    kind: str
    at: int
    attempt: int | None = 1


class Script(NamedTuple):
    """How to answer. ``overlap``: tokens repeated at a overlap."""

    tokens: Sequence[str]
    rate: int = RATE
    faults: tuple[Fault, ...] = ()
    overlap: int = 0

    def fault(self, attempt: int, begin: int) -> Fault | None:
        """The first fault that an attempt meets which begins with token ``begin``."""
        met = [fault for fault in self.faults if fault.at >= begin and fault.attempt in (None, attempt)]
        return min(met, key=lambda fault: fault.at, default=None)

    def said(self, text: str) -> int:
        """How many tokens ``text`` holds.

        :raises RequestRefusedError: it is not made of the first tokens of the script.
        """
        ends = [0, *accumulate(map(len, self.tokens))]
        if len(text) not in ends or not "".join(self.tokens).startswith(text):
            raise base.RequestRefusedError("the text to go on from is not the script's")
        return ends.index(len(text))


class Scripted:
    """See the module."""

    model = "scripted"

    async def aclose(self) -> None:
        """Nothing is open."""

    async def stream(self, request: base.Request) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        script = script_for(request.message)
        clock = asyncio.get_running_loop().time
        began = clock()
        first = script.said(request.so_far)
        fault = script.fault(request.attempt, first)
        if fault and fault.at == first and fault.kind in _RAISED:
            raise _RAISED[fault.kind](fault.kind)  # before the request was even accepted
        yield base.Started(self.model)
        yield base.Used(_usage(request, 0))
        said = script.tokens[max(0, first - script.overlap) if first else 0 : fault.at if fault else None]
        for count, token in enumerate(said, 1):
            if script.rate:  # against the start, so that lateness does not add up
                await asyncio.sleep(max(0.0, began + count / script.rate - clock()))
            yield base.Text(token)
        if fault and fault.kind in _RAISED:
            raise _RAISED[fault.kind](fault.kind)
        if fault and fault.kind == "hang":
            await asyncio.Event().wait()
        yield base.Final("refusal" if fault else "end_turn", _usage(request, len(said)))


def script_for(message: str) -> Script:
    """How to answer ``message``; a bad ``#script`` line is answered with what is wrong."""
    for line in message.splitlines():
        words = line.split()
        if words and words[0] == _MARK:
            try:
                return parse(words[1:])
            except ScriptError as error:
                return Script(_tokens(f"This #script line cannot be followed: {error}."))
    return Script(_tokens(_answer(message)))


def parse(words: Sequence[str]) -> Script:
    """The script out of ``name=value`` words.

    :raises ScriptError: an unknown name, or a value out of its range.
    """
    values, faults = {"tokens": "50", "rate": str(RATE), "overlap": "0"}, []
    for word in words:
        name, _, value = word.partition("=")
        if name == "fail":
            faults.append(value)
        elif name in values:
            values[name] = value
        else:
            raise ScriptError(f"{name[:40]!r} is unknown; expected tokens=, rate=, fail= or overlap=")
    if len(faults) > MAX_FAULTS:
        raise ScriptError(f"fail= comes more than {MAX_FAULTS} times")
    count = _number(f"tokens={values['tokens']}", MAX_TOKENS)
    numbered = [f"w{index} " for index in range(count)]  # distinct: a test sees order, gaps and doubles
    return Script(
        numbered,
        _number(f"rate={values['rate']}", MAX_RATE),
        tuple(_fault(fault, count) for fault in faults),
        _number(f"overlap={values['overlap']}", MAX_TOKENS),
    )


def _number(word: str, most: int) -> int:
    """The number that ends the word."""
    digits = re.search(r"[=@]([0-9]{1,9})\Z", word)
    if not digits or int(digits[1]) > most:
        raise ScriptError(f"{word[:40]} does not end in a number from 0 to {most}")
    return int(digits[1])


def _fault(text: str, count: int) -> Fault:
    where, slash, attempt = text.partition("/")
    kind = where.partition("@")[0]
    if kind not in FAULTS:
        raise ScriptError(f"fail={text[:40]} is not one of {', '.join(FAULTS)} with @TOKEN behind it")
    if slash and attempt != _ALWAYS and not re.fullmatch("[1-9][0-9]{0,2}", attempt):
        raise ScriptError(f"fail={text[:40]} does not end in the number of an attempt, or in {_ALWAYS}")
    at = _number(f"fail={where}", count)
    return Fault(kind, at, None if attempt == _ALWAYS else int(attempt or 1))


def _tokens(text: str) -> Sequence[str]:
    """Words with the blanks before them."""
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


def _usage(request: base.Request, output: int) -> Usage:
    """Words in, tokens out: made up, but the same every time."""
    said = [request.message, *(turn.content for turn in request.history), request.so_far]
    return Usage(input=sum(len(text.split()) for text in said), output=output)
