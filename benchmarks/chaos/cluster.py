"""All processes of a run: Redis, nodes, workers, readers, and the links between them."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
from typing import TYPE_CHECKING, Final

from legato.deploy import environment

from .app import APP_ID, APP_KEY
from .child import Child
from .plan import GUESTS, LEASE, NODE_LEASE
from .proxy import Link
from .readers import ROOM, Readers
from .receiver import Receiver
from .store import Pair, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from .app import App
    from .plan import Options
    from .proxy import Streams
    from .store import Way

LEGATO: Final = (sys.executable, "-P", "-m", "legato.deploy")
WORKER: Final = (*LEGATO, "worker", "--concurrency", "8")

TRIES: Final = 8
"""Attempts of a reply: more than the faults can use up."""

SETTINGS: Final = """\
[[apps]]
id = "{id}"
key = "{key}"
secret = "{secret}"
activity_timeout = 10
max_presence_members = 200

# Each node has its own path, so that the receiver can distinguish a retry from an event sent twice.
[[apps.webhooks]]
url = "{hook}"
events = ["channel_occupied", "channel_vacated", "member_added", "member_removed"]

[server]
lease_seconds = {lease}

[auth]
channels = ["private-ai-chat.{{sub}}", "{room}"]
"""

_LISTENING: Final = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
_READY: Final = re.compile(r"ready: queue")


def guest_names() -> list[str]:
    """Users who only join and leave."""
    return [f"guest-{number}" for number in range(GUESTS)]


class Cluster:
    """Starts with ``async with``; afterwards every process has its own state.

    :param redis: the path of a redis-server or valkey-server.
    :param directory: for logs and data.
    :param worker: the command of a worker.
    """

    def __init__(self, options: Options, redis: str, directory: Path, worker: Sequence[str] = WORKER) -> None:
        self.options = options
        self.directory = directory
        self.secret = secrets.token_hex(16)
        self.database = directory / "chaos.db"
        kind = Pair if "fail-over" in options.faults else Store
        self.store: Store = kind(redis, directory, _environ("broadcaster", {}))
        self.receiver = Receiver(APP_KEY, self.secret)
        self.node_ways = [self.store.way() for _ in range(options.nodes)]
        self.worker_ways = [self.store.way() for _ in range(options.workers)]
        self.reader_links = [Link(self._dialer(node)) for node in range(options.nodes)]
        self.nodes: list[Child] = []
        self.workers: list[Child] = []
        self.readers = Readers(directory)
        self._worker_command = worker

    @property
    def children(self) -> list[Child]:
        """Every process but the readers'."""
        return [*self.store.children, *self.nodes, *self.workers]

    @property
    def _ways(self) -> list[Way | Link]:
        return [*self.reader_links, *self.node_ways, *self.worker_ways]

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
        await self.store.start()
        await self.receiver.start()
        for way in self._ways:
            await way.start()
        self.nodes = [self._node(number, way) for number, way in enumerate(self.node_ways)]
        self.workers = [self._worker(number, way) for number, way in enumerate(self.worker_ways)]
        await asyncio.gather(*(child.start() for child in (*self.nodes, *self.workers)))

    async def close(self) -> None:
        """End everything."""
        await self.readers.close()
        await asyncio.gather(*(child.close() for child in (*self.workers, *self.nodes)))
        for way in self._ways:
            await way.close()
        await self.receiver.close()
        self.receiver.save(self.directory / "webhooks.jsonl")
        await self.store.close()

    async def open_readers(self, modules: Path, users: Sequence[str], app: App) -> None:
        """Start the readers, and wait until all have subscribed."""
        people = []
        for user_number, user in enumerate(users):
            for number in range(self.options.readers):
                node = (user_number + number) % self.options.nodes
                person = {"name": f"{user}/{number}", "user": user, "node": node, "token": app.token(user)}
                people.append(person | {"port": self.reader_links[node].port})
        guests = [{"name": name, "user": name, "token": app.token(name)} for name in guest_names()]
        await self.readers.start(modules, APP_KEY, people, guests)

    # --- processes

    def _node(self, number: int, way: Way) -> Child:
        config = self.directory / f"legato-{number}.toml"
        hook = f"http://127.0.0.1:{self.receiver.port}/{number}"
        settings = SETTINGS.format(
            id=APP_ID, key=APP_KEY, secret=self.secret, hook=hook, lease=NODE_LEASE, room=ROOM
        )
        config.write_text(settings, encoding="utf-8")
        command = (*LEGATO, "broadcaster", "--config", str(config), "--port", "0", "--metrics-port", "0")
        environ = _environ("broadcaster", {"REDIS_URL": way.url, "LEGATO_AUTH_JWT_SECRET": self.secret})
        return Child(f"node {number}", command, environ, self.directory, _LISTENING)

    def _worker(self, number: int, way: Way) -> Child:
        settings = {
            "REDIS_URL": way.url,
            "DATABASE_URL": f"sqlite:///{self.database}",
            "LEGATO_PROVIDER_NAME": "scripted",
            # Longer than any process is stopped. Otherwise a zombie that wakes up times out at the
            # provider, and never tries the write that the fence must refuse.
            "LEGATO_PROVIDER_NO_TOKEN_SECONDS": "12",
            "LEGATO_PROVIDER_FIRST_TOKEN_SECONDS": "4",
            "LEGATO_WORKER_LEASE": str(LEASE),
            "LEGATO_WORKER_TRIES": str(TRIES),
            "LEGATO_WORKER_DRAIN_SECONDS": "2",
        }
        environ = _environ("worker", settings)
        return Child(f"worker {number}", self._worker_command, environ, self.directory, _READY)

    # --- where links lead

    def _dialer(self, number: int) -> _Dialer:
        return _Dialer(self, number)


class _Dialer:
    """Connect to the current port of a node."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self._number = number

    async def __call__(self) -> Streams:
        ready = self._cluster.nodes[self._number].ready
        if ready is None:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", int(ready[1]))


def _environ(kind: str, settings: dict[str, str]) -> dict[str, str]:
    """The environment of a child, without variables for another Legato on this machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEGATO_", "PG"))}
    return environment.of_child(kind, clean, settings)
