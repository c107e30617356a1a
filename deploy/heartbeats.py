"""Heartbeats of child processes: one socket per child, on which it speaks sd_notify(3)."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.worker.supervisor import notify

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST: Final = 4096
_NUMBERS: Final = {notify.RUNNING: "running", notify.OLDEST: "oldest"}


class ChildStatus:
    """The last status of one child.

    :ivar stopping: it claims no more jobs and will end.
    :ivar running: its running replies.
    :ivar oldest: seconds since the oldest of them was claimed.
    """

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self.address = str(path)
        self.stopping = False
        self.running = 0
        self.oldest = 0
        self._ready = False
        self._seen = time.monotonic()
        self._changed = changed
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self.address)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def silent(self, seconds: float, starting: float) -> bool:
        """Whether it has been silent for ``seconds``, or for ``starting`` seconds before it is ready."""
        bound = seconds if self._ready else max(seconds, starting)
        return time.monotonic() - self._seen > bound

    def excuse(self, seconds: float) -> None:
        """Do not count these seconds, in which this process itself did not run."""
        self._seen = min(self._seen + seconds, time.monotonic())

    def forget(self) -> None:
        """Reset the status for a new process."""
        self._ready, self.stopping, self.running, self.oldest = False, False, 0, 0
        self._seen = time.monotonic()

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        Path(self.address).unlink(missing_ok=True)

    def _receive(self) -> None:
        try:
            words = self._socket.recv(_LONGEST).decode("utf-8", "replace").splitlines()
        except OSError:
            return
        self._seen = time.monotonic()
        self._ready = self._ready or notify.READY in words
        for word in words:
            name, _, value = word.partition("=")
            if name in _NUMBERS and value.isascii() and value.isdigit():
                setattr(self, _NUMBERS[name], int(value[:9]))
        if notify.STOPPING in words and not self.stopping:
            self.stopping = True
            self._changed()


class StallClock:
    """Measures how long this process itself did not run. Silence of children in that time does not count.

    Otherwise a machine that stands still as a whole would make a parent kill all of its children.

    :param every: interval between two calls of :meth:`look`, in seconds.
    """

    def __init__(self, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._last = clock()

    def look(self) -> float:
        """By how many seconds this call is later than expected after the previous one."""
        now = self._clock()
        late = now - self._last - self._every
        self._last = now
        return max(late, 0.0)


class HeartbeatSockets:
    """A private directory with the sockets."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="legato-"))
        self._count = 0

    def listen(self, changed: Callable[[], None]) -> ChildStatus:
        """Create a socket. ``changed`` is called when its child begins to stop."""
        self._count += 1
        return ChildStatus(self._directory / str(self._count), changed)

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self._directory, ignore_errors=True)
