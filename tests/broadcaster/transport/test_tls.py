"""The port with TLS: a returning client resumes its session where possible."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

import pytest
from websockets.asyncio.client import connect

from tests.broadcaster.conftest import Client
from tests.broadcaster.test_server import ENVIRON, legato
from tests.certificates import make as make_certificates
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@contextlib.asynccontextmanager
async def broadcaster(folder: Path) -> AsyncIterator[int]:
    """A process and its port."""
    files = {"TLS_CERT": folder / "server.pem", "TLS_KEY": folder / "server.key"}
    environ = {f"LEGATO_SERVER_{name}": str(file) for name, file in files.items()}
    async with legato("broadcaster", "--port", "0", environ=ENVIRON | environ) as process:
        yield int((await process.line(r"listening on https://127\.0\.0\.1:(\d+)"))[1])


def client_of(folder: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.minimum_version = context.maximum_version = version
    return context


class Visit(NamedTuple):
    status: str
    reused: bool | None
    session: ssl.SSLSession | None


async def visit(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Visit:
    """Connect with an earlier TLS session, and request ``/up``."""
    return await asyncio.to_thread(_visit, port, context, session)


def _visit(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> Visit:
    with (
        socket.create_connection(("127.0.0.1", port), WAIT) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
    ):
        secure.sendall(b"GET /up HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: secure.recv(4096), b""))  # with TLS 1.3, tickets come before it
        return Visit(answer.decode().splitlines()[0], secure.session_reused, secure.session)


async def test_a_returning_client_resumes_its_session(certificates):
    async with broadcaster(certificates) as port:
        for version in VERSIONS:
            context = client_of(certificates, version)
            first = await visit(port, context)
            second = await visit(port, context, first.session)
            third = await visit(port, context, second.session)
            stranger = await visit(port, context)
            visits = (first, second, third, stranger)
            assert {one.status for one in visits} == {"HTTP/1.1 200 OK"}
            assert [one.reused for one in visits] == [False, True, True, False], version


async def test_a_session_of_another_process_is_ignored(certificates):
    """Each process has its own ticket keys, so the handshake is a full one."""
    async with broadcaster(certificates) as port, broadcaster(certificates) as other_port:
        for version in VERSIONS:
            context = client_of(certificates, version)
            first = await visit(port, context)
            there = await visit(other_port, context, first.session)
            back = await visit(port, context, first.session)
            assert (there.status, there.reused) == ("HTTP/1.1 200 OK", False), version
            assert (back.status, back.reused) == ("HTTP/1.1 200 OK", True), version


async def test_clients_subscribe_over_tls(certificates):
    async with broadcaster(certificates) as port:
        context = client_of(certificates, ssl.TLSVersion.TLSv1_3)
        async with connect(f"wss://127.0.0.1:{port}/app/app-key?protocol=7", ssl=context) as connection:
            client = Client(connection)
            assert (await client.receive())["event"] == "pusher:connection_established"
            assert (await client.subscribe("room"))["event"] == "pusher_internal:subscription_succeeded"
