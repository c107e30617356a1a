"""All processes of a run: Redis, nodes, workers, readers, and the links between them."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from . import ledger
from .app import APP_KEY
from .links import Links
from .plan import GUESTS
from .programs import WORKER, ChaosPrograms, environ_of
from .readers import Readers
from .receiver import WebhookReceiver
from .store import ChaosRedis, Pair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from .app import ChatApp
    from .child import ClusterProcess
    from .plan import Options


def guest_names() -> list[str]:
    """Users who only join and leave."""
    return [f"guest-{number}" for number in range(GUESTS)]


class ChaosCluster:
    """Starts with ``async with``; afterwards every process has its own state.

    :param redis: the path of a redis-server or valkey-server.
    :param directory: for logs and data.
    :param worker: the command of a worker.
    """

    def __init__(self, options: Options, redis: str, directory: Path, worker: Sequence[str] = WORKER) -> None:
        self.options = options
        self.directory = directory
        self.secret = secrets.token_hex(16)
        kind = Pair if "fail-over" in options.faults else ChaosRedis
        self.store: ChaosRedis = kind(redis, directory, environ_of("broadcaster", {}))
        self.receiver = WebhookReceiver(APP_KEY, self.secret)
        self.links = Links(options, self.store, lambda number: self.nodes[number])
        self.nodes: list[ClusterProcess] = []
        self.workers: list[ClusterProcess] = []
        self.readers = Readers(directory)
        self.programs = ChaosPrograms(directory, self.secret, worker)

    @property
    def children(self) -> list[ClusterProcess]:
        """Every process but the readers'."""
        return [*self.store.children, *self.nodes, *self.workers]

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
        ledger.create(self.programs.ledger)
        await self.store.start()
        await self.receiver.start()
        await self.links.start()
        hooks = f"http://127.0.0.1:{self.receiver.port}"
        self.nodes = [
            self.programs.node(number, link.url, f"{hooks}/{number}")
            for number, link in enumerate(self.links.nodes)
        ]
        self.workers = [
            self.programs.worker(number, link.url) for number, link in enumerate(self.links.workers)
        ]
        await asyncio.gather(*(child.start() for child in (*self.nodes, *self.workers)))

    async def close(self) -> None:
        """End everything."""
        await self.readers.close()
        await asyncio.gather(*(child.close() for child in (*self.workers, *self.nodes)))
        await self.links.close()
        await self.receiver.close()
        self.receiver.save(self.directory / "webhooks.jsonl")
        await self.store.close()

    async def open_readers(self, modules: Path, users: Sequence[str], app: ChatApp) -> None:
        """Start the readers, and wait until all have subscribed."""
        people = []
        for user_number, user in enumerate(users):
            for number in range(self.options.readers):
                node = (user_number + number) % self.options.nodes
                person = {"name": f"{user}/{number}", "user": user, "node": node, "token": app.token(user)}
                people.append(person | {"port": self.links.readers[node].port})
        guests = [{"name": name, "user": name, "token": app.token(name)} for name in guest_names()]
        await self.readers.start(modules, APP_KEY, people, guests)
