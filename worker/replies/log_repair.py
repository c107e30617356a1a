"""Writes entries again that Redis has lost of a running reply.

A replica that was promoted, or a server restarted from a snapshot or from an append-only file that is synced
once a second, has an older state than it has reported. The worker still has them. Readers see each part
once all the same: nodes drop offsets that they have delivered.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from legato.worker.limits import TOKENS_PER_REPAIR

from .log import GapError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from legato.protocol.redis.retry import Backend

    from .log import MessageLog
    from .reply import Reply

log: Final = logging.getLogger("legato.worker")

T = TypeVar("T")


async def insist(
    redis: Backend, message: MessageLog, answer: Reply, call: Callable[[], Awaitable[T]], marker: bytes = b""
) -> T:
    """Repeat ``call`` until Redis answers and has all entries that come before.

    :param marker: the final marker, if it has been written: a server that lost entries has lost it, too.
    :raises FencedError: the claim is lost, too, or another worker has the message.
    :raises GapError: the lost entries are not known here.
    """
    while True:
        try:
            return await redis.insist(call)
        except GapError as gap:
            await close_gap(redis, message, answer, gap)
            if marker:
                await insist(redis, message, answer, lambda: message.decide(marker))


async def close_gap(redis: Backend, message: MessageLog, answer: Reply, gap: GapError) -> None:
    """Write what is missing before the entries that Redis has refused.

    :raises FencedError: see :func:`insist`.
    :raises GapError: see :func:`insist`.
    """
    if gap.next >= answer.next:
        raise gap
    await write_again(redis, message, answer, gap.next)


async def write_again(redis: Backend, message: MessageLog, answer: Reply, first: int) -> None:
    """Append the reply's entries from offset ``first`` on.

    :raises FencedError: see :func:`insist`.
    :raises GapError: see :func:`insist`.
    """
    lost = answer.next - first
    log.warning("reply %s: Redis has lost %d entries, writing them again", answer.job.message_id, lost)
    while first < answer.next:
        some = answer.written.since(first, TOKENS_PER_REPAIR)
        try:
            await redis.insist(functools.partial(message.append, some))
        except GapError as gap:  # it has happened again
            first = gap.next
        else:
            first += len(some)
