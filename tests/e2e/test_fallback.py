"""pusher-js over its HTTP fallback transports, in Node and in Chromium."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from broadcaster.config import Metrics, Server, Settings
from broadcaster.server import running
from protocol.apps import App

HERE = Path(__file__).parent
SETTINGS = Settings(
    # Room for all of a megabyte: what is proven is that none of it is lost, however slow the machine.
    server=Server(port=0, drain_seconds=0, send_queue_bytes=8_000_000),
    metrics=Metrics(enabled=False),
    apps=(App(id="1", key="app-key", secret="app-secret"),),
)


@pytest.mark.timeout(400)
async def test_pusher_js_over_http():
    """The file holds its scenarios as node:test cases; all of them pass, none is skipped."""
    async with running(SETTINGS) as server:
        process = await asyncio.create_subprocess_exec(
            *("node", "--test", "--test-force-exit", "--test-reporter=spec", "fallback.test.mjs"),
            cwd=HERE,
            env=os.environ | {"LEGATO_URL": f"http://127.0.0.1:{server.port}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(300):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode()
        assert process.returncode == 0, text
        assert "skipped 0" in text
        assert "pass 0" not in text
        assert server.node.slow_closed == 0
