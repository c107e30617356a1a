"""Tells whoever started this process how it is, in the words of systemd's sd_notify(3).

A supervisor of ours and systemd itself understand the same: ``READY=1``, a ``WATCHDOG=1`` now and then as a
sign of life, ``STOPPING=1``. Words of our own begin with ``X_``, and others pass over them.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESS: Final = "NOTIFY_SOCKET"
"""The environment name of the socket that listens."""

READY: Final = "READY=1"
ALIVE: Final = "WATCHDOG=1"
STOPPING: Final = "STOPPING=1"
RUNNING: Final = "X_RUNNING"
"""How many replies run, with every sign of life."""
OLDEST: Final = "X_OLDEST"
"""Seconds since the oldest of them was claimed, with every sign of life."""


class Notifier:
    """Sends to the socket that ``environ`` names, or nowhere. Never waits and never raises."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get(ADDRESS, "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def send(self, *words: str) -> None:
        """One message of ``NAME=value`` words. Lost if nobody listens, or who does has no time."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto("\n".join(words).encode(), self._address)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
