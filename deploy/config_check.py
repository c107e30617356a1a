"""``legato config check``: what is wrong with the settings, and with Redis, database and machine for them."""

from __future__ import annotations

import asyncio
import resource
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from redis.exceptions import RedisError

from legato.broadcaster.apps.opening import open_source
from legato.broadcaster.apps.source import UnreadableError
from legato.broadcaster.auth.jwt import Tokens
from legato.broadcaster.foreign import settings as foreign
from legato.protocol import advice, databases, redis_url
from legato.protocol.redis import advice as redis_advice
from legato.protocol.redis.errors import reason_of
from legato.protocol.settings import SettingsError
from legato.worker import redis_clients
from legato.worker.store import database, migrate

from . import config_dangers as dangers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import legato.broadcaster.config
    import legato.worker.config
    from legato.protocol.settings import Redis

    from .config_loading import LoadedSettings

ERROR: Final = "error"
WARNING: Final = "warning"

SECONDS: Final = 5.0
"""Time limit for Redis, and for a database, to answer."""


class Problem(NamedTuple):
    """Something that is wrong, in one line without secrets."""

    level: Literal["error", "warning"]
    text: str


async def check(every: Iterable[LoadedSettings], environ: Mapping[str, str]) -> list[Problem]:
    """All problems, each once: errors first."""
    found: list[Problem] = []
    for each in every:
        if each.error:
            found.append(Problem(ERROR, f"{each.program}: {each.error}"))
        elif each.program == "broadcaster":
            found += _of_environment(environ)
            found += await _of_broadcaster(each.settings)
        else:
            found += await _of_worker(each.settings)
    return sorted(dict.fromkeys(found), key=lambda problem: problem.level != ERROR)


def _of_environment(environ: Mapping[str, str]) -> list[Problem]:
    strange = foreign.unknown(environ)
    return _warnings([f"environment: ignored, since unknown: {', '.join(strange)}"] if strange else [])


async def _of_broadcaster(settings: legato.broadcaster.config.Settings) -> list[Problem]:
    return [
        *_of_keys(settings),
        *_of_files(settings.server.max_connections),
        *await _of_redis(settings.redis),
        *await _of_stored_apps(settings),
        *await _of_database("chat.database_url", settings.chat.database_url, migrates=True),
    ]


async def _of_worker(settings: legato.worker.config.Settings) -> list[Problem]:
    tables = settings.database
    return [
        *await _of_redis(settings.redis),
        *await _of_database("database.url", tables.url, migrates=tables.migrate),
    ]


def _of_keys(settings: legato.broadcaster.config.Settings) -> list[Problem]:
    try:
        Tokens(settings.auth)  # reads the key's file
    except SettingsError as error:
        return [Problem(ERROR, str(error))]
    unusable = dangers.certificate_error(settings.server)
    return [*([Problem(ERROR, unusable)] if unusable else []), *_warnings(dangers.of_broadcaster(settings))]


def _of_files(max_connections: int) -> list[Problem]:
    """The broadcaster raises the soft limit to the hard one when it starts."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = None if hard == resource.RLIM_INFINITY else advice.files(hard, max_connections)
    return _warnings([few] if few else [])


async def _of_redis(settings: Redis) -> list[Problem]:
    if not settings.url:
        return []
    try:
        redis = redis_clients.connect(settings.url, settings.prefix)
    except SettingsError as error:
        return [Problem(ERROR, str(error))]
    found = _warnings(dangers.of_redis(settings.url))
    try:
        async with asyncio.timeout(SECONDS), redis:
            await redis_clients.check(redis)
            return found + _warnings(await redis_advice.warnings(redis))
    except (RedisError, OSError, TimeoutError) as error:
        place = redis_url.parse(settings.url).shown()
        return [*found, Problem(ERROR, f"redis.url: {place} cannot be used: {_reason(error)}")]


async def _of_stored_apps(settings: legato.broadcaster.config.Settings) -> list[Problem]:
    """The applications in a Redis hash or a table."""
    source = settings.app_source
    if not (source.redis_hash or source.database_url):
        return []
    redis = redis_clients.connect(settings.redis.url, settings.redis.prefix) if source.redis_hash else None
    try:
        async with asyncio.timeout(SECONDS), redis or nullcontext(), open_source(settings, redis) as apps:
            loaded = await apps.load() if apps else ()
    except SettingsError as error:
        return [Problem(ERROR, str(error))]
    except (UnreadableError, RedisError, OSError, TimeoutError) as error:
        return [Problem(ERROR, f"app_source: cannot be read: {_reason(error)}")]
    return _warnings(dangers.of_apps(app for app in loaded if app not in settings.apps))


async def _of_database(key: str, url: str, *, migrates: bool) -> list[Problem]:
    """Whether it answers, and has the tables unless a worker that ``migrates`` makes them at its start."""
    if not url:
        return []
    try:
        async with asyncio.timeout(SECONDS):
            await migrate.current(url)
    except SettingsError as error:
        return [Problem(ERROR, str(error).replace("database.url", key))]
    except (migrate.NoDatabaseError, database.SchemaError) as error:
        return [] if migrates else [Problem(ERROR, f"{key}: {error}")]
    except (*database.FAULTS, TimeoutError) as error:
        return [Problem(ERROR, f"{key}: the database cannot be used: {_reason(error, databases.reason)}")]
    return []


def _reason(error: Exception, reason: Callable[[Exception], str] = reason_of) -> str:
    return f"no answer within {SECONDS:g} seconds" if isinstance(error, TimeoutError) else reason(error)


def _warnings(lines: Iterable[str]) -> list[Problem]:
    return [Problem(WARNING, line) for line in lines]
