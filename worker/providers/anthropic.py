"""Claude through the official SDK, with everything the SDK would decide by itself decided here.

The SDK builds and sends the request and reads a refusal. Its own retries are off: it would sleep for any
``retry-after``, and start over after text was sent. The stream is decoded here
(:mod:`.anthropic_events`), and the SDK's HTTP client runs on aiohttp: both for the cost of a token.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import anthropic
import httpx2

from legato.protocol.settings import SettingsError
from legato.protocol.text import well_formed
from legato.worker.limits import MODEL_POOL_SECONDS, MODEL_READ_SECONDS

from . import anthropic_errors as errors
from . import base
from .anthropic_events import ErrorEvent, StreamDecoder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anthropic import AsyncStream
    from anthropic.types import MessageParam, RawMessageStreamEvent


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
        waits: base.TimeOuts = base.DEFAULT_TIME_OUTS,
    ) -> None:
        self.model = model
        self._api_key = api_key
        self._max_tokens = max_tokens
        self._system = well_formed(system) or anthropic.omit  # the environment may hold any bytes
        # aiohttp has no limit on sending the request; the caller's on the model's silence ends that, too.
        timeout = httpx2.Timeout(
            max(MODEL_READ_SECONDS, waits.silence),
            connect=waits.connect,
            pool=waits.connect + MODEL_POOL_SECONDS,
        )
        try:
            self._client = anthropic.AsyncAnthropic(
                api_key=api_key,
                base_url=base_url or None,
                max_retries=0,
                timeout=timeout,
                http_client=anthropic.DefaultAioHttpClient(),
            )
        except httpx2.InvalidURL:
            raise SettingsError("provider.base_url: expected an http:// or https:// address") from None

    async def aclose(self) -> None:
        """Close the SDK's connections."""
        await self._client.close()

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        decoder = StreamDecoder()
        async with await self._send(
            request
        ) as answer:  # leaving it closes the request, wherever the stream is
            response = answer.response
            try:
                async with aclosing(_body(response)) as body:
                    async for data in body:
                        for event in decoder.feed(data):
                            yield event
            except ErrorEvent as error:
                raise errors.of_answer(response, error.body, self._api_key) from None
            except errors.READ_ERRORS as error:
                raise errors.of_reading(error) from error
        if not decoder.ended:
            raise base.CutError("the stream ended without message_stop")

    async def _send(self, request: base.ProviderRequest) -> AsyncStream[RawMessageStreamEvent]:
        try:
            return await self._client.messages.create(
                model=self.model,
                max_tokens=self._max_tokens,
                system=self._system,
                messages=_messages(request),
                cache_control={"type": "ephemeral"},
                stream=True,
            )
        except (anthropic.APIError, httpx2.HTTPError) as error:
            raise errors.of_request(error, self._api_key) from error


def _body(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes; decompressed, though no API compresses a stream."""
    compressed = "content-encoding" in response.headers
    return response.aiter_bytes() if compressed else response.aiter_raw()


def _messages(request: base.ProviderRequest) -> list[MessageParam]:
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
