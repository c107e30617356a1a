"""The connections of a run through which faults can be injected: each is a proxy, or several."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .proxy import ProxyLink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .child import ClusterProcess
    from .plan import Options
    from .proxy import Streams
    from .store import ChaosRedis, Way


class Links:
    """``workers`` and ``nodes`` lead to Redis, ``readers`` to the nodes; each by number.

    :param find_node: the process of a node, which may not run.
    """

    def __init__(
        self, options: Options, store: ChaosRedis, find_node: Callable[[int], ClusterProcess]
    ) -> None:
        self.nodes = [store.way() for _ in range(options.nodes)]
        self.workers = [store.way() for _ in range(options.workers)]
        self.readers = [ProxyLink(_Dialer(find_node, node)) for node in range(options.nodes)]

    @property
    def _all(self) -> list[Way | ProxyLink]:
        return [*self.readers, *self.nodes, *self.workers]

    async def start(self) -> None:
        """Listen."""
        for link in self._all:
            await link.start()

    async def close(self) -> None:
        """Stop listening, and cut all connections."""
        for link in self._all:
            await link.close()

    def of(self, kind: str) -> Sequence[Way | ProxyLink]:
        """The links of a kind of process: ``worker``, ``node`` or ``readers``."""
        kinds: dict[str, Sequence[Way | ProxyLink]] = {
            "worker": self.workers,
            "node": self.nodes,
            "readers": self.readers,
        }
        return kinds[kind]


class _Dialer:
    """Connects to the current port of a node."""

    def __init__(self, find_node: Callable[[int], ClusterProcess], number: int) -> None:
        self._find_node = find_node
        self._number = number

    async def __call__(self) -> Streams:
        ready = self._find_node(self._number).ready
        if ready is None:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", int(ready[1]))
