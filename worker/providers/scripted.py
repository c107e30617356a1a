r"""A model that is none: deterministic text at a steady rate, for demonstrations, tests and load.

Any message gets a short answer made from it. A line ``#script tokens=300 rate=100 fail=overloaded@120`` in
the message asks for 300 tokens ``w0 w1 ...``, 100 a second, and a fault in place of the token with index 120.
``rate=0`` is as fast as possible. No other provider reads such lines.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from protocol.stream import Usage

from . import base

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

RATE: Final = 30
"""Tokens a second, where the message does not say."""

MAX_TOKENS: Final = 100_000
MAX_RATE: Final = 100_000

FAULTS: Final = ("overloaded", "disconnect", "hang", "refusal", "eof")

_RAISED: Final[dict[str, type[base.ProviderError]]] = {
    "overloaded": base.OverloadedError,
    "disconnect": base.CutError,
    "eof": base.CutError,
}
_MARK: Final = "#script"
_WORD: Final = re.compile(r"\s*\S+")


class ScriptError(ValueError):
    """A ``#script`` line that cannot be followed. The text is fit for the user."""


class Script(NamedTuple):
    """How to answer. ``fail_at`` is the index of the token that ``fault`` takes the place of."""

    tokens: Sequence[str]
    rate: int = RATE
    fault: str | None = None
    fail_at: int = 0


class Scripted:
    """See the module."""

    model = "scripted"

    async def aclose(self) -> None:
        """Nothing is open."""

    async def stream(self, request: base.Request) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        script = script_for(request.message)
        clock = asyncio.get_running_loop().time
        begin = clock()
        if script.fault in _RAISED and script.fail_at == 0:
            raise _RAISED[script.fault](script.fault)  # before the request was even accepted
        yield base.Started(self.model)
        for index, token in enumerate(script.tokens):
            if index == script.fail_at and script.fault:
                break
            if script.rate:  # against the start, so that lateness does not add up
                await asyncio.sleep(max(0.0, begin + (index + 1) / script.rate - clock()))
            yield base.Text(token)
        if script.fault in _RAISED:
            raise _RAISED[script.fault](script.fault)
        if script.fault == "hang":
            await asyncio.Event().wait()
        yield base.Final("refusal" if script.fault else "end_turn", _usage(request, script))


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
    values = {"tokens": "50", "rate": str(RATE), "fail": ""}
    for word in words:
        name, _, value = word.partition("=")
        if name not in values:
            raise ScriptError(f"{name[:40]!r} is unknown; expected tokens=, rate= or fail=")
        values[name] = value
    count = _number(f"tokens={values['tokens']}", MAX_TOKENS)
    rate = _number(f"rate={values['rate']}", MAX_RATE)
    fault, fail_at = _fault(values["fail"], count) if values["fail"] else (None, 0)
    numbered = [f"w{index} " for index in range(count)]  # distinct: a test sees order, gaps and doubles
    return Script(numbered, rate, fault, fail_at)


def _number(word: str, most: int) -> int:
    """The number that ends the word."""
    digits = re.search(r"[=@]([0-9]{1,9})\Z", word)
    if not digits or int(digits[1]) > most:
        raise ScriptError(f"{word[:40]} does not end in a number from 0 to {most}")
    return int(digits[1])


def _fault(text: str, count: int) -> tuple[str, int]:
    fault = text.partition("@")[0]
    if fault not in FAULTS:
        raise ScriptError(f"fail={text[:40]} is not one of {', '.join(FAULTS)} with @TOKEN behind it")
    return fault, _number(f"fail={text}", count)


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


def _usage(request: base.Request, script: Script) -> Usage:
    """Words in, tokens out: made up, but the same every time."""
    said = [request.message, *(turn.content for turn in request.history)]
    said_tokens = script.fail_at if script.fault else len(script.tokens)
    return Usage(input=sum(len(text.split()) for text in said), output=said_tokens)
