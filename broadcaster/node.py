"""One broadcaster node: its connections, its hub, its bus, and what they share."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from protocol import errors
from protocol.apps import App, refuse
from protocol.session import Session

from .bus import BusError
from .frames import text_frame
from .hub import Hub, Key, Subscriber
from .wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocol.errors import PusherError
    from protocol.wire import Envelope

    from .bus import Bus
    from .config import Settings
    from .replies import Replies
    from .websocket import Connection

logger: Final = logging.getLogger("legato.node")

DRAIN_STEPS_PER_SECOND: Final = 20


class Node:
    """The composition that every connection and every request works with.

    :param replies: the chat's state in Redis, None when chat is off.
    """

    def __init__(self, settings: Settings, bus: Bus, replies: Replies | None) -> None:
        self.settings = settings
        self.bus = bus
        self.replies = replies
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.wall = time.time
        self.hub = Hub(self.loop.call_soon, bus.subscribe, bus.unsubscribe, self._joined)
        self.wheel = Wheel(self.loop)
        self.apps: Mapping[str, App] = {app.id: app for app in settings.apps}
        self._apps_by_key = {app.key: app for app in settings.apps}
        self.connections: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.accepted = 0
        self.slow_connections = 0
        self.slow_closed = 0
        self.draining = False
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Join the bus.

        :raises BusError: it cannot be reached.
        """
        await self.bus.start(self._deliver, self.hub.confirm)

    async def close(self) -> None:
        """Leave the bus."""
        self.wheel.close()
        for task in self._tasks:
            task.cancel()
        await self.bus.close()

    def _deliver(self, key: Key, envelope: Envelope) -> None:
        self.hub.deliver(key, envelope.payload, envelope.except_socket_id)

    # --- connections

    def admit(self, path: str, params: Mapping[str, str], origin: str) -> Session | PusherError:
        """A session for a completed WebSocket handshake, or why there is none (protocol section 1.5)."""
        error = self._refusal(path, params, origin)
        if error is not None:
            self.refused[error.code] += 1
            return error
        socket_id = f"{secrets.randbelow(10**9)}.{secrets.randbelow(10**10)}"
        return Session(self._app_at(path), socket_id, self.now())

    def _refusal(self, path: str, params: Mapping[str, str], origin: str) -> PusherError | None:
        if not path.startswith(f"{self.settings.server.path}/app/"):
            return errors.PATH_NOT_FOUND
        app = self._apps_by_key.get(self._key_in(path))
        error = refuse(app, params, origin, 0 if app is None else self.connections[app.id])
        limit = self.settings.server.max_connections
        if error is None and (self.draining or 0 < limit <= len(self._open)):
            return errors.OVER_CAPACITY
        return error

    def _key_in(self, path: str) -> str:
        return unquote(path.removeprefix(f"{self.settings.server.path}/app/"))

    def _app_at(self, path: str) -> App:
        return self._apps_by_key[self._key_in(path)]

    def enter(self, connection: Connection, session: Session) -> None:
        """Count an accepted connection and watch over it."""
        self.accepted += 1
        self.connections[session.app.id] += 1
        self._open.add(connection)
        self.wheel.add(connection, session.deadline)

    def leave(self, connection: Connection, session: Session) -> None:
        """Undo :meth:`enter`."""
        self.connections[session.app.id] -= 1
        self._open.discard(connection)

    def _joined(self, subscriber: Subscriber, key: Key) -> None:
        """Tell a new subscriber of replies that stream on the channel already."""
        if self.replies is not None and self.replies.is_chat(key):
            task = self.loop.create_task(self._send_snapshots(subscriber, key, self.replies))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_snapshots(self, subscriber: Subscriber, key: Key, replies: Replies) -> None:
        try:
            frames = await replies.snapshots(key)
        except BusError as error:
            logger.warning("no snapshot for a new subscriber: %s", error)
            return
        if key in subscriber.subscriptions():
            for frame in frames:
                subscriber.write(text_frame(frame))

    # --- drain

    async def drain(self) -> None:
        """Close every connection, spread over ``drain_seconds``, so that not all come back at once."""
        self.draining = True
        seconds = self.settings.server.drain_seconds
        connections = list(self._open)
        if connections:
            logger.info("draining: closing %d connections over %g s", len(connections), seconds)
        steps = max(1, round(seconds * DRAIN_STEPS_PER_SECOND))
        size = -(-len(connections) // steps) or 1
        for start in range(0, len(connections), size):
            for connection in connections[start : start + size]:
                connection.close(errors.DRAINING)
            await asyncio.sleep(seconds / steps)
