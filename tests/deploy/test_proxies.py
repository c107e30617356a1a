"""The samples for proxies, in real proxies, in front of a real broadcaster.

Only addresses are replaced: the proxies listen on sockets in the file system, so that no port has to be free.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from websockets.asyncio.client import unix_connect

from legato.broadcaster.composition import running
from legato.broadcaster.redis_client import redis_client
from tests import certificates
from tests.broadcaster.api.test_http_api import signed
from tests.broadcaster.conftest import APP, Client
from tests.broadcaster.doors.conftest import Answer, asking_over, bearer, open_settings
from tests.broadcaster.replies.test_healing import COMPLETE, Writer
from tests.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SAMPLES = Path(__file__).parents[2] / "deploy" / "proxy"
LEGATO = "127.0.0.1:8080"
SESSION = "/pusher/app/app-key/123/0123abcd/xhr_streaming?protocol=7&client=js&version=8.6.0&t=1&n=1"

NGINX = """
daemon off; pid {place}/nginx.pid; error_log {place}/error.log; {user}
events {{}}
http {{
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    include {place}/site.conf;
}}
"""


def replaced(sample: str, *pairs: tuple[str, str]) -> str:
    text = (SAMPLES / sample).read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def program(name: str) -> str:
    """The path of a proxy, which on Debian is not on everybody's PATH."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path, f"{name} is missing: `make test` installs it, or says so"
    return path


def nginx(place: Path, port: int) -> list[str]:
    """Write what nginx needs to ``place``. Returns its command."""
    site = replaced(
        "nginx.conf",
        (LEGATO, f"127.0.0.1:{port}"),
        ("listen 80;", f"listen unix:{place}/plain;"),
        ("listen 443 ssl", f"listen unix:{place}/tls ssl"),
        ("/etc/ssl/legato/fullchain.pem", f"{place}/server.pem"),
        ("/etc/ssl/legato/key.pem", f"{place}/server.key"),
        ("/var/log/nginx/legato.log", f"{place}/access.log"),
    )
    (place / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(NGINX.format(place=place, user=user))
    return [program("nginx"), "-c", f"{place}/nginx.conf", "-e", f"{place}/error.log"]


def haproxy(place: Path, port: int) -> list[str]:
    """Write what HAProxy needs to ``place``. Returns its command."""
    text = replaced(
        "haproxy.cfg",
        (LEGATO, f"127.0.0.1:{port}"),
        ("bind :80\n", f"bind unix@{place}/plain\n"),
        ("bind :443 ssl", f"bind unix@{place}/tls ssl"),
        ("/etc/ssl/legato/combined.pem", f"{place}/combined.pem"),
    )
    (place / "haproxy.cfg").write_text(text)
    both = (place / "server.pem").read_text() + (place / "server.key").read_text()
    (place / "combined.pem").write_text(both)
    return [program("haproxy"), "-db", "-f", f"{place}/haproxy.cfg"]


def accepts(path: Path) -> bool:
    """Whether somebody listens on a socket in the file system: nginx does a moment after it has made it."""
    with socket.socket(socket.AF_UNIX) as dialled:
        return dialled.connect_ex(str(path)) == 0


class Proxy(NamedTuple):
    place: Path
    tls: ssl.SSLContext

    @contextlib.asynccontextmanager
    async def asking(self, method: str, path: str, body: bytes = b"", **fields: str) -> AsyncIterator[Answer]:
        """A request over TLS whose answer is read as it comes."""
        reader, writer = await asyncio.open_unix_connection(
            f"{self.place}/tls", ssl=self.tls, server_hostname="127.0.0.1"
        )
        named = {"host": "127.0.0.1"} | {name.replace("_", "-"): value for name, value in fields.items()}
        async with asking_over(reader, writer, f"{method} {path}", body, named) as answer:
            yield answer

    async def ask(self, method: str, path: str, body: bytes = b"", **fields: str) -> tuple[int, str]:
        async with self.asking(method, path, body, **fields) as answer:
            await answer.rest()
        return answer.status, answer.text


@contextlib.asynccontextmanager
async def in_front_of(port: int, kind: Any, place: Path) -> AsyncIterator[Proxy]:
    certificates.make(place)
    with (place / "said").open("w") as said:
        process = await asyncio.create_subprocess_exec(*kind(place, port), stdout=said, stderr=said)
    try:
        await until(lambda: accepts(place / "tls") or process.returncode is not None)
        assert process.returncode is None, (place / "said").read_text()
        yield Proxy(place, ssl.create_default_context(cafile=f"{place}/ca.pem"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def event_arrives(proxy: Proxy) -> None:
    """Over a WebSocket, published through the proxy, too."""
    uri = "wss://127.0.0.1/app/app-key?protocol=7"
    async with unix_connect(f"{proxy.place}/tls", uri, ssl=proxy.tls) as connection:
        client = Client(connection)
        client.socket_id = json.loads((await client.receive())["data"])["socket_id"]
        answer = await client.subscribe("private-orders")
        assert answer["event"] == "pusher_internal:subscription_succeeded"
        body = json.dumps({"name": "shipped", "channel": "private-orders", "data": "{}"}).encode()
        assert (await proxy.ask("POST", signed(f"/apps/{APP.id}/events", body), body))[0] == 200
        assert (await client.receive())["event"] == "shipped"


async def answers_arrive_as_they_are_written(proxy: Proxy, redis: Any) -> None:
    """The HTTP fallback, which does not ask proxies for it, and a door."""
    async with proxy.asking("POST", SESSION) as answer:
        await answer.until(b"connection_established")
    writer = await Writer(redis).begin()
    await writer.says("Hel")
    async with proxy.asking("GET", "/api/chat/m/events", **bearer()) as answer:
        await answer.until(b"Hel")
        await writer.says("lo")
        await answer.until(b'"lo"')
        await writer.ends(COMPLETE)
        await answer.rest()
    assert not answer.broken


async def large_bodies_reach_legato(proxy: Proxy) -> None:
    """As large as ``server.max_request_bytes`` allows, and one byte larger: Legato says why it refuses."""
    path = f"/apps/{APP.id}/events"
    start = b'{"name":"a","channel":"b","data":"'
    for size, reason in ((1_048_576, "data content"), (1_048_577, "body is larger")):
        body = start + b"x" * (size - len(start) - 2) + b'"}'
        status, text = await proxy.ask("POST", signed(path, body), body)
        assert (status, reason in text) == (413, True), text


async def other_upgrades_are_harmless(proxy: Proxy) -> None:
    fields = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}
    assert await proxy.ask("GET", "/up", **fields) == (200, '{"health":"OK"}')


async def plain_http_is_sent_to_tls(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_unix_connection(f"{proxy.place}/plain")
    writer.write(b"GET /up HTTP/1.1\r\nhost: chat.example.com\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(WAIT):
        answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 301 ")
    assert "\r\nlocation: https://chat.example.com/up\r\n" in answer.lower()


@pytest.mark.parametrize("kind", [nginx, haproxy])
async def test_legato_works_behind_it(kind: Any, valkey_url: str, tmp_path: Path) -> None:
    async with (
        running(open_settings(valkey_url)) as server,
        redis_client(valkey_url) as redis,
        in_front_of(server.port, kind, tmp_path) as proxy,
    ):
        await event_arrives(proxy)
        await answers_arrive_as_they_are_written(proxy, redis)
        await large_bodies_reach_legato(proxy)
        await other_upgrades_are_harmless(proxy)
        await plain_http_is_sent_to_tls(proxy)
