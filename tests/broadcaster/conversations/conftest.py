"""Databases that a worker has filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from legato.worker.store.conversations import Store
from tests.worker.conftest import _prepared, any_database, any_tables, database, mysql, postgresql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["_prepared", "any_database", "any_tables", "database", "mysql", "postgresql"]


@pytest.fixture
async def store(any_tables: str) -> AsyncIterator[Store]:
    """A worker's store in every kind of database."""
    opened = Store(any_tables)
    await opened.prepare()
    yield opened
    await opened.aclose()
