"""Checks whether a TCP port is free, by binding it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from .errors import BAD_USAGE, FAILED, CommandError

LAST: Final = 65_535


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on the port now.

    :raises CommandError: the host or port cannot be used, whether or not another program listens on it.
    """
    try:
        _bound(host, port).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise _refusal(host, port, error) from None
    return True


def any_free(host: str) -> int:
    """A port that is free now.

    :raises CommandError: the host cannot be used.
    """
    try:
        with _bound(host, 0) as sock:
            return int(sock.getsockname()[1])
    except OSError as error:
        raise _refusal(host, 0, error) from None


def reserve(host: str, port: int) -> socket.socket:
    """Bind a port without listening, to reserve it for our processes.

    The kernel gives connections only to listening sockets. Port 0 picks a free one.

    :raises CommandError: the port is in use or cannot be used.
    """
    if port and not is_free(host, port):  # SO_REUSEPORT alone would share the port with another program
        raise CommandError(f"port {port} is taken: stop what uses it or choose another one")
    try:
        return _bound(host, port, socket.SO_REUSEPORT)
    except OSError as error:
        raise _refusal(host, port, error) from None


def _bound(host: str, port: int, *options: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError:  # IDNA cannot encode it
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    sock = socket.socket(family, kind, proto)
    try:
        for option in (socket.SO_REUSEADDR, *options):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _refusal(host: str, port: int, error: OSError) -> CommandError:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return CommandError(f"{host} is not an address of this machine", BAD_USAGE)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return CommandError(f"port {port} cannot be used: {reason}", FAILED)
