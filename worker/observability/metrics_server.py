"""Serves ``/metrics`` in threads, with limits on connections and time."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

CONNECTIONS: Final = 8
"""Maximum connections. Beyond it, the oldest without a complete request is closed."""

SECONDS: Final = 5.0
"""Maximum lifetime of a connection, including its response."""

PAUSE_SECONDS: Final = 0.2
"""Pause in accepting when no file descriptors are left, which would otherwise be a busy loop."""


class _Handler(WSGIRequestHandler):
    """One request, and no more, on a connection."""

    timeout = SECONDS
    server: _Server

    def parse_request(self) -> bool:
        """As the base class; from here on it is at work, and is not cut for another."""
        whole = super().parse_request()
        if whole:
            self.server.answering(self.connection)
        return whole

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: who asks, and how badly, is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    """Threads for at most :data:`CONNECTIONS`."""

    daemon_threads = True

    def __init__(self, family: int, address: tuple[str, int]) -> None:
        self.address_family = family
        self._lock = threading.Lock()
        self._due: dict[socket.socket, float] = {}
        self._reading: dict[socket.socket, None] = {}
        super().__init__(address, _Handler)

    def get_request(self) -> Any:
        """As the base class, but slowly while there are no more files."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(PAUSE_SECONDS)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for it, or can be made."""
        del client_address
        with self._lock:
            if len(self._due) >= CONNECTIONS:
                oldest = next(iter(self._reading), None)
                if oldest is None:
                    return False
                self._cut(oldest)
            self._due[request] = time.monotonic() + SECONDS
            self._reading[request] = None
        return True

    def answering(self, connection: socket.socket) -> None:
        """Its request has come."""
        with self._lock:
            self._reading.pop(connection, None)

    def service_actions(self) -> None:
        """Now and then: cut those whose time is over."""
        now = time.monotonic()
        with self._lock:
            for connection in [one for one, due in self._due.items() if due <= now]:
                self._cut(connection)

    def _cut(self, connection: socket.socket) -> None:
        """Its thread reads an end, or cannot write any more, and closes it."""
        self._due.pop(connection, None)
        self._reading.pop(connection, None)
        with contextlib.suppress(OSError):  # it has gone by itself
            connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """It has ended."""
        with self._lock:
            self._due.pop(request, None)
            self._reading.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: it was cut, or went away."""


def serve(registry: CollectorRegistry, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serve the figures until told to stop.

    :returns: the port, and what stops it.
    :raises OSError: the address cannot be used.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    server = _Server(family, (str(address[0]), int(address[1])))
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
