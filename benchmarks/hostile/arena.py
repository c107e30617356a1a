"""The sockets of an attack, used as fast as possible within limits of time and bytes."""

from __future__ import annotations

import itertools
import re
import select
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HOST: Final = "127.0.0.1"
"""The only host to attack."""

POLL: Final = 0.05
PAUSE: Final = 0.02
"""Seconds before a connection that the server closed is reopened."""

CONNECT_SECONDS: Final = 5.0
READ: Final = 1 << 18
WRITE: Final = 1 << 20
TAIL: Final = 64
"""Bytes that may begin something whose rest has not come yet."""

_SOCKET_ID: Final = re.compile(rb'socket_id\\?"\s*:\s*\\?"([0-9.]+)')
_BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class AttackOrder(msgspec.Struct):
    """One attack, as its process reads it from standard input.

    :ivar scale: requested seconds, which determine the sizes of attacks.
    :ivar seconds: time limit of this attack.
    :ivar max_bytes: limit of sent bytes.
    """

    attack: str
    port: int
    metrics_port: int
    app_id: str
    key: str
    secret: str
    scale: float
    seconds: float
    max_bytes: int
    tls: bool = False

    def __repr__(self) -> str:
        """Without the secret."""
        return f"AttackOrder({self.attack})"


class AttackOutcome(msgspec.Struct):
    """The result of an attack. ``opened``: connections; more than needed if the server closed some."""

    sent: int = 0
    opened: int = 0
    seconds: float = 0.0
    refused: int = 0


class Over(Exception):  # noqa: N818 - not an error: the attack has had its time
    """The limit of time or bytes is reached."""


class ServerClosed(ConnectionError):  # noqa: N818 - as ConnectionError and its kind
    """The server has closed the connection."""


class AttackSocket(NamedTuple):
    """An established WebSocket connection."""

    raw: socket.socket
    id: str


class Arena:
    """The operations of an attack, within its limits.

    :ivar heard: the last bytes that were read.
    """

    def __init__(self, order: AttackOrder, clock: Callable[[], float] = time.monotonic) -> None:
        self.order = order
        self.outcome = AttackOutcome()
        self.heard = b""
        self._clock = clock
        self._began = clock()
        self._sockets: list[socket.socket] = []
        self._tls = _trusting() if order.tls else None

    @property
    def app(self) -> str:
        """The path of the application's HTTP API."""
        return f"/apps/{self.order.app_id}"

    def check(self) -> None:
        """Check the limits.

        :raises Over: they are reached.
        """
        self.outcome.seconds = self._clock() - self._began
        if self.outcome.seconds >= self.order.seconds or self.outcome.sent >= self.order.max_bytes:
            raise Over

    def repeat(self, attack: Callable[[Arena], None]) -> None:
        """Repeat the attack whenever the server ends it, until the limits are reached.

        Open connections stay open, because the server may still be processing.
        """
        with suppress(Over):
            while True:
                self.check()
                try:
                    attack(self)
                except OSError:
                    self.outcome.refused += 1
                self.close()
                time.sleep(PAUSE)

    def close(self) -> None:
        """Close all connections at once."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.close()
        self._sockets.clear()

    # --- connections

    def connect(self, port: int = 0, *, plain: bool = False) -> socket.socket:
        """A connection to the server, or to another ``port`` of it, that does not block."""
        self.check()
        sock = socket.create_connection((HOST, port or self.order.port), CONNECT_SECONDS)
        self._sockets.append(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None and not plain:
            tls = self._tls.wrap_socket(sock, server_hostname=HOST)
            self._sockets[-1] = sock = tls
        sock.setblocking(False)
        self.outcome.opened += 1
        return sock

    def upgrade(self) -> bytes:
        """The request for a WebSocket."""
        return (
            f"GET /app/{self.order.key}?protocol=7&client=hostile&version=1 HTTP/1.1\r\n"
            f"Host: {HOST}:{self.order.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()

    def websocket(self) -> AttackSocket:
        """A WebSocket that the server has greeted."""
        sock = self.connect()
        self.write(sock, [self.upgrade()])
        found = self.read_until(sock, _SOCKET_ID)
        return AttackSocket(sock, found[1].decode())

    # --- bytes

    def pour(self, sock: socket.socket, data: bytes, *, read: bool = True) -> None:
        """Write ``data`` repeatedly until the limits are reached."""
        self.write(sock, itertools.repeat(data), read=read)

    def write(
        self,
        sock: socket.socket,
        pieces: Iterable[bytes],
        *,
        read: bool = True,
        also: Sequence[socket.socket] = (),
    ) -> None:
        """Write all pieces as fast as the server accepts them.

        :param read: whether to read from the server meanwhile. ``also``: read from these sockets too.
        :raises ServerClosed: the server has closed one.
        """
        heard = [sock, *also] if read else []
        for piece in pieces:
            view, at = memoryview(piece), 0
            while at < len(view):
                self.check()
                readable, writable, _ = select.select(heard, [sock], [], POLL)
                for other in readable:
                    self.read(other)
                if writable:
                    at += self._send(sock, view[at : at + WRITE])

    def _send(self, sock: socket.socket, data: memoryview) -> int:
        try:
            sent = sock.send(data)
        except _BLOCKED:
            return 0
        self.outcome.sent += sent
        return sent

    def read(self, sock: socket.socket) -> bytes:
        """The received bytes, or empty.

        :raises ServerClosed: the server has closed.
        """
        try:
            data = sock.recv(READ)
        except _BLOCKED:
            return b""
        if not data:
            raise ServerClosed
        self.heard = data
        return data

    def read_until(self, sock: socket.socket, wanted: re.Pattern[bytes]) -> re.Match[bytes]:
        """Read until a pattern matches; returns the match."""
        data = b""
        while not (found := wanted.search(data)):
            self.check()
            select.select([sock], [], [], POLL)
            data += self.read(sock)
        return found

    def read_count(self, sock: socket.socket, wanted: re.Pattern[bytes], count: int) -> None:
        """Read until a text has arrived this many times."""
        data = b""
        while count > 0:
            self.check()
            select.select([sock], [], [], POLL)
            data += self.read(sock)
            end = 0
            for found in wanted.finditer(data):
                count, end = count - 1, found.end()
            data = data[max(end, len(data) - TAIL) :]

    def hold(self, sockets: Sequence[socket.socket], seconds: float = 1e9) -> None:
        """Read from all of them for so long, at most until the bounds are reached or none is left."""
        left, end = list(sockets), self._clock() + seconds
        while left and self._clock() < end:
            self.check()
            for sock in select.select(left, [], [], POLL)[0]:
                try:
                    self.read(sock)
                except OSError:
                    left.remove(sock)


def _trusting() -> ssl.SSLContext:
    """A TLS context for the certificate of this run."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
