"""Clients and a database for the worker's tests."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from legato.worker import redis_clients as clients
from legato.worker.store.conversations import Store
from legato.worker.store.tables import metadata
from tests.database_servers import MariaDB, NotInstalledError, Postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.database_servers import Server

SERVERS = {"postgresql": Postgres, "mysql": MariaDB}


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A worker's client; the test runs once per Redis implementation."""
    client = clients.connect(redis_url)
    await client.ping()  # on a Cluster: learns who has what
    yield client
    await client.aclose()


@pytest.fixture
async def reader(redis_url: str) -> AsyncIterator[Redis]:
    client = clients.connect_reader(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/turns.db"


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite database with its tables. To make one takes longer than most tests that need one."""
    file = tmp_path_factory.mktemp("prepared") / "turns.db"
    prepare(f"sqlite:///{file}")
    return file


def prepare(address: str) -> None:
    """Make the tables."""

    async def made() -> None:
        opened = Store(address)
        await opened.prepare()
        await opened.aclose()

    asyncio.run(made())


@pytest.fixture
async def store(database: str, _prepared: Path, tmp_path: Path) -> AsyncIterator[Store]:
    shutil.copyfile(_prepared, tmp_path / "turns.db")
    opened = Store(database)
    await opened.prepare()
    yield opened
    await opened.aclose()


def running(name: str) -> Iterator[Server]:
    try:
        server = SERVERS[name]()
    except NotInstalledError as error:
        pytest.fail(str(error), pytrace=False)
    with server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server shared by the whole run. Do not kill it: start your own for that."""
    yield from running("postgresql")


@pytest.fixture(scope="session")
def mysql() -> Iterator[Server]:
    """As `postgresql`."""
    yield from running("mysql")


@pytest.fixture(params=["sqlite", *SERVERS])
def any_database(request: pytest.FixtureRequest, database: str) -> str:
    """The address of an empty database; a test that takes it runs once per kind."""
    if request.param == "sqlite":
        return database
    server: Server = request.getfixturevalue(request.param)
    return server.database()


@pytest.fixture(params=["sqlite", *SERVERS])
def any_tables(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As `any_database`, but with its tables: for tests of what is stored. They may not change the tables."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("_prepared"), tmp_path / "turns.db")
        return f"sqlite:///{tmp_path}/turns.db"
    server: Server = request.getfixturevalue(request.param)
    return server.prepared([table.name for table in reversed(metadata.sorted_tables)], prepare)
