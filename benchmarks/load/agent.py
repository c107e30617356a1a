"""The process of a load generator: ``python -m legato.benchmarks.load.agent``, started by :mod:`.agents`.

It reads lines of :class:`.orders.OrderRequest` from standard input and writes lines of
:class:`.orders.OrderResponse` to standard output. It ends with standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop

from .assignment import Assignment
from .client import LoadClient, Shared
from .orders import (
    Aim,
    ClaimMessages,
    Finish,
    Join,
    Leave,
    LoadTarget,
    Order,
    OrderRequest,
    OrderResponse,
    Publish,
    ReadCounts,
    Reset,
    Resume,
    WriteTokens,
)
from .publisher import publish
from .schedule import Alarm, Pace, now
from .tally import count

if TYPE_CHECKING:
    from .tokens import Writer

AT_ONCE: Final = 100
"""Largest number of concurrent handshakes without a rate."""

JOIN_SECONDS: Final = 30.0
"""Time-out of a client's start, in seconds."""

SMALL_BUFFER: Final = 4096
"""Receive buffer of a stalled client, small because the kernel's buffer is not measured."""


class LoadAgent:
    """Carries out the orders."""

    def __init__(self) -> None:
        self._shared = Shared()
        self._alarm = Alarm()
        self._clients: list[LoadClient] = []
        self._target: LoadTarget | None = None
        self._tls: ssl.SSLContext | None = None
        self._writer: Writer | None = None

    async def carry_out(self, order: Order) -> Any:
        """Carry out an order; returns the value of the answer."""
        match order:
            case Aim(target=target):
                self._target = target
                self._tls = ssl.create_default_context() if target.tls else None
            case Join():
                await self._join(order)
            case Publish():
                tally = self._shared.tally
                return await publish(self._aimed(), order, tally, self._alarm, self._tls)
            case ClaimMessages() | WriteTokens() | Finish():
                return await self._write(order)
            case ReadCounts():
                return self._shared.told()
            case Reset():
                self._shared.reset()
            case Resume():
                for client in self._clients:
                    client.read_on()
            case Leave():
                self._leave()
        return None

    def _aimed(self) -> LoadTarget:
        if self._target is None:
            raise ConnectionError("no server has been named")
        return self._target

    async def _write(self, order: ClaimMessages | WriteTokens | Finish) -> dict[int, int] | None:
        """Carry out one step of the messages: claim, write or end."""
        if isinstance(order, ClaimMessages):
            from .tokens import Writer  # noqa: PLC0415 - a worker's parts, which few generators need

            self._writer = Writer(self._aimed(), self._shared.tally)
            await self._writer.claim(order.streams)
        elif self._writer is None:
            raise ConnectionError("no message has been claimed")
        elif isinstance(order, WriteTokens):
            return await self._writer.write(order, self._alarm)
        else:
            writer, self._writer = self._writer, None
            await writer.finish()
        return None

    async def _join(self, order: Join) -> None:
        """Connect all clients; count those that fail."""
        door = asyncio.Semaphore(AT_ONCE if not order.rate else order.count)
        pace = Pace(order.begin, order.rate) if order.rate else None

        async def come(number: int) -> None:
            async with door:
                due = pace.due(number) if pace else 0
                await self._alarm.until(due)
                await self._come(order, order.first + number, due or now())

        await asyncio.gather(*(come(number) for number in range(order.count)))

    async def _come(self, order: Join, number: int, due: int) -> None:
        client = LoadClient(Assignment(self._aimed(), order, number, due), self._shared)
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await self._connect(client, stalled=order.stalled)
                await client.done
        except (OSError, TimeoutError) as error:
            client.leave()
            if client.done.done() and not client.done.cancelled():
                client.done.exception()
            count(self._shared.tally.counts.failed, str(error) or type(error).__name__)
            return
        if order.stay:
            await asyncio.sleep(order.stay)
            client.leave()
        else:
            self._clients.append(client)

    async def _connect(self, client: LoadClient, *, stalled: bool) -> None:
        loop, target = asyncio.get_running_loop(), self._aimed()
        options: dict[str, Any] = {"ssl": self._tls, "server_hostname": target.host} if self._tls else {}
        if not stalled:
            await loop.create_connection(lambda: client, target.host, target.port, **options)
            return
        found = (await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))[0]
        sock = socket.socket(found[0], found[1])
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        try:
            await loop.sock_connect(sock, found[4])
            await loop.create_connection(lambda: client, sock=sock, **options)
        except BaseException:
            sock.close()
            raise

    def _leave(self) -> None:
        for client in self._clients:
            client.leave()
        self._clients.clear()

    def close(self) -> None:
        """Disconnect all clients."""
        self._leave()
        self._alarm.close()


async def _answer(agent: LoadAgent, line: bytes) -> None:
    asked = msgspec.json.decode(line, type=OrderRequest)
    answer = OrderResponse(asked.id)
    try:
        answer.value = await agent.carry_out(asked.order)
    except OSError as error:
        answer.error = str(error) or type(error).__name__
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


async def _main() -> None:
    agent, tasks = LoadAgent(), set()
    try:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            task = asyncio.create_task(_answer(agent, line))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        agent.close()


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
