"""Writes again what Redis has lost of a running reply.

A replica that has taken over, or a server that was started again from a snapshot or from an append-only file
that is written every second, has an older state than it once told. The worker still has the text. Readers see
each token once all the same, for nodes drop the indexes that they have delivered.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from .log import GapError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from legato.protocol.redis.retry import Backend

    from .log import MessageLog
    from .reply import Reply

log: Final = logging.getLogger("legato.worker")

T = TypeVar("T")

AT_ONCE: Final = 256
"""Tokens that one call writes again."""


async def insist(
    redis: Backend, message: MessageLog, answer: Reply, call: Callable[[], Awaitable[T]], marker: bytes = b""
) -> T:
    """Repeat ``call`` until Redis answers, and has all tokens that come before.

    :param marker: the final marker, if it has been written: what loses tokens has lost it, too.
    :raises FencedError: the claim is lost, too, or somebody else has the message.
    :raises GapError: what is lost is not known here.
    """
    while True:
        try:
            return await redis.insist(call)
        except GapError as gap:
            if gap.next >= answer.next:
                raise
            await write_again(redis, message, answer, gap.next)
            if marker:
                await insist(redis, message, answer, lambda: message.decide(marker))


async def write_again(redis: Backend, message: MessageLog, answer: Reply, first: int) -> None:
    """Append the reply's tokens from index ``first`` on.

    :raises FencedError: see :func:`insist`.
    :raises GapError: see :func:`insist`.
    """
    lost = answer.next - first
    log.warning("reply %s: Redis has lost %d tokens, written again", answer.job.message_id, lost)
    while first < answer.next:
        some = answer.again(first, AT_ONCE)
        try:
            await redis.insist(functools.partial(message.append, some))
        except GapError as gap:  # it has happened again
            first = gap.next
        else:
            first += len(some)
