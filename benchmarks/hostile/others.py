"""All observers of an attack."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final

from legato.benchmarks.errors import BenchmarkError

from .observers import Newcomers, ObservingClient, Publisher
from .stream_observer import StreamObserver

if TYPE_CHECKING:
    from typing import Self

    from .observers import Follower, Other, ServerAddress

WARM: Final = 2
LONGEST: Final = 60.0
"""Seconds after which a missing event counts as lost."""


class Others:
    """All observers on all nodes. The first node is attacked."""

    def __init__(self, places: list[ServerAddress], per_node: int) -> None:
        self.observers: list[Follower] = [
            ObservingClient(place, number) for place in places for number in range(1, per_node + 1)
        ]
        self.observers += [StreamObserver(place) for place in places]
        self.publishers = [Publisher(place, number) for number, place in enumerate(places)]
        self.newcomers = Newcomers(places[0])
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for one in self._everyone:
                await stack.enter_async_context(one)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.aclose()

    @property
    def _everyone(self) -> list[Other]:
        return [*self.observers, *self.publishers, self.newcomers]

    async def warm(self) -> None:
        """Wait until every observer has done everything a few times, because first times are slow.

        :raises BenchmarkError: one cannot.
        """
        everything = (
            *(one.pings for one in self.observers),
            *(one.answers for one in self.publishers),
            self.newcomers.greetings,
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST):
                while not all(len(samples) >= WARM for samples in everything):  # noqa: ASYNC110 - as below
                    await asyncio.sleep(0.02)
                return
        raise BenchmarkError(f"the servers do not serve: {self.faults() or 'they do not answer'}")

    async def settled(self, moment: float, limit: float = LONGEST) -> bool:
        """Wait until everything scheduled before ``moment`` is answered, and all events have arrived."""
        published = [publisher.accepted for publisher in self.publishers]
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._owed(moment) or self.missing(published):  # noqa: ASYNC110 - many tell it
                    await asyncio.sleep(0.02)
                return True
        return False

    def _owed(self, moment: float) -> bool:
        return any(due < moment for one in self._everyone if not one.faults for due in one.waiting)

    def missing(self, published: list[int]) -> int:
        """Published events that have not arrived at a connected observer."""
        return sum(
            max(0, count - observer.next.get(number, 0))
            for observer in self.observers
            if not observer.faults
            for number, count in enumerate(published)
        )

    def faults(self) -> list[str]:
        """The faults. A fault that several observers saw is one entry with their names."""
        seen: dict[str, list[str]] = {}
        for one in self.observers:
            for fault in one.faults:
                seen.setdefault(fault, []).append(one.name)
        found = [f"{', '.join(dict.fromkeys(names))}: {fault}" for fault, names in seen.items()]
        for other in self._everyone[len(self.observers) :]:
            found += other.faults
        return found
