"""The listening socket: how many connections one turn of the loop accepts, and how it stops."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from legato.broadcaster.limits import ACCEPTS_PER_TURN

if TYPE_CHECKING:
    from collections.abc import Iterable


def descriptors(listener: socket.socket) -> list[socket.socket]:
    """Several descriptors of one listener; uvicorn closes them.

    In one turn of the loop, libuv accepts one connection of each descriptor. With a single one, a crowd that
    connects to a busy process would be accepted too slowly.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTS_PER_TURN - 1))]


def stop_listening(listeners: Iterable[socket.socket]) -> list[socket.socket]:
    """Stop, and accept the connections that still wait: closing a listener resets them.

    :return: those connections.
    """
    accepted = []
    for listener in listeners:
        listener.setblocking(False)
        with contextlib.suppress(OSError):  # no more connections wait
            while True:
                accepted.append(listener.accept()[0])
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    return accepted
