"""Webhooks as the official Node SDK receives them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.webhooks.dispatcher import Webhooks
from legato.protocol.apps import App, Webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = Path(__file__).parent
CHANNEL = "presence-x"


class NodeReceiver:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        self._lines = process.stdout
        self.port = 0

    async def line(self) -> Any:
        """The next one, as JSON."""
        async with asyncio.timeout(30):
            return json.loads(await self._lines.readline())


@contextlib.asynccontextmanager
async def node_receiver(secret: str) -> AsyncIterator[NodeReceiver]:
    process = await asyncio.create_subprocess_exec(
        "node", "webhooks.mjs", "app-key", secret, cwd=HERE, stdout=asyncio.subprocess.PIPE
    )
    try:
        receiver = NodeReceiver(process)
        receiver.port = await receiver.line()
        yield receiver
    finally:
        process.kill()
        await process.communicate()


def app(port: int, *, batch: bool) -> App:
    hook = Webhook(url=f"http://127.0.0.1:{port}/", batch=batch)
    return App(id="1", key="app-key", secret="app-secret", webhooks=(hook,))


@pytest.mark.parametrize("batch", [True, False])
async def test_the_node_sdk_accepts_every_event(batch):
    before = time.time() * 1000 - 1
    async with node_receiver("app-secret") as receiver:
        webhooks = Webhooks([app(receiver.port, batch=batch)])
        await webhooks.start()
        webhooks.channel_occupied("1", CHANNEL)
        webhooks.member_added("1", CHANNEL, "\u00e4")
        webhooks.cache_miss("1", CHANNEL)
        webhooks.subscription_count("1", CHANNEL, 1)
        webhooks.client_event("1", CHANNEL, "client-a", b'{"a":"\xc3\xa4"}', "1.2", "7")
        webhooks.member_removed("1", CHANNEL, "\u00e4", disconnect=False)
        webhooks.channel_vacated("1", CHANNEL, disconnect=False)
        requests = [await receiver.line() for _ in range(1 if batch else 7)]
        await webhooks.close()
        assert webhooks.sent == 7
    for request in requests:
        assert request["valid"]
        assert request["contentType"]
        assert before <= request["time"] <= time.time() * 1000
    events = [event for request in requests for event in request["events"]]
    assert [event["name"] for event in events] == [
        "channel_occupied",
        "member_added",
        "cache_miss",
        "subscription_count",
        "client_event",
        "member_removed",
        "channel_vacated",
    ]
    assert events[1]["user_id"] == "\u00e4"
    assert events[4]["data"] == '{"a":"\u00e4"}'


async def test_with_another_secret_the_node_sdk_refuses_and_the_event_is_kept():
    async with node_receiver("another-secret") as receiver:
        webhooks = Webhooks([app(receiver.port, batch=True)])
        await webhooks.start()
        webhooks.channel_occupied("1", CHANNEL)
        assert not (await receiver.line())["valid"]
        assert not (await receiver.line())["valid"]  # tried again
        assert (webhooks.sent, webhooks.waiting) == (0, 1)
        await webhooks.close(0)
