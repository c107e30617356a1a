"""A running broadcaster in the test's own loop, and clients that speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from legato.broadcaster.composition import Running, running
from legato.broadcaster.config import Metrics, Server, Settings
from legato.protocol import signatures
from legato.protocol.apps import App
from legato.protocol.settings import Redis
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

APP = App(id="1", key="app-key", secret="app-secret")


def local_settings(app: App = APP, **changes: Any) -> Settings:
    """Settings on free ports."""
    values: dict[str, Any] = {
        "server": Server(port=0, drain_seconds=0),
        "metrics": Metrics(enabled=False),
        "apps": (app,),
    }
    return Settings(**(values | changes))


@pytest.fixture(params=["local", "valkey"])
def settings(request) -> Settings:
    """Without Redis, and with Redis."""
    if request.param == "local":
        return local_settings()
    return local_settings(redis=Redis(url=request.getfixturevalue("valkey_url")))


@pytest.fixture
async def server(settings) -> AsyncIterator[Running]:
    async with running(settings) as started:
        yield started


class Client:
    """A bare Pusher client: sends and receives what is on the wire."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.socket_id = ""

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            return json.loads(await self.connection.recv())

    async def send(self, event: str, data: Any = None, **more: Any) -> None:
        await self.connection.send(json.dumps({"event": event, "data": data} | more))

    async def subscribe(self, channel: str, **more: Any) -> dict[str, Any]:
        """Subscribe with a valid signature. Returns the answer."""
        auth = signatures.sign_channel(APP.key, APP.secret, self.socket_id, channel)
        await self.send("pusher:subscribe", {"channel": channel, "auth": auth, **more})
        return await self.receive()

    async def closed(self) -> int:
        """The code of the next message, a close frame."""
        async with asyncio.timeout(WAIT):
            await self.connection.wait_closed()
        assert self.connection.close_code is not None
        return self.connection.close_code


@contextlib.asynccontextmanager
async def dial(port: int, path: str = "/app/app-key?protocol=7", **options: Any) -> AsyncIterator[Client]:
    """A connection without reading its greeting."""
    async with connect(f"ws://127.0.0.1:{port}{path}", **options) as connection:
        yield Client(connection)


@contextlib.asynccontextmanager
async def client(port: int, **options: Any) -> AsyncIterator[Client]:
    """A connection that has received its socket id."""
    async with dial(port, **options) as dialled:
        greeting = await dialled.receive()
        dialled.socket_id = json.loads(greeting["data"])["socket_id"]
        yield dialled
