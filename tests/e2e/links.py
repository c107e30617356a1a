"""Bad networks for browsers: each link is a port that leads to the server, with faults on demand.

The scenarios are in Node, so a link is ordered over TCP, with one line of JSON for each order and answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from legato.benchmarks.chaos.proxy import ProxyLink

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL: Final = 4096
"""Bytes of each buffer on the way. In the kernel's own, a whole reply would be under way to a slow reader."""

SEGMENT: Final = 1400
"""Bytes of a TCP segment, as on the internet. By the 64 KB of the loopback, kernels buffer megabytes."""

PER_SECOND: Final = 10
"""How often a link with a rate passes something on."""


class SlowLink(ProxyLink):
    """A link whose answers may have a rate."""

    rate = 0
    """Bytes per second; 0: any number."""

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        writer.transport.set_write_buffer_limits(high=SMALL)
        super()._accept(reader, writer)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        if not answers:
            await super()._pass_on(source, sink, answers=False)
            return
        while data := await source.read(self.rate // PER_SECOND or SMALL):
            if self.rate:
                await asyncio.sleep(len(data) / self.rate)
            await self._audible.wait()
            if sink.is_closing():
                return
            sink.write(data)
            await sink.drain()


class Links:
    """Opens links to one port, and gives them orders."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._links: dict[int, SlowLink] = {}

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        far.setblocking(False)
        await asyncio.get_running_loop().sock_connect(far, ("127.0.0.1", self._target))
        return await asyncio.open_connection(sock=far, limit=SMALL)

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Follow the orders of one connection: ``[order, port, argument]``."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                answer = await self._do(*json.loads(line))
                writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _do(self, order: str, port: int = 0, argument: int = 0) -> Any:
        if order == "open":
            link = SlowLink(self._dial)
            await link.start()
            self._links[link.port] = link
            return link.port
        link = self._links[port]
        if order == "rate":
            link.rate = argument
        elif order == "close":
            await self._links.pop(port).close()
        else:
            {"cut": link.cut, "mute": link.mute, "heal": link.heal}[order]()
        return None

    async def close(self) -> None:
        for link in self._links.values():
            await link.close()


@contextlib.contextmanager
def links_to(target: int) -> Iterator[int]:
    """The port that takes orders for links to the port ``target`` of this machine."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    links = Links(target)
    server = run(asyncio.start_server(links.obey, "127.0.0.1", 0))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        run(links.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
