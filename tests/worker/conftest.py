"""Clients and a database for the worker's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker import clients
from worker.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A worker's client; the test runs once per Redis implementation."""
    client = clients.connect(redis_url)
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


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    opened = Store(database)
    await opened.prepare()
    yield opened
    await opened.aclose()
