"""Joins calls of one script that are made at about the same time into one pipeline.

Each reply appends each piece of text as it comes. With many replies in one process, a round trip for each
would cost far more than the script itself, in the client and in system calls. So calls of one loop iteration
share a round trip, and at most one begins every :data:`PIPELINE_SECONDS`. A call is therefore sent at once
unless the process is busy: the text of a single reply comes more slowly.

A round trip never waits for the answer to another. On a Cluster all this is so for each server by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from legato.protocol.redis.cancellation import obey_cancellation
from legato.worker.jobs import shards
from legato.worker.limits import CALLS_PER_PIPELINE, PIPELINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from legato.protocol.redis.scripts import Registered
    from legato.protocol.redis_url import Address

    _Call = tuple[tuple[str | bytes | int, ...], asyncio.Future[Any]]
    """The words of a command, and its answer."""


class _Batch:
    """Calls to one server that share a round trip. It does not outlive its callers.

    :ivar start: sends it.
    """

    __slots__ = ("calls", "sending", "start")

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.sending: asyncio.Task[None] | None = None
        self.start: asyncio.Handle | None = None

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
        self._sent: dict[Address | None, float] = {}

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run the script. A caller that is cancelled meanwhile may have run it all the same."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        shard = shards.owner(self._redis, keys[0])
        batch = self._next.get(shard)
        if batch is None:
            batch = self._next[shard] = _Batch()
            batch.start = self._schedule(loop, shard, batch)
        batch.calls.append((("EVALSHA", self._script.sha, len(keys), *keys, *args), answer))
        if len(batch.calls) >= CALLS_PER_PIPELINE:
            del self._next[shard]
            if batch.start is not None:
                batch.start.cancel()
            batch.start = loop.call_soon(self._begin, shard, batch)
        try:
            return await answer
        except asyncio.CancelledError:
            await batch.caller_cancelled()
            raise
        except NoScriptError:  # the server was restarted: this loads the script
            result = await self._script(keys, args)
            obey_cancellation()
            return result

    def _schedule(
        self, loop: asyncio.AbstractEventLoop, shard: Address | None, batch: _Batch
    ) -> asyncio.Handle:
        """At the end of this iteration, or of the interval that began with the pipeline before."""
        due = self._sent.get(shard, -PIPELINE_SECONDS) + PIPELINE_SECONDS
        if due <= loop.time():
            return loop.call_soon(self._begin, shard, batch)
        return loop.call_at(due, self._begin, shard, batch)

    def _begin(self, shard: Address | None, batch: _Batch) -> None:
        if self._next.get(shard) is batch:
            del self._next[shard]
        self._sent[shard] = asyncio.get_running_loop().time()
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
