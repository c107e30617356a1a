"""Start and end of the server, as a process too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from broadcaster.config import Auth, Server
from broadcaster.server import StartError, running
from protocol.settings import Redis, SettingsError
from tests.broadcaster.conftest import client, local_settings
from tests.broadcaster.test_http_api import EVENTS, post

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
    """`legato broadcaster`, with what it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while (match := re.search(pattern, self.output)) is None:
                line = await self.process.stdout.readline()
                assert line, f"it ended without {pattern!r}:\n{self.output}"
                self.output += line.decode()
        return match

    async def end(self) -> int:
        async with asyncio.timeout(20):
            assert self.process.stdout is not None
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()


@contextlib.asynccontextmanager
async def legato(*arguments: str, environ: dict[str, str] | None = None) -> AsyncIterator[Process]:
    """The command with a clean environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEGATO_", "REVERB_"))}
    kept.pop("REDIS_URL", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "deploy", *arguments),
        env=kept | (ENVIRON if environ is None else environ),
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
    (["--port", "0"], ENVIRON | {"REDIS_URL": "http://x"}, 1, "redis.url: expected redis://"),
    (["--port", "0", "--host", "192.0.2.1"], ENVIRON, 1, "192.0.2.1:0 cannot be listened on"),
    (["--port", "0", "--host", "no such host"], ENVIRON, 1, "no such host: not an address"),
    (["--port", "0"], ENVIRON | {"LEGATO_AUTH_CHANNELS": "a b"}, 2, "auth.channels: 'a b'"),
    (
        ["--port", "0"],
        ENVIRON | {"LEGATO_AUTH_JWT_PUBLIC_KEY": "/none"},
        2,
        "auth.jwt_public_key: /none cannot be read",
    ),
    (["--port", "x"], ENVIRON, 2, "invalid int value"),
]


@pytest.mark.parametrize(("arguments", "environ", "status", "reason"), MISTAKES)
async def test_a_mistake_is_one_clear_line(arguments, environ, status, reason):
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


async def test_redis_that_is_not_there_stops_the_start(tmp_path):
    with pytest.raises(StartError, match="Redis cannot be reached"):
        async with running(local_settings(redis=Redis(url=f"unix://{tmp_path}/none.sock"))):
            pass
