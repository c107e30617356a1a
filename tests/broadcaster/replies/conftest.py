"""A node with a Redis that the test can cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from legato.benchmarks.chaos.proxy import ProxyLink
from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth
from legato.broadcaster.redis_client import redis_client
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import local_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def redis(valkey_url) -> AsyncIterator[Any]:
    async with redis_client(valkey_url) as connected:
        yield connected


@pytest.fixture
async def link(valkey_url) -> AsyncIterator[ProxyLink]:
    """A link between the node and Redis that the test can cut."""
    path = valkey_url.removeprefix("unix://")
    link = ProxyLink(lambda: asyncio.open_unix_connection(path))
    await link.start()
    yield link
    await link.close()


@pytest.fixture
async def server(link) -> AsyncIterator[Any]:
    settings = local_settings(
        redis=Redis(url=f"redis://127.0.0.1:{link.port}"), auth=Auth(jwt_secret="s" * 32)
    )
    async with running(settings) as started:
        yield started
