"""The protocols of a node, given bytes without sockets: what they do hangs on nothing else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

from uvicorn.server import ServerState

from legato.broadcaster.bus.local import LocalBus
from legato.broadcaster.composition import compose, server_config
from tests.broadcaster.conftest import local_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from legato.broadcaster.config import Settings

SOCKET_ID = "1.2"
"""Of every connection."""


class Transport(asyncio.Transport):
    """Remembers what is written, and to whom what comes is given."""

    def __init__(self, peer: str | None = "192.0.2.1") -> None:
        super().__init__({"peername": (peer, 5000)} if peer else None)
        self.written = b""
        self.protocol: asyncio.Protocol = asyncio.Protocol()
        self.ended = False

    def read(self, data: bytes) -> None:
        """Some has come."""
        if not self.ended:
            self.protocol.data_received(data)

    def write(self, data: bytes) -> None:
        self.written += b"" if self.ended else data

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class Door:
    """Where connections come in."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.node = compose(settings or local_settings(), LocalBus(), None)
        self.node.admission._socket_ids = repeat(SOCKET_ID)
        self.state = ServerState()
        config = server_config(self.node)
        self._make = partial(config.http_protocol_class, config=config, server_state=self.state, app_state={})

    def come(self, peer: str = "192.0.2.1") -> Transport:
        """One more, of this address."""
        transport = Transport(peer)
        transport.protocol = self._make()
        transport.protocol.connection_made(transport)
        return transport

    async def calm(self) -> None:
        """Wait until nothing is under way."""
        while self.state.tasks or len(self.node.context.budget):
            await asyncio.sleep(0)
            if self.state.tasks:
                await asyncio.wait(self.state.tasks, timeout=0.01)


@asynccontextmanager
async def door(settings: Settings | None = None) -> AsyncIterator[Door]:
    """One that is open; its node does not outlive it."""
    opened = Door(settings)
    node = opened.node
    await node.lifecycle.start(node.delivery, node.announcements)
    try:
        yield opened
    finally:
        await node.lifecycle.close()
