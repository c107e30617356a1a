"""Reports the state of this process to its supervisor, with the protocol of systemd's sd_notify(3).

Our own supervisor and systemd understand the same messages: ``READY=1``, ``WATCHDOG=1`` as a heartbeat, and
``STOPPING=1``. Our own variables begin with ``X_``; systemd ignores them.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESS: Final = "NOTIFY_SOCKET"
"""Environment variable with the address of the supervisor's socket."""

READY: Final = "READY=1"
ALIVE: Final = "WATCHDOG=1"
STOPPING: Final = "STOPPING=1"
RUNNING: Final = "X_RUNNING"
"""Number of running replies; sent with every heartbeat."""
OLDEST: Final = "X_OLDEST"
"""Seconds since the oldest of them was claimed; sent with every heartbeat."""


class Notifier:
    """Sends to the socket that ``environ`` names, if any. Never blocks and never raises."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get(ADDRESS, "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def send(self, *words: str) -> None:
        """Send ``NAME=value`` assignments as one message. Dropped if the socket is closed or full."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto("\n".join(words).encode(), self._address)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
