"""A TCP proxy whose connections can be cut, muted and slowed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
    Dial = Callable[[], Awaitable[Streams]]
    Change = Callable[[bytes], bytes]

CHUNK: Final = 65_536
SLOW_CHUNK: Final = 2_048
SLOW_SECONDS: Final = 0.06
"""Delay of a slow link for each piece of this size, or smaller."""


class ProxyLink:
    """A port on 127.0.0.1 that forwards to a target. A fault affects all of its connections.

    :param dial: opens a connection to the target; raises OSError while there is none.
    :param change: transforms each piece of an answer; only for links with short answers.
    """

    def __init__(self, dial: Dial, change: Change | None = None) -> None:
        self._dial = dial
        self._change = change
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self._closed = False
        self._delay = 0.0
        self._audible = asyncio.Event()
        self._audible.set()
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and cut all connections."""
        if not self.port:
            return
        self._closed = True
        self._server.close()
        self._cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- faults, each undone by heal()

    def cut(self) -> None:
        """Reset all connections, and every new one at once. Data in flight is lost."""
        self._open = False
        self._cut_all()

    def mute(self) -> None:
        """Hold back all answers; requests still arrive."""
        self._audible.clear()

    def slow(self) -> None:
        """Forward small pieces, each with a delay."""
        self._delay = SLOW_SECONDS

    def heal(self) -> None:
        """End the fault. Answers held by :meth:`mute` are lost, and their connections cut."""
        if not self._audible.is_set():
            self._cut_all()
            self._audible.set()
        self._open = True
        self._delay = 0.0

    # --- connections

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # accepted before, announced now: nobody would wait for its task
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer: asyncio.StreamWriter | None = None
        try:
            if not self._open:
                return
            far_reader, far_writer = await self._dial()
            if self._open:
                await self._join((reader, writer), (far_reader, far_writer))
        except OSError:  # no target, or the connection broke: the abort shows it to the other side
            pass
        finally:
            for side in (writer, far_writer):
                if side is not None:
                    side.transport.abort()

    async def _join(self, near: Streams, far: Streams) -> None:
        pair = (near[1], far[1])
        self._pairs.add(pair)
        ways = [
            asyncio.create_task(self._pass_on(near[0], far[1], answers=False)),
            asyncio.create_task(self._pass_on(far[0], near[1], answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with contextlib.suppress(OSError):
                for writer in pair:
                    writer.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await source.read(SLOW_CHUNK if self._delay else CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            if answers:
                await self._audible.wait()
                data = self._change(data) if self._change else data
            if sink.is_closing():
                return
            sink.write(data)
            await sink.drain()
