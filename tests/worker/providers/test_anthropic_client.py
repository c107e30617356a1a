"""Requests after the pattern of the first: on the wire they are what the SDK alone would send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tests.worker.providers import sse_server as sse
from tests.worker.providers.sse_server import SseServer

if TYPE_CHECKING:
    import anthropic
    import pytest

BODIES = [{"n": 1}, {"n": 2, "more": "text"}, {"n": 3}]
HEADERS = [{"X-Own": "a"}, {"X-Own": "a"}, {"X-Own": "b"}]


async def heads(client: anthropic.AsyncAnthropic, server: SseServer) -> list[list[str]]:
    """The heads of three requests."""
    from anthropic import AsyncStream  # noqa: PLC0415 - takes long, see claude.py
    from anthropic.types import Message  # noqa: PLC0415

    for body, headers in zip(BODIES, HEADERS, strict=True):
        stream = await client.post(
            str(client.base_url.join("v1/messages")),
            content=msgspec.json.encode(body),
            options={"headers": {"Content-Type": "application/json", **headers}},
            cast_to=Message,
            stream=True,
            stream_cls=AsyncStream[Message],
        )
        await stream.close()
    await client.close()
    return [sorted(head.decode().split("\r\n")) for head in server.headers]


async def test_requests_are_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    import anthropic  # noqa: PLC0415 - takes long, see claude.py

    from legato.worker.providers import anthropic_client  # noqa: PLC0415

    monkeypatch.setattr(anthropic_client, "_HEADS", 1)
    async with SseServer(*(sse.whole("a") for _ in range(6))) as server:
        options = {"api_key": "sk-x", "base_url": server.url}
        ours = await heads(anthropic_client.StreamingClient(**options), server)
        server.headers.clear()
        own = anthropic.AsyncAnthropic(max_retries=0, http_client=anthropic.DefaultAioHttpClient(), **options)
        assert ours == await heads(own, server)
        assert [msgspec.json.decode(body) for body in server.bodies] == BODIES * 2
