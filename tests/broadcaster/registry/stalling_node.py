"""A node in a process of its own whose event loop stands still on demand, for as long as a file is absent.

Run as ``python -m tests.broadcaster.registry.stalling_node REDIS LEASE HANG_LEASES WAY RELEASE``.
SIGUSR1 stalls it. WAY is ``python`` (a busy loop), ``call`` (one call that releases the interpreter's
lock) or ``alone`` (a busy loop, and no thread that renews the lease).
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from functools import partial
from pathlib import Path

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.broadcaster.registry import lease_thread
from legato.broadcaster.registry import redis as redis_registry
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import local_settings


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def stall(release: Path, pause: float) -> None:
    say("stalled")
    while not release.exists():
        if pause:
            time.sleep(pause)
    say("released")


async def main(redis: str, lease: float, hang_leases: float, way: str, release: Path) -> None:
    thread = partial(lease_thread.LeaseThread, hang_leases=hang_leases)
    redis_registry.LeaseThread = thread  # type: ignore[assignment, misc]
    if way == "alone":
        lease_thread.LeaseThread.start = lambda _: None  # type: ignore[method-assign, assignment]
    settings = local_settings(
        server=Server(port=0, drain_seconds=0, lease_seconds=lease), redis=Redis(url=redis)
    )
    async with running(settings) as server:
        work = partial(stall, release, 0.01 if way == "call" else 0.0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, work)
        say(str(server.port))
        await server.ended


if __name__ == "__main__":
    _, redis, lease, hang_leases, way, release = sys.argv
    asyncio.run(main(redis, float(lease), float(hang_leases), way, Path(release)))
