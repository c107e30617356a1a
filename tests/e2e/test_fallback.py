"""pusher-js over its HTTP fallback transports, in Node and in Chromium."""

from __future__ import annotations

import asyncio

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Metrics, Server, Settings
from legato.protocol.apps import App
from tests.e2e.scenarios import pass_all

SETTINGS = Settings(
    # Room for all of a megabyte: what is proven is that none of it is lost, however slow the machine.
    server=Server(port=0, drain_seconds=0, send_queue_bytes=8_000_000),
    metrics=Metrics(enabled=False),
    apps=(App(id="1", key="app-key", secret="app-secret"),),
)


@pytest.mark.timeout(700)
async def test_pusher_js_over_http():
    async with running(SETTINGS) as server:
        url = f"http://127.0.0.1:{server.port}"
        await asyncio.to_thread(pass_all, "fallback", "--test-force-exit", seconds=600, LEGATO_URL=url)
        assert server.node.connections.slow_closed == 0
