"""All that runs: Redis, nodes, workers, readers, and the links between them."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

from deploy import environment

from .app import APP_ID, APP_KEY
from .child import Child
from .plan import LEASE
from .proxy import Link
from .readers import Readers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from .app import App
    from .plan import Options
    from .proxy import Streams

LEGATO: Final = (sys.executable, "-P", "-m", "deploy")
WORKER: Final = (*LEGATO, "worker", "--concurrency", "8")

TRIES: Final = 8
"""Attempts of a reply: more than faults of processes use up, so that none ends because it was out of luck."""

SETTINGS: Final = """\
[[apps]]
id = "{id}"
key = "{key}"
secret = "{secret}"
activity_timeout = 10
"""

_LISTENING: Final = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
_READY: Final = re.compile(r"ready: queue")
_ACCEPTS: Final = re.compile(r"[Rr]eady to accept connections (at|unix)")


class Cluster:
    """Started by ``async with``; after that every process has a state of its own.

    :param redis: the path of a redis-server or valkey-server.
    :param directory: for logs and data.
    :param worker: the command of a worker.
    """

    def __init__(self, options: Options, redis: str, directory: Path, worker: Sequence[str] = WORKER) -> None:
        self.options = options
        self.directory = directory
        self.secret = secrets.token_hex(16)
        self._sockets = Path(tempfile.mkdtemp(prefix="legato-chaos-"))  # a socket's path must be short
        self._socket = self._sockets / "redis.sock"
        self.database = directory / "chaos.db"
        self.redis = self._redis_child(redis)
        self.admin = Redis.from_url(f"unix://{self._socket}")
        self.node_links = [Link(self._dial_redis) for _ in range(options.nodes)]
        self.worker_links = [Link(self._dial_redis) for _ in range(options.workers)]
        self.reader_links = [Link(self._dialer(node)) for node in range(options.nodes)]
        self.nodes: list[Child] = []
        self.workers: list[Child] = []
        self.readers = Readers(directory)
        self._worker_command = worker

    @property
    def children(self) -> list[Child]:
        """Every process but the readers'."""
        return [self.redis, *self.nodes, *self.workers]

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        await self.redis.start()
        for link in (*self.node_links, *self.worker_links, *self.reader_links):
            await link.start()
        config = self.directory / "legato.toml"
        config.write_text(SETTINGS.format(id=APP_ID, key=APP_KEY, secret=self.secret), encoding="utf-8")
        self.nodes = [self._node(number, link, config) for number, link in enumerate(self.node_links)]
        self.workers = [self._worker(number, link) for number, link in enumerate(self.worker_links)]
        await asyncio.gather(*(child.start() for child in (*self.nodes, *self.workers)))

    async def close(self) -> None:
        """End everything."""
        await self.readers.close()
        await asyncio.gather(*(child.close() for child in (*self.workers, *self.nodes)))
        for link in (*self.reader_links, *self.node_links, *self.worker_links):
            if link.port:
                await link.close()
        await self.redis.close()
        await self.admin.aclose()
        shutil.rmtree(self._sockets, ignore_errors=True)

    async def open_readers(self, modules: Path, users: Sequence[str], app: App) -> None:
        """Start the readers, and wait until all have subscribed."""
        people = []
        for user_number, user in enumerate(users):
            for number in range(self.options.readers):
                node = (user_number + number) % self.options.nodes
                person = {"name": f"{user}/{number}", "user": user, "node": node, "token": app.token(user)}
                people.append(person | {"port": self.reader_links[node].port})
        await self.readers.start(modules, APP_KEY, people)

    # --- processes

    def _redis_child(self, binary: str) -> Child:
        data = self.directory / "redis"
        data.mkdir()
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(data),
            "appendonly": "yes",
            # What was acknowledged, or told to anybody, is in the file before that: a kill loses nothing.
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
        }
        command = [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
        return Child("redis", command, _environ("broadcaster", {}), self.directory, _ACCEPTS)

    def _node(self, number: int, link: Link, config: Path) -> Child:
        command = (*LEGATO, "broadcaster", "--config", str(config), "--port", "0", "--metrics-port", "0")
        settings = {"REDIS_URL": f"redis://127.0.0.1:{link.port}", "LEGATO_AUTH_JWT_SECRET": self.secret}
        environ = _environ("broadcaster", settings)
        return Child(f"node {number}", command, environ, self.directory, _LISTENING)

    def _worker(self, number: int, link: Link) -> Child:
        settings = {
            "REDIS_URL": f"redis://127.0.0.1:{link.port}",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "LEGATO_PROVIDER_NAME": "scripted",
            # Longer than any process is stopped: else a zombie that wakes has lost patience with the
            # provider, and never comes to write what the fence has to refuse.
            "LEGATO_PROVIDER_NO_TOKEN_SECONDS": "12",
            "LEGATO_PROVIDER_FIRST_TOKEN_SECONDS": "4",
            "LEGATO_WORKER_LEASE": str(LEASE),
            "LEGATO_WORKER_TRIES": str(TRIES),
            "LEGATO_WORKER_DRAIN_SECONDS": "2",
        }
        environ = _environ("worker", settings)
        return Child(f"worker {number}", self._worker_command, environ, self.directory, _READY)

    # --- where links lead

    async def _dial_redis(self) -> Streams:
        return await asyncio.open_unix_connection(self._socket)

    def _dialer(self, number: int) -> _Dialer:
        return _Dialer(self, number)


class _Dialer:
    """Leads to whatever port a node has now."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self._number = number

    async def __call__(self) -> Streams:
        ready = self._cluster.nodes[self._number].ready
        if ready is None:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", int(ready[1]))


def _environ(kind: str, settings: dict[str, str]) -> dict[str, str]:
    """What a child needs to run, and nothing that was set for another Legato on this machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEGATO_", "PG"))}
    return environment.of_child(kind, clean, settings)
