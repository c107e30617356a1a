"""Claude through the official SDK, with everything the SDK would decide by itself decided here.

The SDK's own retries are off: it would sleep for any ``retry-after``, and start over after text was sent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import anthropic
import httpx2

from legato.protocol.settings import SettingsError
from legato.protocol.stream import Usage
from legato.protocol.text import well_formed

from . import base
from .reasons import is_too_long, said_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from anthropic.types import MessageParam, RawMessageStreamEvent

READ_SECONDS: Final = 30.0
"""At least; longer where the model may be silent for longer."""

WRITE_SECONDS: Final = 10.0
POOL_SECONDS: Final = 5.0

# https://platform.claude.com/docs/en/api/errors
# The type decides before the status: an error event in the middle of a stream has status 200.
_BY_TYPE: Final[dict[str | None, type[base.ProviderError]]] = {
    "overloaded_error": base.OverloadedError,
    "rate_limit_error": base.RateLimitedError,
    "request_too_large": base.TooLongError,
    "api_error": base.UnavailableError,
    "timeout_error": base.UnavailableError,
}
_BY_STATUS: Final[dict[int, type[base.ProviderError]]] = {
    408: base.UnavailableError,
    409: base.UnavailableError,
    413: base.TooLongError,
    429: base.RateLimitedError,
    529: base.OverloadedError,
}


class Waits(NamedTuple):
    """Seconds to connect, and those that the caller waits for text: before, no connection is given up."""

    connect: float = 5.0
    silence: float = 0.0


DEFAULT_WAITS: Final = Waits()


class Anthropic:
    """One SDK client for all replies of the process.

    :param base_url: empty for the SDK's own.
    :param system: the system prompt, empty for none.
    :raises SettingsError: ``base_url`` is not an address. The text leaves it out, for it may hold a password.
    """

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        max_tokens: int,
        system: str = "",
        base_url: str = "",
        waits: Waits = DEFAULT_WAITS,
    ) -> None:
        self.model = model
        self._api_key = api_key
        self._max_tokens = max_tokens
        self._system = well_formed(system) or anthropic.omit  # the environment may hold any bytes
        read = max(READ_SECONDS, waits.silence)
        try:
            self._client = anthropic.AsyncAnthropic(
                api_key=api_key,
                base_url=base_url or None,
                max_retries=0,
                timeout=httpx2.Timeout(
                    connect=waits.connect, read=read, write=WRITE_SECONDS, pool=POOL_SECONDS
                ),
            )
        except httpx2.InvalidURL:
            raise SettingsError("provider.base_url: expected an http:// or https:// address") from None

    async def aclose(self) -> None:
        """Close the SDK's connections."""
        await self._client.close()

    async def stream(self, request: base.Request) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        reading = _Reading()
        try:
            source = await self._client.messages.create(
                model=self.model,
                max_tokens=self._max_tokens,
                system=self._system,
                messages=_messages(request),
                cache_control={"type": "ephemeral"},
                stream=True,
            )
            async with source:  # leaving it closes the request, wherever the stream stands
                async for event in source:
                    for answer in reading.feed(event):
                        yield answer
        except (anthropic.APIError, httpx2.HTTPError) as error:
            raise translate(error, self._api_key) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise base.CutError("the stream is garbled") from error
        if not reading.stopped:
            raise base.CutError("the stream ended without message_stop")


class _Reading:
    """The state of one stream: collects the end, which arrives in pieces."""

    def __init__(self) -> None:
        self.stopped = False
        self._stop_reason = ""
        self._usage: dict[str, int] = {}

    def feed(self, event: RawMessageStreamEvent) -> Iterable[base.Event]:
        if self.stopped:  # nothing behind message_stop is of the reply
            return
        if event.type == "message_start":
            yield base.Started(event.message.model)
            yield self._count(event.message.usage)
        elif event.type == "content_block_start":
            if event.content_block.type == "text" and event.content_block.text:
                yield base.Text(event.content_block.text)
        elif event.type == "content_block_delta":
            if event.delta.type == "text_delta" and event.delta.text:
                yield base.Text(event.delta.text)
        elif event.type == "message_delta":
            self._stop_reason = event.delta.stop_reason or self._stop_reason
            yield self._count(event.usage)
        elif event.type == "message_stop":
            self.stopped = True
            yield base.Final(self._stop_reason or "end_turn", Usage(**self._usage))

    def _count(self, usage: Any) -> base.Used:
        """Take over the counts that are given: they are cumulative, and may be absent."""
        for ours, theirs in _USAGE.items():
            count = getattr(usage, theirs, None)
            if isinstance(count, int):
                self._usage[ours] = count
        return base.Used(Usage(**self._usage))


_USAGE: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_input_tokens",
    "cache_write": "cache_creation_input_tokens",
}


def _messages(request: base.Request) -> list[MessageParam]:
    """The conversation as the API takes it: begun by the user, no blank turn.

    To go on, turns are added behind it: what is before them stays the same to the byte, and so in the cache.
    An unfinished assistant turn at the end (prefill) would be refused by current models.
    """
    turns = [turn for turn in request.history if turn.content.strip()]
    while turns and turns[0].role == "assistant":  # its question was cut off by the history's limit
        turns.pop(0)
    said = [*((turn.role, turn.content) for turn in turns), ("user", request.message)]
    if request.continuation:
        said += [("assistant", request.so_far), ("user", request.continuation)]
    return [cast("MessageParam", {"role": role, "content": content}) for role, content in said]


def translate(error: anthropic.APIError | httpx2.HTTPError, api_key: str = "") -> base.ProviderError:
    """The SDK's and its HTTP client's errors in our words, and those of the API behind them.

    :param api_key: what must not be in the text, should the API repeat it.
    """
    if isinstance(error, anthropic.APIStatusError):
        return _translate_status(error, api_key)
    if isinstance(error, anthropic.APITimeoutError | httpx2.TimeoutException):
        return base.StalledError("timed out")
    if isinstance(error, anthropic.APIConnectionError | httpx2.ConnectError):
        return base.UnavailableError("cannot connect")
    if isinstance(error, httpx2.HTTPError):
        return base.CutError(f"the connection broke ({type(error).__name__})")
    return base.ProviderError(type(error).__name__)


def _translate_status(error: anthropic.APIStatusError, api_key: str) -> base.ProviderError:
    said = said_by(error.body, api_key)
    kind = _BY_TYPE.get(error.type) or _BY_STATUS.get(error.status_code)
    if kind is None:
        kind = base.UnavailableError if error.status_code >= 500 else base.RequestRefusedError
    if kind is base.RequestRefusedError and is_too_long(said):
        kind = base.TooLongError
    reason = f"HTTP {error.status_code}, {error.type or 'no type'}, request {error.request_id or 'unknown'}"
    return kind(f"{reason}: {said}" if said else reason, _retry_after(error.response))


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds of ``retry-after``; the API sends whole seconds, never a date."""
    try:
        return max(0.0, float(cast("str", response.headers.get("retry-after"))))
    except (TypeError, ValueError):
        return None
