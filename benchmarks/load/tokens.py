"""Writes tokens as a worker does: into the fenced log of a message in Redis."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from redis.exceptions import RedisError

from legato.protocol import stream
from legato.protocol.jobs import Job
from legato.worker import redis_clients as clients
from legato.worker.replies.log import FencedError, GapError, Token, TokenLog

from . import stamp
from .schedule import MICRO, Pace, now
from .tally import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from legato.worker.replies.log import MessageLog

    from .orders import LoadTarget, WriteTokens
    from .schedule import Alarm
    from .tally import Tally

TRIES: Final = 1
RETENTION: Final = 60
"""Seconds that a message is kept after it has ended."""

GRAIN: Final = MICRO // 1000
"""Microseconds to which times are rounded down, about one turn of an event loop. All tokens that
are due then are written together."""

MOST: Final = 64
"""Tokens of one message in one append."""


@dataclass(eq=False, slots=True)
class _ReplyProgress:
    """One user's reply. ``due`` and ``written`` count its tokens; ``place`` is its number."""

    number: int
    place: int
    job: Job
    log: MessageLog
    due: int = 0
    written: int = 0
    broken: bool = False
    writing: asyncio.Task[None] | None = None


class Due(NamedTuple):
    """Tokens ``first`` to before ``end`` of a schedule, at one moment."""

    moment: int
    first: int
    end: int


def moments(pace: Pace, end: int) -> Iterator[Due]:
    """The tokens that are due before ``end``, those of one :data:`GRAIN` together at its beginning."""
    first = number = 0
    grain: int | None = None
    for number, due in enumerate(pace.until(end)):
        mine = pace.begin + (due - pace.begin) // GRAIN * GRAIN
        if grain is not None and mine != grain:
            yield Due(grain, first, number)
            first = number
        grain = mine
    if grain is not None:
        yield Due(grain, first, number + 1)


class Writer:
    """Messages under one claim each, from :meth:`claim` to :meth:`finish`."""

    def __init__(self, target: LoadTarget, tally: Tally) -> None:
        self._app_id, self._tally = target.app_id, tally
        self._redis = clients.connect(target.redis_url)
        self._log = TokenLog(self._redis, tries=TRIES, retention=RETENTION)
        self._messages: list[_ReplyProgress] = []

    async def claim(self, streams: Sequence[tuple[int, str]]) -> None:
        """Begin a message for each user.

        :raises ConnectionError: Redis refuses, or does not answer.
        """
        for place, (number, user) in enumerate(streams):
            job = Job(uuid.uuid4().hex, self._app_id, stream.parse_user_id(user), "bench", 0)
            log = self._log.open(job, uuid.uuid4().hex)
            self._messages.append(_ReplyProgress(number, place, job, log))
        try:
            await asyncio.gather(*(message.log.claim() for message in self._messages))
        except (RedisError, FencedError) as error:
            raise ConnectionError(f"Redis: messages cannot be claimed: {error}") from error

    async def write(self, order: WriteTokens, alarm: Alarm) -> dict[int, int]:
        """Write a token of each message in turn, by schedule. Returns the accepted tokens of each stream."""
        pace, late = Pace(order.begin, order.rate, order.offset), self._tally.histograms["late"]
        turn = 0
        for moment, first, end in moments(pace, order.begin + round(order.seconds * MICRO)):
            if moment > turn:  # queue all due tokens in one turn of the loop; then appends run
                waited = now() < moment
                await alarm.until(moment)
                turn = now()
                if waited:
                    late.record(turn - moment)
            for number in range(first, end):
                message = self._messages[number % len(self._messages)]
                message.due += 1
                if message.writing is None and not message.broken:
                    message.writing = asyncio.create_task(self._append(message, pace, order.size))
        await asyncio.gather(*(message.writing for message in self._messages if message.writing))
        return {message.number: message.written for message in self._messages}

    async def _append(self, message: _ReplyProgress, pace: Pace, size: int) -> None:
        """Append all due tokens, in order. Those that become due meanwhile go into the next append."""
        try:
            while message.written < message.due:
                end = min(message.due, message.written + MOST)
                tokens = [self._token(message, index, pace, size) for index in range(message.written, end)]
                await message.log.append(tokens)
                message.written = end
                self._tally.counts.sent += len(tokens)
        except (RedisError, FencedError, GapError) as error:
            message.broken = True  # later tokens must not hide a lost one
            count(self._tally.counts.refused, f"append: {type(error).__name__}")
        finally:
            message.writing = None

    def _token(self, message: _ReplyProgress, index: int, pace: Pace, size: int) -> Token:
        due = pace.due(message.place + index * len(self._messages))
        text = stamp.written(message.number, index, due - (due - pace.begin) % GRAIN, size)
        job = message.job
        event = stream.TokenReceived(job.user_id, job.message_id, text, index)
        return Token(index, text, event.frame(job.channel))

    async def finish(self) -> None:
        """End all messages, so that later subscribers get no snapshot of them, and close the connection."""
        try:
            await asyncio.gather(*(self._end(message) for message in self._messages if not message.broken))
        except (RedisError, FencedError, GapError) as error:
            raise ConnectionError(f"Redis: messages cannot be ended: {error}") from error
        finally:
            self._messages.clear()
            await self._redis.aclose()

    async def _end(self, message: _ReplyProgress) -> None:
        job = message.job
        event = stream.Completed(job.user_id, job.message_id, message.written)
        await message.log.finish("complete", event.frame(job.channel))
