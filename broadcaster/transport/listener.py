"""The listening socket: its address, how many connections a turn of the loop accepts, and how it stops."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from legato.broadcaster.limits import ACCEPTS_PER_TURN

if TYPE_CHECKING:
    from collections.abc import Iterable


class AddressError(Exception):
    """An address that cannot be listened on. The text is one line for the user."""


def reason(error: OSError | UnicodeError) -> str | None:
    """Why an address cannot be used. A host name may be one that IDNA cannot encode."""
    return error.strerror if isinstance(error, OSError) else "not a host name"


def listen(host: str, port: int, *, reuse_port: bool) -> socket.socket:
    """Bind a socket to the address.

    :param reuse_port: let other processes listen on the same port.
    :raises AddressError: the address is wrong or taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"{host}: not an address of this machine: {reason(error)}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise AddressError(f"{host}:{port} cannot be listened on: {reason(error)}") from error
    return listener


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
