"""Calls of one script for many replies, sent together.

A reply writes each piece of text as it comes. With many replies in one process a call of its own for each
costs far more, in the client and in system calls, than the script. What is called in one turn of the loop
therefore shares a round trip to each server. Nobody waits for the round trip of others: what comes later goes
at once, too, and what goes to another server of a Cluster goes by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from legato.worker.jobs import shards

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from legato.protocol.redis.scripts import Registered
    from legato.protocol.redis_url import Address

MOST: Final = 64
"""Calls in one round trip."""


class _Call(NamedTuple):
    words: tuple[str | bytes | int, ...]
    answer: asyncio.Future[Any]


class _Batch:
    """Calls of one turn to one server. It does not outlive those who called."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.sending: asyncio.Task[None] | None = None

    async def drop(self) -> None:
        """One who called is cancelled; if it was the last, break off what is on its way."""
        if self.sending is not None and all(call.answer.done() for call in self.calls):
            self.sending.cancel()
            await asyncio.wait({self.sending})


class Together:
    """A script whose calls share round trips. Each call gets its own answer or error."""

    def __init__(self, redis: Redis, script: Registered) -> None:
        self._redis = redis
        self._script = script
        self._next: dict[Address | None, _Batch] = {}

    async def __call__(self, keys: Sequence[str], args: Iterable[str | bytes | int]) -> Any:
        """Run the script. A caller that is cancelled meanwhile may have run it all the same."""
        arguments, loop = tuple(args), asyncio.get_running_loop()
        shard = shards.owner(self._redis, keys[0])
        batch = self._next.get(shard)
        if batch is None:
            batch = self._next[shard] = _Batch()
            loop.call_soon(self._begin, shard, batch)
        call = _Call(("EVALSHA", self._script.sha, len(keys), *keys, *arguments), loop.create_future())
        batch.calls.append(call)
        if len(batch.calls) >= MOST:
            del self._next[shard]
        try:
            return await call.answer
        except asyncio.CancelledError:
            await batch.drop()
            raise
        except NoScriptError:  # a server that was started anew: this loads it
            return await self._script(keys, arguments)

    def _begin(self, shard: Address | None, batch: _Batch) -> None:
        if self._next.get(shard) is batch:
            del self._next[shard]
        if calls := [call for call in batch.calls if not call.answer.done()]:
            batch.sending = asyncio.create_task(self._send(calls))

    async def _send(self, calls: Sequence[_Call]) -> None:
        answers: Sequence[Any]
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for call in calls:
                    pipe.execute_command(*call.words)
                answers = await pipe.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - raised where the calls were made
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            if call.answer.done():  # cancelled
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)
