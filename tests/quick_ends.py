"""Ends servers in the tests' own process without waiting for a poll.

uvicorn looks ten times a second whether it has to stop, and then waits a tenth of a second for connections.
The server of the standard library looks twice a second. Hundreds of tests would each wait for that. Programs
that tests start are as they are.
"""

from __future__ import annotations

import asyncio
import socketserver
from typing import Any

import uvicorn.server

TICK = 0.1
"""Seconds between two ticks of uvicorn, as it has them itself."""

PAUSE = 0.005
"""Seconds that stand for each of the pauses at its end."""


class ShouldExit:
    """``Server.should_exit``, which wakes who waits for the next tick."""

    def __get__(self, server: Any, owner: type) -> bool:
        return bool(server.__dict__.get("should_exit", False))

    def __set__(self, server: Any, value: bool) -> None:
        server.__dict__["should_exit"] = value
        tick = server.__dict__.get("tick")
        if value and tick is not None and not tick.done():
            tick.set_result(None)


async def main_loop(server: Any) -> None:
    """As ``Server.main_loop``, but a tick ends when the server shall stop."""
    counter = 0
    while not await server.on_tick(counter):
        counter += 1
        loop = asyncio.get_running_loop()
        server.tick = loop.create_future()
        timer = loop.call_later(TICK, _end, server.tick)
        await server.tick
        timer.cancel()


def _end(tick: asyncio.Future[None]) -> None:
    if not tick.done():
        tick.set_result(None)


class _Asyncio:
    """What uvicorn's server has for ``asyncio``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(PAUSE)


def install() -> None:
    server: Any = uvicorn.server.Server
    server.should_exit = ShouldExit()
    server.main_loop = main_loop
    uvicorn.server.asyncio = _Asyncio()  # type: ignore[attr-defined]
    socketserver.BaseServer.serve_forever.__defaults__ = (PAUSE,)
