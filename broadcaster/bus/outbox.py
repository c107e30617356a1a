"""Publishes to Redis in pipelines, whose size grows with the load."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from legato.broadcaster.limits import MAX_OUTBOX_MESSAGES
from legato.protocol import wire
from legato.protocol.redis.cancellation import end_task
from legato.protocol.redis.errors import reason_of

from .base import BusError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.wire import Envelope

logger: Final = logging.getLogger("legato.bus")


class Outbox:
    """A queue and one task that publishes it. While one pipeline is in flight, the next one fills."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._names = redis.names
        self._waiting: deque[tuple[list[tuple[str, bytes]], asyncio.Future[None]]] = deque()
        self._messages = 0
        self._ready = asyncio.Event()

    def start(self) -> None:
        """Start the publishing task."""
        self._sender = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Stop publishing. Messages that still wait fail."""
        await end_task(self._sender)
        while self._waiting:
            _settle(self._waiting.popleft()[1], BusError("the server is stopping"))

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> asyncio.Future[None]:
        """Queue for the next pipeline.

        :raises BusError: the queue is full.
        """
        if self._messages + len(messages) > MAX_OUTBOX_MESSAGES:
            raise BusError("too many messages wait for Redis")
        name_of = self._names.bus_channel
        batch = [(name_of(*key), wire.encode_envelope(envelope)) for key, envelope in messages]
        accepted = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, accepted))
        self._messages += len(batch)
        self._ready.set()
        return accepted

    async def _send(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            taken = list(self._waiting)
            self._waiting.clear()
            self._messages = 0
            failures: list[BusError | None] = [BusError("the server is stopping")] * sum(
                len(batch) for batch, _ in taken
            )
            try:
                failures = await self._send_pipeline([message for batch, _ in taken for message in batch])
            finally:
                rest = iter(failures)
                for batch, accepted in taken:
                    of_batch = [
                        failure for _, failure in zip(batch, rest, strict=False) if failure is not None
                    ]
                    _settle(accepted, of_batch[0] if of_batch else None)

    async def _send_pipeline(self, batch: list[tuple[str, bytes]]) -> list[BusError | None]:
        """Return one result per message: None if accepted, else why it was not or may not have been."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for channel, data in batch:
                    pipeline.execute_command("SPUBLISH", channel, data)
                answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            return [_refused(error)] * len(batch)
        except Exception:  # a bug must not leave every publisher waiting
            logger.exception("publishing failed")
            return [BusError("the messages could not be published")] * len(batch)
        return [_refused(answer) if isinstance(answer, Exception) else None for answer in answers]


def _refused(error: Exception) -> BusError:
    return BusError(f"Redis did not accept the messages: {reason_of(error)}")


def _settle(accepted: asyncio.Future[None], failure: BusError | None) -> None:
    if accepted.done():  # the publisher has gone
        return
    if failure is None:
        accepted.set_result(None)
    else:
        accepted.set_exception(failure)
