"""Decides tool calls that need an approval, and queues the job again that waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from legato.broadcaster.limits import APPROVAL_HURRY_MS
from legato.broadcaster.redis_client import ask
from legato.protocol import approvals, wire
from legato.protocol.redis import parked, scripts

if TYPE_CHECKING:
    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.approvals import Approval
    from legato.protocol.redis.pipeline import Named


class NoSuchCall(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """There is no such message, or it has no such call that needs an approval."""


class DecidedOtherwise(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The call was decided before, and not so."""


class MessageEnded(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The message has ended, so that no call waits any more."""


_REFUSALS: Final = {b"unknown": NoSuchCall, b"conflict": DecidedOtherwise, b"ended": MessageEnded}


class Approvals:
    """The calls of one installation that need an approval.

    Every method raises :class:`.bus.base.BusError` when Redis does not answer. A repeated call completes
    what was interrupted.
    """

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._script = scripts.load(redis, __package__, "approve")

    async def decide(self, key: Key, message_id: str, call: str, approval: Approval, now_ms: int) -> None:
        """Store a decision. The job is queued again if this was the last one that it waited for.

        :param now_ms: milliseconds since the epoch.
        :raises NoSuchCall: and :raises DecidedOtherwise: and :raises MessageEnded: nothing is stored.
        """
        names = self._redis.names
        keys = (names.message_key(*key, message_id), names.approvals_key(*key, message_id))
        words = (call, *approvals.stored(approval, now_ms // 1000))
        name = wire.parked_name(*key, message_id)
        verdict, queue = await ask(self._script(keys, (*words, "")))
        while verdict == b"hurry":
            # Should this process die before it resumes the job, a worker does so.
            await ask(parked.hurry(self._redis, queue.decode(), name, now_ms + APPROVAL_HURRY_MS))
            verdict, queue = await ask(self._script(keys, (*words, queue)))
        if verdict in _REFUSALS:
            raise _REFUSALS[verdict]
        if queue:
            await ask(parked.resume(self._redis, queue.decode(), name))

    async def stop_waiting(self, key: Key, message_id: str) -> None:
        """Queue the job again if it waits, decided or not."""
        message_key = self._redis.names.message_key(*key, message_id)
        state, queue = await ask(self._redis.hmget(message_key, ["state", "queue"]))
        if state == b"waiting" and queue:
            name = wire.parked_name(*key, message_id)
            await ask(parked.resume(self._redis, queue.decode(), name))
