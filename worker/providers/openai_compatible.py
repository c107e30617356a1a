"""Provider for servers of the Chat Completions API: OpenAI, OpenRouter, vLLM, Ollama, llama.cpp.

The HTTP client is aiohttp: reading a stream costs half as much as with httpx2. Its ``trust_env`` stays off,
since it would send passwords of ``~/.netrc`` instead of the key.
"""

from __future__ import annotations

import asyncio
import json
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import msgspec

from legato.protocol.settings import SettingsError
from legato.worker.limits import (
    MODEL_MAX_ERROR_BYTES,
    MODEL_READ_SECONDS,
    MODEL_STREAM_END_SECONDS,
    MODEL_USAGE_SECONDS,
)

from . import base, openai_errors, openai_request
from .openai_request import ApiDialect, RequestDefaults
from .openai_stream import StreamReader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

PATH: Final = "chat/completions"

_NOT_A_STREAM: Final = ("application/json", "text/html")
"""Content types of a response with status 200 that is not a stream, such as a web page."""


class ModelServer(NamedTuple):
    """Address and credentials.

    :ivar base_url: the URL without ``/chat/completions``. May have a query, and user and password, which then
        replace the key.
    :ivar api_key: empty for none.
    :ivar headers: additional request headers, treated as secrets.
    """

    base_url: str
    api_key: str = ""
    headers: Mapping[str, str] = MappingProxyType({})

    def __repr__(self) -> str:
        """Without secrets."""
        return "ModelServer(...)"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be logged."""
        password = urlsplit(self.base_url).password or ""
        return tuple(filter(None, (self.api_key, password, *self.headers.values())))


class OpenAiCompatible:
    """One HTTP client for all replies of the process. Made in a running event loop.

    :param system: the system prompt, empty for none.
    :raises SettingsError: the proxy of the environment cannot be used.
    """

    takes_tools = True

    def __init__(
        self,
        server: ModelServer,
        *,
        model: str,
        max_tokens: int,
        system: str = "",
        waits: base.TimeOuts = base.DEFAULT_TIME_OUTS,
    ) -> None:
        self.model = model
        self._url = _endpoint(server.base_url)
        self._defaults = RequestDefaults(model, max_tokens, system)
        self._dialect = ApiDialect()
        self._secrets = server.secrets
        key = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
        self._session = aiohttp.ClientSession(
            headers={
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",  # compressed text would arrive in blocks
                "Content-Type": "application/json",
                **key,
                **server.headers,
            },
            connector=aiohttp.TCPConnector(
                limit=0,  # worker.concurrency is the limit
                ssl=httpx2.create_ssl_context(),  # the certificates that Legato's other requests trust
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=waits.connect, sock_read=max(MODEL_READ_SECONDS, waits.silence)
            ),
            proxy=_proxy(server.base_url),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def stream(self, request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        """See :class:`.base.Provider`."""
        collector = openai_request.collector(request)
        reader = StreamReader(request.options.model or self.model, self._secrets, collector)
        try:
            response = await self._ask(request)
            try:
                body = _Body(response.content)
                while data := await body.read(reader):
                    for event in reader.feed(data):
                        yield event
            finally:
                response.close()  # closes the connection, unless the answer was read to its end
        except (aiohttp.ClientError, TimeoutError) as error:
            raise openai_errors.of_connection(error) from None
        for event in reader.end():
            yield event

    async def _ask(self, request: base.ProviderRequest) -> aiohttp.ClientResponse:
        """Send the request, and again without fields that the server does not support. Returns the stream."""
        dialect = self._dialect
        while True:
            response = await self._post(request, dialect)
            try:
                if _is_stream(response):
                    self._dialect = dialect
                    return response
                body = await _start_of(response.content)
            except BaseException:
                response.close()
                raise
            response.close()
            simpler = dialect.without(response.status, body.decode(errors="replace"))
            if simpler is None:
                raise self._refused(response, body, tools=bool(request.tools))
            dialect = simpler

    async def _post(self, request: base.ProviderRequest, dialect: ApiDialect) -> aiohttp.ClientResponse:
        body = openai_request.build(request, self._defaults, dialect)
        # A redirect could send the key to another host.
        return await self._session.post(self._url, data=msgspec.json.encode(body), allow_redirects=False)

    def _refused(self, response: aiohttp.ClientResponse, body: bytes, *, tools: bool) -> base.ProviderError:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        error = openai_errors.of_answer(response.status, response.headers, said, self._secrets)
        if tools and openai_errors.refuses_tools(response.status, body):
            return base.RequestRefusedError(f"{error} (the model or its server does not take tools)")
        if response.ok and type(error) is base.RequestRefusedError:
            return base.RequestRefusedError(f"{error} (no stream of events: is provider.base_url right?)")
        return error


class _Body:
    """The body of a response. Once the model or the stream has ended, reading it has a deadline."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._clock = asyncio.get_running_loop().time
        self._deadline = math.inf

    async def read(self, reader: StreamReader) -> bytes:
        """The next bytes; empty at the end."""
        if not (reader.finish_reason or reader.done):
            self._deadline = math.inf
            return await self._content.readany()
        wait = MODEL_STREAM_END_SECONDS if reader.done else MODEL_USAGE_SECONDS
        self._deadline = min(self._deadline, self._clock() + wait)
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._content.readany()
        except (aiohttp.ClientError, TimeoutError):
            return b""


def _endpoint(base_url: str) -> str:
    address = urlsplit(base_url)
    return address._replace(path=f"{address.path.rstrip('/')}/{PATH}", fragment="").geturl()


def _proxy(base_url: str) -> str | None:
    """The proxy of the environment for this address: ``http_proxy``, ``https_proxy``, ``no_proxy``."""
    address = urlsplit(base_url)
    proxy = getproxies().get(address.scheme)
    if not proxy or proxy_bypass(address.hostname or ""):
        return None
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise SettingsError(f"{address.scheme}_proxy: expected an http:// address; no_proxy goes without")
    return proxy


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200 and response.content_type not in _NOT_A_STREAM


async def _start_of(content: aiohttp.StreamReader) -> bytes:
    """The body of an error response, up to the bound; what has arrived if the connection breaks."""
    parts, size = [], 0
    try:
        while size < MODEL_MAX_ERROR_BYTES and (part := await content.readany()):
            parts.append(part)
            size += len(part)
    except (aiohttp.ClientError, TimeoutError):
        pass
    return b"".join(parts)[:MODEL_MAX_ERROR_BYTES]
