"""``legato migrate``: upgrade the tables of the database, or check whether they are up to date."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from legato.protocol import databases, settings
from legato.worker.config import ALIASES, Database

from . import database, revisions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

log: Final = logging.getLogger("legato.worker")

FAILED: Final = 1


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
        found = asyncio.run(_migrate(url, change=not args.check))
    except database.FAULTS as error:
        sys.stderr.write(f"legato migrate: the database cannot be used: {databases.reason(error)}\n")
        return FAILED
    sys.stdout.write(f"The database is up to date (revision {found}).\n")
    return 0


async def _migrate(url: str, *, change: bool) -> str:
    engine = database.connect(url)
    try:
        await asyncio.to_thread(database.probe, engine)
        await (revisions.upgrade if change else revisions.check)(engine)
        return await revisions.revision(engine)
    finally:
        await engine.dispose()
