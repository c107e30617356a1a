"""Reads applications at run time, from a Redis hash or a database table.

A poll replaces all applications at once. A look-up of an application never leaves the process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from redis.exceptions import RedisError

from legato.broadcaster.limits import APP_CHECKS_PER_TURN
from legato.protocol.apps import App
from legato.protocol.redis.errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from redis.asyncio import Redis

    Use = Callable[[tuple[App, ...]], Awaitable[None]]

logger: Final = logging.getLogger("legato.apps")

CLASH: Final = "another application has its id or one of its keys"


class UnreadableError(Exception):
    """The applications cannot be read. The text is one line without credentials."""


class AppStore(Protocol):
    """A store of applications, in addition to the settings."""

    name: str
    """Its name in log lines."""

    async def read(self) -> list[tuple[str, Any]]:
        """Read all entries as pairs of name and content. An unchanged content compares equal (``==``).

        :raises UnreadableError: the store does not answer, or has another format.
        """

    def app(self, content: Any) -> App:
        """Convert an entry's content to an application.

        :raises ValueError: the content is invalid. The text contains no secret.
        """

    async def close(self) -> None:
        """Close connections."""


class AppHash:
    """A Redis hash: id -> the other fields of an ``[[apps]]`` table as JSON. The caller closes the client."""

    def __init__(self, redis: Redis, name: str) -> None:
        self.name = name
        self._redis = redis

    async def read(self) -> list[tuple[str, tuple[bytes, bytes]]]:
        """See :class:`AppStore`."""
        try:
            entries: dict[Any, Any] = await self._redis.hgetall(self.name)
        except (RedisError, OSError) as error:
            raise UnreadableError(reason_of(error)) from error
        return [(app_id.decode("utf-8", "replace"), (app_id, text)) for app_id, text in entries.items()]

    def app(self, content: tuple[bytes, bytes]) -> App:
        """See :class:`AppStore`."""
        app_id, text = content
        values: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
        return msgspec.convert(values | {"id": app_id.decode()}, App)

    async def close(self) -> None:
        """See :class:`AppStore`."""


class AppWatcher:
    """Merges the applications of the settings, which take precedence, with those of a polled store.

    An invalid entry is logged once and left out. It does not affect the others.
    """

    def __init__(self, store: AppStore, own: tuple[App, ...], seconds: float) -> None:
        self._store = store
        self._own = own
        self._seconds = seconds
        self._known: dict[str, tuple[Any, App]] = {}
        self._merged = _merged(own, ())
        self._found: list[App] = []
        self._left_out: set[tuple[str, str]] = set()
        self._problem = ""

    async def change_own(self, own: tuple[App, ...], use: Use) -> None:
        """Replace the applications of the settings."""
        self._own = own
        self._merged = _merged(own, self._found)
        await use(self._merged[0])

    async def watch(self, use: Use) -> None:
        """Poll every ``seconds``. While the store does not answer, the known applications stay."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await use(await self.load())
            except UnreadableError as error:
                self._report_problem(str(error))
            except Exception:  # a bug must not end the polling
                logger.exception("the applications could not be changed")
            else:
                self._report_problem("")

    def _report_problem(self, problem: str) -> None:
        """Log a problem once when it begins or changes, and once when it is over."""
        if problem and problem != self._problem:
            logger.warning("%s; the known applications stay in use", problem)
        elif self._problem and not problem:
            logger.info("the applications in %s can be read again", self._store.name)
        self._problem = problem

    async def load(self) -> tuple[App, ...]:
        """Read the store, and return all applications.

        :raises UnreadableError: the store does not answer, or has another format.
        """
        try:
            entries = await self._store.read()
        except UnreadableError as error:
            raise UnreadableError(
                f"the applications in {self._store.name} cannot be read: {error}"
            ) from error
        found, left_out = await self._checked(sorted(entries, key=lambda entry: entry[0]))
        if found != self._found:
            self._found, self._merged = found, _merged(self._own, found)
        apps, clashing = self._merged
        self._report_left_out(left_out | {(name, CLASH) for name in clashing})
        return apps

    async def _checked(self, entries: list[tuple[str, Any]]) -> tuple[list[App], set[tuple[str, str]]]:
        """Convert the entries. Returns the applications, and name and error of each invalid entry.

        An entry that has not changed since the last poll costs one comparison.
        """
        known: dict[str, tuple[Any, App]] = {}
        found: list[App] = []
        left_out: set[tuple[str, str]] = set()
        for number, (name, content) in enumerate(entries, 1):
            if number % APP_CHECKS_PER_TURN == 0:
                await asyncio.sleep(0)
            before = self._known.get(name)
            try:
                app = before[1] if before and before[0] == content else self._store.app(content)
            except (ValueError, RecursionError) as error:
                left_out.add((name, str(error)))
            else:
                known[name] = (content, app)
                found.append(app)
        self._known = known
        return found, left_out

    def _report_left_out(self, left_out: set[tuple[str, str]]) -> None:
        for name, reason in sorted(left_out - self._left_out):
            logger.warning("%s: %r is left out: %s", self._store.name, name, reason)
        self._left_out = left_out


def _merged(own: Iterable[App], found: Iterable[App]) -> tuple[tuple[App, ...], list[str]]:
    """Merge applications; an earlier one wins. Returns also the ids of those with a taken id or key."""
    apps: dict[str, App] = {}
    keys: set[str] = set()
    clashing: list[str] = []
    for app in (*own, *found):
        if app.id not in apps and keys.isdisjoint(app.keys):
            apps[app.id] = app
            keys.update(app.keys)
        elif apps.get(app.id) != app:
            clashing.append(app.id)
    return tuple(apps.values()), clashing
