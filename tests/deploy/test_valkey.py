"""The embedded Valkey, with its real binary."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import redis
import redis.asyncio

from legato.deploy import valkey
from legato.deploy.children import ProcessTree
from legato.deploy.errors import CommandError
from tests.deploy.screen import SECONDS, Screen, alive, screen, unmeasured
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.redis_clusters import Cluster

RUN = """
import asyncio, pathlib, sys
from legato.deploy import valkey
from legato.deploy.children import ProcessTree
from legato.deploy.console import Console
from legato.deploy.errors import CommandError

async def main():
    with valkey.prepared(pathlib.Path(sys.argv[1])) as server:
        async def begin(tree):
            tree.start(server.spec)
            await tree.ready()
            print(server.url, flush=True)
        await ProcessTree(Console(1, ["valkey"], colour=False)).run(begin)

try:
    asyncio.run(main())
except CommandError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """With a space and a quote: paths are handed on as they are. Short, for a socket."""
    with tempfile.TemporaryDirectory(prefix="legato-", dir="/tmp") as directory:
        path = Path(directory, "some data's")
        path.mkdir()
        yield path


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Screen]:
    with screen(tmp_path / "out", "valkey") as shown:
        yield shown


async def serve(shown: Screen, data: Path, use: Callable[[redis.asyncio.Redis], Awaitable[object]]) -> str:
    """Run a server, use it, stop it; returns its address."""
    with valkey.prepared(data) as server:

        async def begin(tree: ProcessTree) -> None:
            tree.start(server.spec)
            await tree.ready()
            async with redis.asyncio.from_url(server.url, decode_responses=True) as client:
                await use(client)
            os.kill(os.getpid(), signal.SIGTERM)

        await ProcessTree(shown.console).run(begin)
        return server.url


async def test_it_keeps_what_it_was_given(shown: Screen, data: Path) -> None:
    async def write(client: redis.asyncio.Redis) -> None:
        await client.set("key", "value")
        config = await client.config_get("append*", "save", "port", "unixsocketperm")
        assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")
        assert (config["save"], config["port"], config["unixsocketperm"]) == ("", "0", "700")

    async def read(client: redis.asyncio.Redis) -> None:
        assert await client.get("key") == "value"

    url = await serve(shown, data, write)
    assert url == f"unix://{quote(str(data))}/valkey.sock"
    await serve(shown, data, read)
    assert "WARNING" not in shown.text


async def test_what_was_answered_outlives_a_crash(shown: Screen, data: Path) -> None:
    """SIGKILL: the append-only file is written before the answer, so only a power cut may lose a second."""

    async def crash(client: redis.asyncio.Redis) -> None:
        for number in range(1000):
            await client.rpush("list", number)
        os.kill((await client.info("server"))["process_id"], signal.SIGKILL)
        await shown.shows("valkey was killed by SIGKILL; it starts again")

    async def read(client: redis.asyncio.Redis) -> None:
        assert await client.llen("list") == 1000

    await serve(shown, data, crash)
    await serve(shown, data, read)


async def test_a_long_path_gets_a_private_socket_elsewhere(shown: Screen, data: Path) -> None:
    deep = data / ("x" * 100)
    deep.mkdir()

    async def look(client: redis.asyncio.Redis) -> None:
        socket = Path((await client.config_get("unixsocket"))["unixsocket"])
        assert len(str(socket)) <= valkey.MAX_SOCKET_PATH
        assert socket.parent.stat().st_mode & 0o777 == 0o700

    url = await serve(shown, deep, look)
    assert not Path(url.removeprefix("unix://")).parent.exists()


def start(data: Path) -> tuple[subprocess.Popen[str], int]:
    """A command that runs a server on ``data``, and the server's pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, data], env=unmeasured(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    with redis.Redis.from_url(url) as client:
        return process, client.info("server")["process_id"]


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_command_is_refused_and_told_who_has_it(data: Path) -> None:
    process, server = start(data)
    try:
        second = subprocess.run(
            [sys.executable, "-c", RUN, data], capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert second.returncode == 1
        assert second.stderr == (
            f"refused: {data} is in use by process {process.pid}: "
            "stop it, or set LEGATO_DATA to another place\n"
        )
        assert alive(server)
        held = [str(fd.readlink()) for fd in Path(f"/proc/{server}/fd").iterdir()]
        assert str(data / "valkey.lock") in held, "it outlives a parent that is gone"
    finally:
        end(process)


def test_it_dies_with_its_parent_and_leaves_no_stale_lock(data: Path) -> None:
    process, server = start(data)
    end(process)
    wait_until(lambda: not alive(server))
    assert (data / "valkey.lock").read_text() == f"{process.pid}\n"
    end(start(data)[0])


def test_a_server_left_behind_is_named(data: Path) -> None:
    """Where the kernel cannot end it with its parent, the server itself holds the lock."""
    (data / "valkey.lock").write_text("not a number\n")
    (data / "valkey.pid").write_text(f"{os.getpid()}\n")
    assert valkey._holder(data) == str(os.getpid())
    (data / "valkey.pid").write_text("9" * 40)
    assert valkey._holder(data) == "(unknown)"
    (data / "valkey.pid").unlink()
    assert valkey._holder(data) == "(unknown)"


def test_a_lock_file_that_cannot_be_opened_is_one_line(data: Path) -> None:
    (data / "valkey.lock").mkdir()
    line = f"LEGATO_DATA: {data / 'valkey.lock'} cannot be locked: Is a directory"
    with pytest.raises(CommandError, match=f"^{re.escape(line)}$"), valkey.prepared(data):
        pass


def test_a_lock_that_was_refused_leaves_no_descriptor(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "_LOCK_SECONDS", 0)
    with valkey.prepared(data):
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(CommandError, match="is in use by process"), valkey.prepared(data):
            pass
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("url", "status", "line"),
    [
        (
            "redis://user:hush@127.0.0.1:1/0",
            1,
            "no Redis answers at redis://127.0.0.1:1/0 .* refused",
        ),
        ("redis://:hush@host.invalid:1", 1, "no Redis answers at redis://host.invalid:1 .*"),
        ("unix:///no/such.sock?password=hush", 1, "no Redis answers at unix:///no/such.sock .*No such file"),
        ("http://:hush@x", 2, "REDIS_URL: expected redis://"),
        ("redis://:hush@x:port", 2, "REDIS_URL: expected redis://"),
    ],
)
async def test_a_redis_that_does_not_answer_is_one_line_without_password(
    url: str, status: int, line: str
) -> None:
    with pytest.raises(CommandError) as caught:
        await valkey.check(url)
    assert caught.value.status == status
    assert re.match(line, str(caught.value))
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_cluster_that_answers_will_do(redis_cluster: Cluster) -> None:
    await valkey.check(redis_cluster.url)
    with pytest.raises(CommandError, match=r"its address begins with redis\+cluster://"):
        await valkey.check(f"redis://{redis_cluster.servers[0].address}")


async def test_a_wrong_password_is_said_to_be_wrong(redis_url: str) -> None:
    await valkey.check(redis_url)
    with pytest.raises(CommandError, match=r"no Redis answers at unix:.*invalid username-password") as caught:
        await valkey.check(f"{redis_url}?username=nobody&password=hush")
    assert "hush" not in str(caught.value)
