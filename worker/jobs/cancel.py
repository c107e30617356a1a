"""Cancel flags: how any program stops a reply, whatever it knows of Legato."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from legato.protocol.redis.errors import reason_of

from . import shards

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis_url import Address

log: Final = logging.getLogger("legato.worker")

PATIENCE: Final = 0.25
"""Seconds that a look waits for the servers; what comes later is told by the next."""

Flag = tuple[str, str]
"""A message's id, and a key that cancels it."""


class CancelFlags:
    """Reads the flags of many messages, in one round trip to each server that has some of them."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._names = redis.names
        self._asking: dict[Address | None, asyncio.Task[set[str]]] = {}
        self._deaf = False

    async def is_set(self, message_id: str) -> bool:
        """Whether somebody asked to cancel the message, in either spelling.

        :raises RedisError: one flag cannot be asked for, and the other is not set.
        """
        asked = (self._ask(flags) for flags in self._by_shard([message_id]).values())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if any(answer for answer in answers if not isinstance(answer, BaseException)):
            return True
        if errors:
            raise errors[0]
        return False

    async def those_set(self, message_ids: Collection[str]) -> set[str]:
        """Those of ``message_ids`` that somebody asked to cancel, in either spelling, as far as is known.

        To be called again and again, by one task: a server that has not answered yet is not waited for, and
        what it answers is told by a later call. What cannot be asked for counts as not set.

        :raises RedisError: nothing could be asked for.
        """
        begun = []
        for shard, flags in self._by_shard(message_ids).items():
            if shard not in self._asking:
                self._asking[shard] = asyncio.create_task(self._ask(flags))
                begun.append(self._asking[shard])
        if begun:
            await asyncio.wait(begun, timeout=PATIENCE)
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
        """What is still on its way; for whoever ends the looking to cancel."""
        return list(self._asking.values())

    def _by_shard(self, message_ids: Collection[str]) -> dict[Address | None, list[Flag]]:
        groups = defaultdict[Any, list[Flag]](list)
        for message_id in message_ids:
            for flag in self._names.cancel_flags(message_id):
                groups[shards.owner(self._redis, flag)].append((message_id, flag))
        return groups

    async def _ask(self, flags: Sequence[Flag]) -> set[str]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for _, flag in flags:  # one EXISTS each: on a Redis Cluster they live in different slots
                pipe.exists(flag)
            answers = await pipe.execute(False)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        found = {message_id for (message_id, _), there in zip(flags, answers, strict=True) if there == 1}
        if errors and not found:
            raise errors[0]
        return found

    def _note(self, errors: Sequence[BaseException], *, answered: bool) -> None:
        """Say it once when flags cannot be asked for, and once when all can."""
        if errors and not self._deaf:
            log.warning("cancel flags of some replies cannot be read, trying on: %s", reason_of(errors[0]))
            self._deaf = True
        elif self._deaf and answered and not errors and not self._asking:
            log.info("the cancel flags of all replies can be read again")
            self._deaf = False
