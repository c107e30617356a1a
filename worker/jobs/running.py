"""The jobs that a process has claimed and not yet let go of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from legato.worker.replies.stop import Control, StoppableRequest


class RunningJob(NamedTuple):
    """One job.

    :ivar message_id: empty for a job that cannot be decoded.
    :ivar since: when it was claimed, by the clock of :class:`RunningJobs`.
    """

    message_id: str
    since: float
    control: Control
    task: asyncio.Task[None]


class RunningJobs:
    """All running jobs of one process, by the id of their stream entry.

    A job is *settling* once its outcome is known: its lease is not renewed any more.

    :param clock: seconds; it stands still while Redis or the database is down.
    :ivar ended: how many jobs have ended, in whatever way.
    :ivar changed: set when a job ends. Shared with the consumer, which sets it for its own reasons too.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ended = 0
        self.changed = asyncio.Event()
        self._clock = clock
        self._jobs: dict[bytes, RunningJob] = {}
        self._settling: set[bytes] = set()
        self._abandoned: set[StoppableRequest] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(self._jobs.values())

    def __contains__(self, entry_id: bytes) -> bool:
        return entry_id in self._jobs

    def get(self, entry_id: bytes) -> RunningJob | None:
        """The job of this entry, if it runs."""
        return self._jobs.get(entry_id)

    def add(self, entry_id: bytes, message_id: str, control: Control, task: asyncio.Task[None]) -> None:
        """A job starts; it is removed when its task ends."""
        self._jobs[entry_id] = RunningJob(message_id, self._clock(), control, task)
        task.add_done_callback(lambda _: self._remove(entry_id))

    def _remove(self, entry_id: bytes) -> None:
        self._jobs.pop(entry_id, None)
        self._settling.discard(entry_id)
        self.ended += 1
        self.changed.set()

    def settle(self, entry_id: bytes) -> None:
        """The job's outcome is known."""
        self._settling.add(entry_id)

    def is_settling(self, entry_id: bytes) -> bool:
        """Whether the job's outcome is known."""
        return entry_id in self._settling

    def leased(self) -> list[bytes]:
        """Entries whose lease has to be renewed."""
        return [entry_id for entry_id in self._jobs if entry_id not in self._settling]

    @property
    def oldest(self) -> float:
        """Seconds since the oldest claim among the leased jobs; 0 without any."""
        now = self._clock()
        return max((0.0, *(now - self._jobs[entry_id].since for entry_id in self.leased())))

    async def until_empty(self) -> None:
        """Wait until no job runs."""
        while self._jobs:
            self.changed.clear()
            await self.changed.wait()

    def abandon(self, request: StoppableRequest) -> None:
        """The job ends although its request to the model has not closed."""
        self._abandoned.add(request)

    @property
    def abandoned(self) -> int:
        """How many abandoned requests are still open."""
        self._abandoned = {request for request in self._abandoned if not request.closed}
        return len(self._abandoned)
