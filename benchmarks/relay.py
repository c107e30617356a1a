"""A relay that counts the bytes between a node and its Redis."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 65_536


class SocketRelay:
    """Relays from one unix socket to another.

    :ivar received: bytes from the server to the node.
    :ivar sent: bytes from the node.
    """

    def __init__(self, server: Path, own: Path) -> None:
        self.received = 0
        self.sent = 0
        self.url = f"unix://{own}"
        self._server = server
        self._own = own
        self._pipes: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_unix_server(self._accept, self._own)

    async def close(self) -> None:
        """Close all connections."""
        self._listener.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._server)
        for work in (self._pass_on(reader, back, "sent"), self._pass_on(there, writer, "received")):
            pipe = asyncio.create_task(work)
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: Literal["sent", "received"]
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                setattr(self, way, getattr(self, way) + len(data))
                target.write(data)
                await target.drain()
        target.close()
