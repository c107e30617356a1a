"""The SDK on aiohttp: connections that fail, stall, are encrypted, or go through a proxy."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from legato.protocol.stream import Usage
from legato.worker.providers import base
from legato.worker.replies.model_request import ModelRequest
from tests import certificates
from tests.waiting import WAIT, until
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.providers.sse_server import SseServer
from tests.worker.support import model_of, said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from legato.worker.providers.anthropic import Anthropic

REQUEST = base.ProviderRequest("Hi")
PATIENT = base.Patience(WAIT, WAIT)
BEGUN = [sse.STREAM, sse.START, sse.BLOCK, sse.text("a")]
END = base.Final("end_turn", Usage(input=11, output=9, cache_read=5))


@asynccontextmanager
async def connected(url: str, waits: base.TimeOuts = base.DEFAULT_TIME_OUTS) -> AsyncIterator[Anthropic]:
    provider = anthropic_provider(api_key="sk-x", model="claude", max_tokens=9, base_url=url, waits=waits)
    try:
        yield provider
    finally:
        await provider.aclose()


async def outcome(
    *script: sse.Step, patience: base.Patience = PATIENT, request: base.ProviderRequest = REQUEST
) -> tuple[list[base.Event], base.ProviderError | None]:
    """What comes of one request."""
    async with SseServer(list(script)) as server, connected(server.url) as provider:
        return await said(provider, request, patience)


CLOSED = sse.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
SHORT = sse.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n")


@pytest.mark.parametrize(
    "script",
    [
        [*BEGUN, sse.ABORT],
        [*BEGUN, sse.RESET],
        [*BEGUN, sse.send(b"99\r\nshort"), sse.ABORT],
        [*BEGUN, sse.EOF_],
        [CLOSED, sse.send(b": no event\n\n"), sse.ABORT],
        [SHORT, sse.send(b": no event\n\n"), sse.ABORT],
    ],
    ids=["closed", "reset", "short-chunk", "end", "closed-unchunked", "short-body"],
)
async def test_stream_that_breaks_off_is_cut(script: list[sse.Step]) -> None:
    """However it does: text may have been sent, so "cannot connect" would be wrong."""
    seen, error = await outcome(*script)
    assert type(error) is base.CutError
    assert [event for event in seen if isinstance(event, base.Text)] in ([base.Text("a")], [])


async def test_chunk_that_is_none_ends_with_the_patience() -> None:
    """aiohttp 3.14 closes the connection then, and forgets to tell who reads."""
    async with SseServer([*BEGUN, sse.HANG]) as server, connected(server.url) as provider:
        model = model_of(provider, base.Patience(first=WAIT, next=0.5))
        request = ModelRequest(model, REQUEST)
        seen: list[base.Event] = []
        while base.Text("a") not in seen:
            seen += [event for _, event in await request.take()]
        server.send(b"no chunk\r\n")
        with pytest.raises(base.StalledError):
            await request.take()


@pytest.mark.parametrize(
    "script",
    [
        [sse.ABORT],
        [sse.RESET],
        [sse.send(b"no HTTP\r\n\r\n"), sse.HANG],
        [sse.send(b"HTTP/1.1 20"), sse.ABORT],
    ],
)
async def test_connection_that_breaks_before_the_answer_is_unavailable(script: list[sse.Step]) -> None:
    seen, error = await outcome(*script)
    assert (seen, type(error)) == ([], base.ProviderUnavailableError)


@pytest.mark.parametrize("script", [[sse.HANG], [*BEGUN, sse.HANG]])
async def test_connection_that_says_nothing_has_stalled(
    script: list[sse.Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("legato.worker.providers.anthropic.MODEL_READ_SECONDS", 0.05)
    _, error = await outcome(*script)
    assert (type(error), str(error)) == (base.StalledError, "timed out")


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # as large as no request is
async def test_request_that_is_not_read_is_given_up_and_closed() -> None:
    """aiohttp has no limit on sending it."""
    closed = asyncio.Event()

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while await reader.read(2**16):
            pass
        closed.set()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0, limit=2**16)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, connected(url) as provider:
        request = base.ProviderRequest("x" * 30_000_000)
        _, error = await said(provider, request, base.Patience(first=0.1, next=9))
        assert type(error) is base.StalledError
        async with asyncio.timeout(WAIT):
            await closed.wait()


async def test_host_that_does_not_answer_is_given_up_after_the_time_to_connect() -> None:
    with socket.socket() as listening, socket.socket() as first:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        first.connect(listening.getsockname())  # the queue is full: further connections get no answer
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with connected(url, base.TimeOuts(connect=0.1)) as provider:
            async with asyncio.timeout(WAIT):
                _, error = await said(provider, REQUEST, PATIENT)
    assert (type(error), str(error)) == (base.StalledError, "timed out")


async def test_time_to_connect_may_be_longer_than_that_for_the_pool() -> None:
    """aiohttp's limit on getting a connection of the pool includes connecting."""
    async with connected("http://127.0.0.1:1", base.TimeOuts(connect=20)) as provider:
        timeout = provider._client.timeout
    assert timeout.pool > timeout.connect == 20


async def test_as_many_requests_at_once_as_a_worker_may_have() -> None:
    """aiohttp's own limit is 100 connections."""
    count = 150
    async with SseServer(*([[sse.HANG]] * count)) as server, connected(server.url) as provider:
        tasks = [asyncio.create_task(said(provider, REQUEST, PATIENT)) for _ in range(count)]
        await until(lambda: len(server.requests) == count)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_compressed_stream_is_read() -> None:
    body = sse.body_of(sse.whole("a", "b"))
    packed = gzip.compress(body)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    seen, error = await outcome(sse.send(head + packed[:50]), sse.send(packed[50:]))
    assert error is None
    assert seen[2:4] == [base.Text("a"), base.Text("b")]
    assert seen[-1] == END


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificates.make(folder)
    return folder


def serving(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


async def test_over_tls_a_certificate_that_is_trusted_serves(
    tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls / "ca.pem"))
    async with (
        SseServer(sse.whole("a"), sse.whole("b"), [*BEGUN, sse.HANG], tls=serving(tls)) as server,
        connected(server.url) as provider,
    ):
        for piece in "ab":
            seen, error = await said(provider, REQUEST, PATIENT)
            assert error is None
            assert seen[2:3] == [base.Text(piece)]
        assert not server.closed.is_set(), "the connection is used again"
        _, error = await said(provider, REQUEST, base.Patience(first=WAIT, next=0.1))
        assert type(error) is base.StalledError
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


async def test_over_tls_a_certificate_that_is_not_trusted_is_refused(tls: Path) -> None:
    async with SseServer(tls=serving(tls)) as server, connected(server.url) as provider:
        _, error = await said(provider, REQUEST, PATIENT)
        assert type(error) is base.ProviderUnavailableError
        assert server.requests == []


@pytest.mark.filterwarnings("ignore:(BasicAuth|The 'proxy_auth' parameter) is deprecated:DeprecationWarning")
async def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SseServer(sse.whole("a")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:secret@"))
        async with connected("http://model.test") as provider:
            seen, error = await said(provider, REQUEST, PATIENT)
    assert error is None
    assert seen[-1] == END
    assert proxy.headers[0].startswith(b"POST http://model.test/v1/messages")
    assert b"proxy-authorization: basic bwu6c2vjcmv0" in proxy.headers[0].lower()


async def test_proxy_is_not_used_for_hosts_that_the_environment_excepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with SseServer(sse.whole("a")) as server, SseServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with connected(server.url) as provider:
            _, error = await said(provider, REQUEST, PATIENT)
    assert error is None
    assert len(server.requests) == 1


async def test_proxy_that_refuses_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SseServer([sse.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with connected("http://model.test") as provider:
            _, error = await said(provider, REQUEST, PATIENT)
    assert type(error) is base.ProviderUnavailableError
