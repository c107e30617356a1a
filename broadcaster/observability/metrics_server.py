"""Serves ``/metrics`` in threads. Bounds keep clients from using up threads and files."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from ..limits import (  # noqa: TID252 - this text stands in two packages
    METRICS_ACCEPT_PAUSE_SECONDS,
    METRICS_BIND_RETRY_SECONDS,
    METRICS_CONNECTIONS,
    METRICS_REQUEST_SECONDS,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry


class _Handler(WSGIRequestHandler):
    """Handles one request per connection."""

    timeout = METRICS_REQUEST_SECONDS
    server: _Server

    def parse_request(self) -> bool:
        """See the base class. A connection with a complete request is not cut for another one."""
        whole = super().parse_request()
        if whole:
            self.server.answering(self.connection)
        return whole

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A threading server with at most :data:`METRICS_CONNECTIONS` threads."""

    daemon_threads = True

    def __init__(self, family: int, address: tuple[str, int]) -> None:
        self.address_family = family
        self._lock = threading.Lock()
        self._due: dict[socket.socket, float] = {}
        self._reading: dict[socket.socket, None] = {}
        super().__init__(address, _Handler)

    def get_request(self) -> Any:
        """See the base class. Pauses at the limit of open files."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(METRICS_ACCEPT_PAUSE_SECONDS)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Accept a connection, cutting another one if necessary. Returns False if all are busy."""
        del client_address
        with self._lock:
            if len(self._due) >= METRICS_CONNECTIONS:
                oldest = next(iter(self._reading), None)
                if oldest is None:
                    return False
                self._cut(oldest)
            self._due[request] = time.monotonic() + METRICS_REQUEST_SECONDS
            self._reading[request] = None
        return True

    def answering(self, connection: socket.socket) -> None:
        """Note that the connection's request is complete."""
        with self._lock:
            self._reading.pop(connection, None)

    def service_actions(self) -> None:
        """Cut connections over the time limit. Called periodically."""
        now = time.monotonic()
        with self._lock:
            for connection in [one for one, due in self._due.items() if due <= now]:
                self._cut(connection)

    def _cut(self, connection: socket.socket) -> None:
        """Shut a connection down, which makes its thread close it."""
        self._due.pop(connection, None)
        self._reading.pop(connection, None)
        with contextlib.suppress(OSError):  # already closed
            connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._due.pop(request, None)
            self._reading.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: the connection was cut or closed by the peer."""


def serve(registry: CollectorRegistry, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serve the metrics until stopped.

    :returns: the port, and a function that stops the server.
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


def serve_when_free(
    registry: CollectorRegistry, host: str, port: int, log: logging.Logger
) -> tuple[int, Callable[[], None]]:
    """Serve the metrics until stopped; if another program has the port, from when it is free.

    :param log: gets one warning if the port is taken.
    :returns: the port, or 0 while it is taken, and a function that stops the server.
    :raises OSError: the address cannot be used for another reason.
    """
    try:
        return serve(registry, host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    log.warning("no metrics: port %d of %s is taken; they begin when it is free", port, host)
    stopped = threading.Event()
    thread = threading.Thread(
        target=_serve_later, args=(registry, host, port, log, stopped), name="metrics", daemon=True
    )
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join()

    return 0, stop


def _serve_later(
    registry: CollectorRegistry, host: str, port: int, log: logging.Logger, stopped: threading.Event
) -> None:
    while not stopped.wait(METRICS_BIND_RETRY_SECONDS):
        with contextlib.suppress(OSError):
            _, stop = serve(registry, host, port)
            log.info("metrics on http://%s:%d/metrics", host, port)
            stopped.wait()
            stop()
            return
