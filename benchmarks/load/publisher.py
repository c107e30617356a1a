"""Publishes events by schedule, and counts the answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from . import stamp
from .http import ApiConnection
from .schedule import MICRO, Alarm, Pace, now
from .tally import count

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from .orders import Lane, LoadTarget, Publish
    from .tally import Tally


async def publish(
    target: LoadTarget, order: Publish, tally: Tally, alarm: Alarm, tls: ssl.SSLContext | None
) -> dict[int, int]:
    """Run all lanes concurrently. Returns the accepted events of each stream."""
    accepted: dict[int, int] = {}
    lanes = [_Lane(order, lane, tally, alarm) for lane in order.lanes]
    await asyncio.gather(*(lane.run(ApiConnection(target, tls), accepted) for lane in lanes))
    return accepted


class _Lane:
    """Publish on the streams of one connection in turn."""

    def __init__(self, order: Publish, lane: Lane, tally: Tally, alarm: Alarm) -> None:
        self._order, self._lane, self._tally, self._alarm = order, lane, tally, alarm

    async def run(self, connection: ApiConnection, accepted: dict[int, int]) -> None:
        """Send events by schedule. After a slow answer the next event is late; its scheduled time stays."""
        streams, number = self._lane.streams, 0
        try:
            async for due in self._moments():
                stream, channel = streams[number % len(streams)]
                # The index of a stream increases only with accepted events: a refused one is not a gap.
                text = stamp.written(stream, accepted.get(stream, 0), due, self._order.size)
                body = msgspec.json.encode({"name": "bench", "channel": channel, "data": text})
                if await self._post(connection, body, due):
                    accepted[stream] = accepted.get(stream, 0) + 1
                number += 1
                if number >= self._order.limit:
                    return
        finally:
            connection.close()

    async def _post(self, connection: ApiConnection, body: bytes, due: int) -> bool:
        counts = self._tally.counts
        try:
            status = await connection.post(body)
        except (OSError, TimeoutError) as error:
            count(counts.refused, type(error).__name__)
            return False
        if status != 200:
            count(counts.refused, f"HTTP {status}")
            return False
        counts.sent += 1
        self._tally.histograms["request"].record(now() - due)
        return True

    async def _moments(self) -> AsyncIterator[int]:
        """Send times: by the lane's schedule, or as fast as possible without one."""
        begin = self._order.begin
        end = begin + round(self._order.seconds * MICRO)
        await self._alarm.until(begin)
        if not self._lane.rate:
            while (moment := now()) < end:
                yield moment
            return
        for due in Pace(begin, self._lane.rate, self._lane.offset).until(end):
            if now() < due:
                await self._alarm.until(due)
                self._tally.histograms["late"].record(now() - due)
            yield due
