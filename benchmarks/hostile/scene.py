"""The scene of an attack: two nodes on one Redis, and their observers."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from redis.asyncio import Redis

from legato.benchmarks import stage
from legato.benchmarks.load.orders import LoadTarget

from . import certificate, watch
from .observers import ServerAddress
from .others import Others

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NODES: Final = 2
PER_NODE: Final = 3
"""Observers on each node."""

LEASE_SECONDS: Final = 5

CONFIG: Final = f"""\
[server]
lease_seconds = {LEASE_SECONDS}
drain_seconds = 0
{{server}}
[auth]
jwt_secret = "a secret that no attacker knows"

[[apps]]
id = "{stage.APP_ID}"
key = "{stage.APP_KEY}"
secret = "from the environment"
"""


class Scene(NamedTuple):
    """The nodes and observers. The first node is attacked."""

    stage: stage.BenchmarkStage
    redis: Redis
    leases: set[str]
    others: Others
    tls: bool

    @property
    def pid(self) -> int:
        """Of the attacked node."""
        return self.stage.pids["broadcaster"]

    @property
    def log(self) -> Path:
        """Of the attacked node."""
        return self.stage.directory / "broadcaster.log"

    @property
    def metrics(self) -> str:
        """URL of the attacked node's metrics."""
        return self.stage.metrics[0]

    @property
    def metrics_port(self) -> int:
        """The port of them."""
        return urlsplit(self.metrics).port or 0


@asynccontextmanager
async def scene(redis: str, *, tls: bool) -> AsyncIterator[Scene]:
    """Start everything; ends with the block.

    :param redis: the Redis to run.
    :raises BenchmarkError: a process does not become ready.
    """
    with certificate.made() as files:
        server = f'tls_cert = "{files[0]}"\ntls_key = "{files[1]}"' if tls else ""
        cast = stage.Cast(nodes=NODES, config=CONFIG.format(server=server))
        async with stage.stage(redis, cast) as on:
            trust = ssl.create_default_context(cafile=str(files[0])) if tls else None
            places = [
                ServerAddress(number, _target(on, port, tls=tls), trust)
                for number, port in enumerate(on.ports)
            ]
            async with Redis.from_url(on.redis_url) as client:
                held = await watch.leases(client)
                while len(held) < NODES:
                    await asyncio.sleep(0.05)
                    held = await watch.leases(client)
                async with Others(places, PER_NODE) as others:
                    await others.warm()
                    yield Scene(on, client, held, others, tls)


def _target(on: stage.BenchmarkStage, port: int, *, tls: bool) -> LoadTarget:
    where = ("127.0.0.1", port)
    return LoadTarget("legato", *where, *where, stage.APP_ID, stage.APP_KEY, on.secret, tls=tls)
