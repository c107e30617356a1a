"""Start and stop of the server, also as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from legato.broadcaster.composition import StartError, running
from legato.broadcaster.config import Auth, Server
from legato.deploy import cli
from legato.protocol.settings import Redis, SettingsError
from tests.broadcaster.api.test_http_api import EVENTS, call, post
from tests.broadcaster.conftest import client, local_settings
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENVIRON = {
    "REVERB_APP_ID": "1",
    "REVERB_APP_KEY": "app-key",
    "REVERB_APP_SECRET": "app-secret",
    "LEGATO_METRICS_PORT": "0",
    "LEGATO_SERVER_DRAIN_SECONDS": "0.1",
}


class Process:
    """A process of `legato broadcaster`, with its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line of output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT):
            while (match := re.search(pattern, self.output)) is None:
                line = await self.process.stdout.readline()
                assert line, f"it ended without {pattern!r}:\n{self.output}"
                self.output += line.decode()
        return match

    async def end(self) -> int:
        async with asyncio.timeout(WAIT):
            assert self.process.stdout is not None
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()


@contextlib.asynccontextmanager
async def legato(
    *arguments: str, environ: dict[str, str] | None = None, under: tuple[str, ...] = ()
) -> AsyncIterator[Process]:
    """Run the command with a clean environment, as an argument of the command ``under``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEGATO_", "REVERB_"))}
    kept.pop("REDIS_URL", None)
    process = await asyncio.create_subprocess_exec(
        *(*under, sys.executable, "-m", "legato.deploy", *arguments),
        env=kept | (ENVIRON if environ is None else environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_with_zero(signum):
    async with legato("broadcaster", "--port", "0") as process:
        port = int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])
        async with client(port) as ann:
            await ann.subscribe("a")
            assert await post(port, EVENTS, {"name": "e", "data": "x", "channel": "a"}) == (200, {})
            assert (await ann.receive())["data"] == "x"
            process.process.send_signal(signum)
            assert (await ann.receive())["data"]["code"] == 1012
            assert await ann.closed() == 1012
        assert await process.end() == 0
        assert "Traceback" not in process.output
        assert "app-secret" not in process.output


async def test_a_process_reloads_on_sighup_and_lives(tmp_path):
    file = tmp_path / "legato.toml"
    file.write_text("[log]\nlevel = 'info'\n")
    async with legato("broadcaster", "--port", "0", "--config", str(file), environ=ENVIRON) as process:
        await process.line("listening on ")
        for text, line in (
            ("[server]\nmax_connections = 5\n", "were read again; changed: server.max_connections"),
            (
                "[server]\nmax_conections = 5\n",
                "not reloaded, the settings stay as they were: .*max_conections",
            ),
            (
                "[log]\nlevel = 'loud'\n",
                "not reloaded, the settings stay as they were: log.level .*got 'loud'",
            ),
            ("[server]\nport = 1\nkeep_alive = 9\n", "stay as they were: server.keep_alive\n"),
        ):
            file.write_text(text)
            process.process.send_signal(signal.SIGHUP)
            await process.line(line)
        process.process.terminate()
        assert await process.end() == 0
        assert "Traceback" not in process.output


async def test_a_second_signal_ends_at_once():
    async with legato(
        "broadcaster", "--port", "0", environ=ENVIRON | {"LEGATO_SERVER_DRAIN_SECONDS": "600"}
    ) as process:
        port = int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])
        async with client(port), client(port):
            process.process.terminate()
            await process.line("draining")
            process.process.terminate()
            assert await process.end() == 0


MISTAKES = [
    (["--port", "0"], {}, 2, "legato.*: settings: apps: no application"),
    (["--port", "70000"], ENVIRON, 2, "server.port: Expected `int` <= 65535"),
    (["--port", "0"], ENVIRON | {"REDIS_URL": "redis://127.0.0.1:1"}, 1, "Redis cannot be reached"),
    (["--port", "0"], ENVIRON | {"REDIS_URL": "http://x"}, 2, "redis.url: expected redis://"),
    (["--port", "0", "--host", "192.0.2.1"], ENVIRON, 1, "192.0.2.1:0 cannot be listened on"),
    (["--port", "0", "--host", "no such host"], ENVIRON, 1, "no such host: not an address"),
    (["--port", "0"], ENVIRON | {"LEGATO_AUTH_CHANNELS": "a b"}, 2, "auth.channels: 'a b'"),
    (
        ["--port", "0"],
        ENVIRON | {"LEGATO_AUTH_JWT_PUBLIC_KEY": "/none"},
        2,
        "auth.jwt_public_key: /none cannot be used",
    ),
    (["--port", "x"], ENVIRON, 2, "invalid int value"),
    (
        ["--port", "0"],
        ENVIRON | {"REDIS_URL": "redis://127.0.0.1:1/?foo=bar"},
        2,
        "redis.url: an option is none of ssl_ca_certs",
    ),
    (["--port", "0", "--host", "a..b"], ENVIRON, 1, "a..b: not an address"),
    (["--port", "0"], ENVIRON | {"LEGATO_METRICS_HOST": "a..b"}, 1, "metrics: a..b:0 cannot be listened on"),
    (["--port", "0"], ENVIRON | {"LEGATO_AUTH_JWKS_URL": "notaurl"}, 2, "auth.jwks_url: expected http"),
    (["--port", "0"], ENVIRON | {"LEGATO_DEV_ENABLED": "1"}, 2, "dev.enabled: expected auth.jwt_secret"),
    (
        ["--port", "0"],
        ENVIRON | {"LEGATO_DEV_ENABLED": "1", "LEGATO_AUTH_JWT_SECRET": "s" * 32, "LEGATO_DEV_PAGE": "/none"},
        2,
        "dev.page: /none: no such folder",
    ),
    (
        ["--port", "0"],
        ENVIRON | {"LEGATO_SERVER_TLS_CERT": "/none", "LEGATO_SERVER_TLS_KEY": "/none"},
        2,
        "server.tls_cert, server.tls_key: No such file",
    ),
]


@pytest.mark.parametrize(("arguments", "environ", "status", "reason"), MISTAKES)
def test_an_error_is_one_clear_line(arguments, environ, status, reason, monkeypatch, capfd):
    """The command, in this process: that takes a tenth of the time."""
    for name in os.environ:
        if name.startswith(("LEGATO_", "REVERB_", "REDIS_URL")):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    try:
        found = cli.main(["broadcaster", *arguments])
    except SystemExit as ended:  # argparse's way out
        found = ended.code
    assert found == status
    said = "".join(capfd.readouterr())
    assert re.search(reason, said)
    assert "Traceback" not in said


@pytest.mark.parametrize(("arguments", "environ", "status", "reason"), MISTAKES[:2])
async def test_an_error_is_one_clear_line_of_a_process(arguments, environ, status, reason):
    async with legato("broadcaster", *arguments, environ=environ) as process:
        assert await process.end() == status
        assert re.search(reason, process.output)
        assert "Traceback" not in process.output


async def test_a_port_that_is_taken():
    async with running(local_settings()) as server:
        settings = local_settings(server=Server(port=server.port))
        with pytest.raises(
            StartError, match=f"127.0.0.1:{server.port} cannot be listened on: Address already in use"
        ):
            async with running(settings):
                pass


async def test_two_processes_may_share_a_port_when_told_to():
    reuse = Server(port=0, reuse_port=True, drain_seconds=0)
    async with running(local_settings(server=reuse)) as first:
        shared = Server(port=first.port, reuse_port=True, drain_seconds=0)
        async with running(local_settings(server=shared)) as second:
            assert second.port == first.port


async def test_a_bad_rule_stops_the_start_in_process(tmp_path):
    with pytest.raises(SettingsError):
        async with running(local_settings(auth=Auth(channels=("a b",)))):
            pass


async def test_an_unreachable_redis_stops_the_start(tmp_path):
    with pytest.raises(StartError, match="Redis cannot be reached"):
        async with running(local_settings(redis=Redis(url=f"unix://{tmp_path}/none.sock"))):
            pass


async def test_a_request_that_never_completes_is_cut():
    """A peer that sends nothing, or a little now and then, does not keep a descriptor for ever."""
    settings = local_settings(server=Server(port=0, drain_seconds=0, keep_alive=1, request_seconds=1))
    async with running(settings) as server, client(server.port) as ann:
        for said in (b"", b"GET /up HT", b"GET /up HTTP/1.1\r\nHost: x\r\n\r\nGET /"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            async with asyncio.timeout(10):
                answer = await reader.read()
            assert (b"200 OK" in answer) == said.endswith(b"GET /")
            writer.close()
        # By now it is older than the limit: a WebSocket is not a request.
        await ann.send("pusher:ping")
        assert (await ann.receive())["event"] == "pusher:pong"


async def test_a_client_that_leaves_during_the_drain_does_not_end_it():
    settings = local_settings(server=Server(port=0, drain_seconds=0.5))
    async with running(settings) as server, contextlib.AsyncExitStack() as stack:
        people = [await stack.enter_async_context(client(server.port)) for _ in range(20)]
        drained = asyncio.ensure_future(server.node.drain.run())
        for person in people[10:15]:
            person.connection.transport.abort()
        codes = [await person.closed() for person in people[:10] + people[15:]]
        await drained
        assert set(codes) == {1012}


async def test_readiness_has_a_reason(monkeypatch):
    async with running(local_settings()) as server:

        async def asked(path: str) -> tuple[int, dict[str, str]]:
            return await call(server.port, path, method="GET")

        assert await asked("/up") == await asked("/up?ready") == (200, {"health": "OK"})
        node = server.node
        for part, name, value, reason in (
            (node.clients, "leaving", True, "draining"),
            (node.bus, "connected", False, "not connected to Redis"),
            (node.registry, "held", False, "the node's lease is not held"),
            (node.registry, "stuck", True, "Redis does not take subscriptions"),
        ):
            with monkeypatch.context() as patched:
                patched.setattr(part, name, value)
                assert await asked("/up?ready") == (503, {"health": "not ready", "reason": reason})
                assert (await asked("/up"))[0] == 200
