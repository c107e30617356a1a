"""``legato migrate``: upgrade the tables of the database, or check whether they are up to date."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import sqlalchemy as sa

from legato.protocol import databases, settings
from legato.worker.config import ALIASES, Database

from . import database, revisions

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

log: Final = logging.getLogger("legato.worker")

FAILED: Final = 1


class NoDatabaseError(Exception):
    """SQLite has no file yet. One line for the user."""


class MigrateSettings(msgspec.Struct, frozen=True):
    """The part of the worker's settings that this command needs."""

    log: settings.Log = settings.Log()
    database: Database = Database()


def load(args: argparse.Namespace, environ: Mapping[str, str]) -> MigrateSettings:
    """Settings as :func:`legato.worker.config.load` has them.

    :raises SettingsError: one line for the user.
    """
    return settings.load(
        MigrateSettings,
        path=args.config,
        read=lambda path: Path(path).read_text(encoding="utf-8"),
        environ=environ,
        aliases={name: key for name, key in ALIASES.items() if key.startswith("database.")},
        overrides={},
    )


def run(args: argparse.Namespace) -> int:
    """Upgrade or check. Answers the exit status: 1 if the database cannot be used or is outdated.

    :raises SettingsError: one line for the user.
    """
    url = load(args, os.environ).database.url
    try:
        found = asyncio.run(current(url) if args.check else _upgraded(url))
    except NoDatabaseError as error:
        sys.stderr.write(f"legato migrate: {error}\n")
        return FAILED
    except database.FAULTS as error:
        sys.stderr.write(f"legato migrate: the database cannot be used: {databases.reason(error)}\n")
        return FAILED
    sys.stdout.write(f"The database is up to date (revision {found}).\n")
    return 0


async def _upgraded(url: str) -> str:
    async with _engine(database.connect(url)) as engine:
        await revisions.upgrade(engine)
        return await revisions.revision(engine)


async def current(url: str) -> str:
    """The revision of a database that is up to date. Changes nothing, and creates no file.

    :raises NoDatabaseError: SQLite has no such file yet.
    :raises FAULTS: one of :data:`legato.worker.store.database.FAULTS`.
    """
    engine = database.connect(url, read_only=True)
    file = database.sqlite_file(sa.make_url(databases.with_driver(url)))
    if file and not await asyncio.to_thread(Path(file).exists):
        raise NoDatabaseError(f"there is no database yet: {file} does not exist; `legato migrate` creates it")
    async with _engine(engine):
        await revisions.check(engine)
        return await revisions.revision(engine)


@asynccontextmanager
async def _engine(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    try:
        await asyncio.to_thread(database.probe, engine)
        yield engine
    finally:
        await engine.dispose()
