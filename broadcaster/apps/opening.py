"""Opens the source of applications that the settings name."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .source import AppHash, AppStore, AppWatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from legato.broadcaster.config import Settings
    from legato.protocol.redis.pipeline import Named


@contextlib.asynccontextmanager
async def open_source(settings: Settings, redis: Named | None) -> AsyncIterator[AppWatcher | None]:
    """The source of applications beside the settings; None if there is none."""
    store = _store(settings, redis)
    if store is None:
        yield None
        return
    try:
        yield AppWatcher(store, settings.apps, settings.app_source.seconds)
    finally:
        await store.close()


def _store(settings: Settings, redis: Named | None) -> AppStore | None:
    if settings.app_source.database_url:
        from .sql import AppTable  # noqa: PLC0415 - SQLAlchemy's megabytes are for those who use it

        return AppTable(settings.app_source)
    if settings.app_source.redis_hash and redis is not None:
        return AppHash(redis, settings.app_source.redis_hash)
    return None
