"""Joins calls of one script that are made in the same loop iteration into one pipeline.

Each reply appends each piece of text as it comes. With many replies in one process, a round trip for each
would cost far more than the script itself, in the client and in system calls. So what is called in one
iteration shares a round trip to each server. A round trip never waits for another: what is called later is
sent at once too, and on a Cluster each server gets a pipeline of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoScriptError

from legato.protocol.redis.cancellation import obey_cancellation
from legato.worker.jobs import shards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from legato.protocol.redis.scripts import Registered
    from legato.protocol.redis_url import Address

    _Call = tuple[tuple[str | bytes | int, ...], asyncio.Future[Any]]
    """The words of a command, and its answer."""

MAX_CALLS: Final = 64
"""Calls in one pipeline."""


class _Batch:
    """Calls of one loop iteration to one server. It does not outlive its callers."""

    __slots__ = ("calls", "sending")

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.sending: asyncio.Task[None] | None = None

    async def caller_cancelled(self) -> None:
        """Cancel the round trip if no caller is left."""
        if self.sending is not None and all(answer.done() for _, answer in self.calls):
            self.sending.cancel()
            await asyncio.wait({self.sending})


class BatchedScript:
    """A script whose calls share round trips. Each call gets its own answer or error."""

    def __init__(self, redis: Redis, script: Registered) -> None:
        self._redis = redis
        self._script = script
        self._next: dict[Address | None, _Batch] = {}

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run the script. A caller that is cancelled meanwhile may have run it all the same."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        shard = shards.owner(self._redis, keys[0])
        batch = self._next.get(shard)
        if batch is None:
            batch = self._next[shard] = _Batch()
            loop.call_soon(self._begin, shard, batch)
        batch.calls.append((("EVALSHA", self._script.sha, len(keys), *keys, *args), answer))
        if len(batch.calls) >= MAX_CALLS:
            del self._next[shard]
        try:
            return await answer
        except asyncio.CancelledError:
            await batch.caller_cancelled()
            raise
        except NoScriptError:  # the server was restarted: this loads the script
            result = await self._script(keys, args)
            obey_cancellation()
            return result

    def _begin(self, shard: Address | None, batch: _Batch) -> None:
        if self._next.get(shard) is batch:
            del self._next[shard]
        if calls := [call for call in batch.calls if not call[1].done()]:
            batch.sending = asyncio.create_task(self._send(calls))

    async def _send(self, calls: Sequence[_Call]) -> None:
        answers: Sequence[Any]
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for words, _ in calls:
                    pipe.execute_command(*words)
                answers = await pipe.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - raised where the calls were made
            answers = [error] * len(calls)
        for (_, future), answer in zip(calls, answers, strict=True):
            if future.done():  # cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
