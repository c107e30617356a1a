"""Applications that come, change and go while the server runs, from a Redis hash.

What is read replaces what was known, all at once: a look-up never leaves the process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis.exceptions import RedisError

from protocol.apps import App

from .bus import BusError, reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from redis.asyncio import Redis

    from .config import Settings

logger: Final = logging.getLogger("legato.apps")


class AppSource:
    """The applications of the settings, and those of a hash: id -> the rest of an ``[[apps]]`` table as JSON.

    An entry that is no application is reported once and left out; the others are not held up.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._own = settings.apps
        self._name = settings.app_source.redis_hash
        self._seconds = settings.app_source.seconds
        self._reported: dict[bytes, str] = {}

    async def watch(self, use: Callable[[tuple[App, ...]], Awaitable[None]]) -> None:
        """Look again every ``app_source.seconds``. While Redis does not answer, what is known stays."""
        while self._name:
            await asyncio.sleep(self._seconds)
            try:
                await use(await self.load())
            except BusError as error:
                logger.warning("%s", error)
            except Exception:  # a fault of ours must not end the watch
                logger.exception("the applications could not be changed")

    async def load(self) -> tuple[App, ...]:
        """All that are there now.

        :raises BusError: Redis does not answer, or the key holds something else.
        """
        return _merged(self._own, await self._found() if self._name else [])

    async def _found(self) -> list[App]:
        try:
            entries: dict[Any, Any] = await self._redis.hgetall(self._name)
        except (RedisError, OSError) as error:
            raise BusError(f"the applications in {self._name} cannot be read: {reason_of(error)}") from error
        apps = [self._app(app_id, text) for app_id, text in sorted(entries.items())]
        return [app for app in apps if app is not None]

    def _app(self, app_id: bytes, text: bytes) -> App | None:
        try:
            values: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
            app = msgspec.convert(values | {"id": app_id.decode()}, App)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if self._reported.get(app_id) != str(error):
                self._reported[app_id] = str(error)
                name = app_id.decode("utf-8", "replace")
                logger.warning("%s: %r is left out: %s", self._name, name, error)
            return None
        self._reported.pop(app_id, None)
        return app


def _merged(own: Iterable[App], found: Iterable[App]) -> tuple[App, ...]:
    """The applications of the settings, which win, and those found that clash with none of them."""
    apps: dict[str, App] = {}
    keys: set[str] = set()
    for app in (*own, *found):
        if app.id not in apps and keys.isdisjoint(app.keys):
            apps[app.id] = app
            keys.update(app.keys)
        elif apps.get(app.id) != app:
            logger.error("application %s is left out: its id or a key of it is another's", app.id)
    return tuple(apps.values())
