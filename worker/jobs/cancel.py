"""Cancel flags: keys in Redis by which any program can stop a reply."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from legato.protocol.redis.errors import reason_of
from legato.worker.limits import CANCEL_POLL_TIMEOUT_SECONDS
from legato.worker.replies import batch

from . import shards

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis_url import Address
    from legato.worker.replies.batch import SharedCall

log: Final = logging.getLogger("legato.worker")

Flag = tuple[str, str]
"""A message id, and a key that cancels it."""


class CancelFlags:
    """Reads the flags of many messages, with one round trip per server."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._names = redis.names
        self._asking: dict[Address | None, asyncio.Task[set[str]]] = {}
        self._failing = False

    def ask(self, message_id: str) -> list[SharedCall]:
        """Ask in the next round trip, whatever else that has, for :meth:`is_set`."""
        batches = batch.of(self._redis)
        flags = self._names.cancel_flags(message_id)
        calls = [batches.call(flag, ("EXISTS", flag), urgent=True) for flag in flags]
        for call in calls:
            call.forgive()  # perhaps the answers are not needed
        return calls

    async def is_set(self, message_id: str, asked: Sequence[SharedCall] = ()) -> bool:
        """Whether a cancel was requested, by either of the two keys.

        :param asked: the answers of :meth:`ask`, unless they are to be asked now.
        :raises RedisError: one key cannot be read, and the other is not set.
        """
        failed: Exception | None = None
        for call in asked or self.ask(message_id):
            try:
                if await call.result():
                    return True
            except Exception as error:  # noqa: BLE001 - raised when no other flag is set
                failed = error
        if failed is not None:
            raise failed
        return False

    async def those_set(self, message_ids: Collection[str]) -> set[str]:
        """Those of ``message_ids`` that are known to be cancelled, by either of the two keys.

        Call it periodically from one task: it does not wait for a slow server, whose answer a later call
        returns. A flag that cannot be read counts as not set.

        :raises RedisError: no flag could be read.
        """
        begun = []
        for shard, flags in self._by_shard(message_ids).items():
            if shard not in self._asking:
                self._asking[shard] = asyncio.create_task(self._read(flags))
                begun.append(self._asking[shard])
        if begun:
            await asyncio.wait(begun, timeout=CANCEL_POLL_TIMEOUT_SECONDS)
        found, errors, answered = set[str](), list[BaseException](), False
        for shard, task in list(self._asking.items()):
            if not task.done():
                continue
            del self._asking[shard]
            if error := task.exception():
                errors.append(error)
            else:
                answered = True
                found |= task.result()
        if errors and not answered and not self._asking:
            raise errors[0]
        self._note(errors, answered=answered)
        return found.intersection(message_ids)

    @property
    def asking(self) -> list[asyncio.Task[set[str]]]:
        """Reads in progress, to be cancelled when the polling ends."""
        return list(self._asking.values())

    def _by_shard(self, message_ids: Collection[str]) -> dict[Address | None, list[Flag]]:
        groups = defaultdict[Any, list[Flag]](list)
        for message_id in message_ids:
            for flag in self._names.cancel_flags(message_id):
                groups[shards.owner(self._redis, flag)].append((message_id, flag))
        return groups

    async def _read(self, flags: Sequence[Flag]) -> set[str]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for _, flag in flags:  # one EXISTS each: on a Redis Cluster they are in different slots
                pipe.exists(flag)
            answers = await pipe.execute(False)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        found = {message_id for (message_id, _), there in zip(flags, answers, strict=True) if there == 1}
        if errors and not found:
            raise errors[0]
        return found

    def _note(self, errors: Sequence[BaseException], *, answered: bool) -> None:
        """Log once when flags cannot be read, and once when all can be read again."""
        if errors and not self._failing:
            log.warning("cancel flags of some replies cannot be read, retrying: %s", reason_of(errors[0]))
            self._failing = True
        elif self._failing and answered and not errors and not self._asking:
            log.info("the cancel flags of all replies can be read again")
            self._failing = False
