"""Carries out the faults of a plan."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .cluster import ChaosCluster
    from .plan import PlannedFault


class Faults:
    """Injects planned faults into a cluster, and undoes them.

    :param cancel_held: cancels some of the replies of a worker process.
    :ivar done: number of injected faults of each kind.
    :ivar kills: when nodes were killed, in seconds since the epoch.
    """

    def __init__(self, cluster: ChaosCluster, cancel_held: Callable[[int], Awaitable[None]]) -> None:
        self.done: Counter[str] = Counter()
        self._cluster = cluster
        self._cancel_held = cancel_held
        self.kills: list[float] = []
        self._redis = asyncio.Lock()

    async def carry_out(self, fault: PlannedFault) -> None:
        """Inject a fault, and return when it is over."""
        await _ACTIONS[fault.kind](self, fault)
        self.done[fault.kind] += 1

    async def kill_worker(self, fault: PlannedFault) -> None:
        """Kill it, as the kernel does without memory."""
        await self._cluster.workers[fault.target].restart(signal.SIGKILL, fault.seconds)

    async def drain_worker(self, fault: PlannedFault) -> None:
        """Stop it in order, as a service manager does."""
        await self._cluster.workers[fault.target].restart(signal.SIGTERM, fault.seconds)

    async def stop_worker(self, fault: PlannedFault) -> None:
        """Stop it for a while, as on an overloaded machine."""
        await self._cluster.workers[fault.target].freeze(fault.seconds)

    async def zombie(self, fault: PlannedFault) -> None:
        """Stop it for longer than its lease; its replies are cancelled or taken over meanwhile."""
        worker = self._cluster.workers[fault.target]
        frozen = asyncio.create_task(worker.freeze(fault.seconds))
        await asyncio.sleep(0.1)
        await self._cancel_held(worker.pid)
        await frozen

    async def kill_node(self, fault: PlannedFault) -> None:
        """Its readers lose their connection."""
        self.kills.append(time.time())
        await self._cluster.nodes[fault.target].restart(signal.SIGKILL, fault.seconds)

    async def stop_node(self, fault: PlannedFault) -> None:
        """Its readers wait."""
        await self._cluster.nodes[fault.target].freeze(fault.seconds)

    async def restart_redis(self, fault: PlannedFault) -> None:
        """Restart Redis from its append-only file."""
        async with self._redis:  # a fail-over may take longer than planned
            await self._cluster.store.master.restart(signal.SIGKILL, fault.seconds)

    async def stop_redis(self, fault: PlannedFault) -> None:
        """All wait."""
        async with self._redis:
            await self._cluster.store.master.freeze(fault.seconds)

    async def fail_over(self, fault: PlannedFault) -> None:
        """Fail over to the replica."""
        async with self._redis:
            await self._cluster.store.fail_over(fault.seconds)

    async def reconnect(self, fault: PlannedFault) -> None:
        """Disconnect and reconnect a reader, as a laptop that is closed and opened."""
        self._cluster.readers.tell("reconnect", reader=fault.target, seconds=fault.seconds)

    async def disturb(self, fault: PlannedFault) -> None:
        """Cut, mute or slow all connections of one link."""
        how, _, where = fault.kind.partition("-")
        link = self._cluster.links.of(where)[fault.target]
        {"cut": link.cut, "mute": link.mute, "slow": link.slow}[how]()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            link.heal()


_ACTIONS: Final[Mapping[str, Callable[[Faults, PlannedFault], Awaitable[None]]]] = {
    "kill-worker": Faults.kill_worker,
    "stop-worker": Faults.stop_worker,
    "zombie": Faults.zombie,
    "drain-worker": Faults.drain_worker,
    "kill-node": Faults.kill_node,
    "stop-node": Faults.stop_node,
    "zombie-node": Faults.stop_node,
    "restart-redis": Faults.restart_redis,
    "stop-redis": Faults.stop_redis,
    "fail-over": Faults.fail_over,
    "reconnect": Faults.reconnect,
    **dict.fromkeys(("cut-worker", "mute-worker", "slow-worker"), Faults.disturb),
    **dict.fromkeys(("cut-node", "mute-node", "slow-node"), Faults.disturb),
    **dict.fromkeys(("cut-readers", "mute-readers", "slow-readers"), Faults.disturb),
}
"""For each of :data:`.plan.KINDS`."""
