"""Claude through the official SDK, with everything the SDK would decide by itself decided here.

The SDK builds and sends the request and reads a refusal. Its own retries are off: it would sleep for any
``retry-after``, and start over after text was sent. The stream is decoded here
(:mod:`.anthropic_events`), and the SDK's HTTP client runs on aiohttp: both for the cost of a token.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import anthropic
import httpx2
import msgspec
from anthropic import AsyncStream
from anthropic.types import Message, RawMessageStreamEvent

from legato.protocol.settings import SettingsError
from legato.worker.limits import MODEL_POOL_SECONDS, MODEL_READ_SECONDS

from . import anthropic_errors as errors
from . import anthropic_request, base
from .anthropic_client import StreamingClient
from .anthropic_content import ContentReader
from .anthropic_events import ErrorEvent, StreamDecoder
from .anthropic_steps import names_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


_JSON: Final = {"Content-Type": "application/json"}


class Anthropic:
    """One SDK client for all replies of the process.

    :cvar takes_tools: see :func:`.base.takes_tools`.

    :param base_url: empty for the SDK's own.
    :param system: the system prompt, empty for none.
    :raises SettingsError: ``base_url`` is not an address. The text leaves it out, for it may hold a password.
    """

    takes_tools = True
    takes_server_tools = True

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
        self._defaults = anthropic_request.Defaults(model, max_tokens, system)
        # aiohttp has no limit on sending the request; the caller's on the model's silence ends that, too.
        timeout = httpx2.Timeout(
            max(MODEL_READ_SECONDS, waits.silence),
            connect=waits.connect,
            pool=waits.connect + MODEL_POOL_SECONDS,
        )
        try:
            self._client = StreamingClient(api_key=api_key, base_url=base_url or None, timeout=timeout)
        except httpx2.InvalidURL:
            raise SettingsError("provider.base_url: expected an http:// or https:// address") from None

        self._url = str(self._client.base_url.join("v1/messages"))  # whole, the SDK has less to do

    async def aclose(self) -> None:
        """Close the SDK's connections."""
        await self._client.close()

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        content = ContentReader(names_of(request.steps)) if anthropic_request.collects(request) else None
        decoder = StreamDecoder(content)
        secrets = (self._api_key, *anthropic_request.secrets(request.options))
        async with await self._send(
            request, secrets
        ) as answer:  # leaving it closes the request, wherever the stream is
            response = answer.response
            try:
                async with aclosing(_body(response)) as body:
                    async for data in body:
                        for event in decoder.feed(data):
                            yield event
            except ErrorEvent as error:
                raise errors.of_answer(response, error.body, *secrets) from None
            except errors.READ_ERRORS as error:
                raise errors.of_reading(error) from error
        if not decoder.ended:
            raise base.CutError("the stream ended without message_stop")

    async def _send(
        self, request: base.ProviderRequest, secrets: tuple[str, ...]
    ) -> AsyncStream[RawMessageStreamEvent]:
        fields, betas = anthropic_request.build(request, self._defaults)
        try:
            return await self._client.post(
                self._url,
                content=msgspec.json.encode(fields),
                options={"headers": {**_JSON, **({"anthropic-beta": ",".join(betas)} if betas else {})}},
                cast_to=Message,
                stream=True,
                stream_cls=AsyncStream[RawMessageStreamEvent],
            )
        except (anthropic.APIError, httpx2.HTTPError) as error:
            raise errors.of_request(error, *secrets) from error


def _body(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes; decompressed, though no API compresses a stream."""
    compressed = "content-encoding" in response.headers
    return response.aiter_bytes() if compressed else response.aiter_raw()
