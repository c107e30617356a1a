"""Joins calls to Redis that are made at about the same time into one pipeline.

Each reply appends each piece of text as it comes. With many replies in one process, a round trip for each
would cost far more than the script itself, in the client and in system calls. So all calls of one loop
iteration share a round trip, and at most one begins every :data:`PIPELINE_SECONDS`. A call is therefore sent
at once unless the process is busy: the text of a single reply comes more slowly. An urgent call waits for
nothing, and takes along what waits.

A round trip never waits for the answer to another. On a Cluster all this is so for each server by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoScriptError

from legato.protocol.redis.cancellation import obey_cancellation
from legato.worker.jobs import shards
from legato.worker.limits import CALLS_PER_PIPELINE, PIPELINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis.scripts import Registered
    from legato.protocol.redis_url import Address

    Words = tuple[str | bytes | int, ...]


class _Batch:
    """Calls to one server that share a round trip. It does not outlive its callers.

    :ivar start: sends it.
    :ivar hurried: at the end of this iteration.
    """

    __slots__ = ("calls", "hurried", "sending", "start")

    def __init__(self) -> None:
        self.calls: list[SharedCall] = []
        self.sending: asyncio.Task[None] | None = None
        self.start: asyncio.Handle | None = None
        self.hurried = False


class SharedCall:
    """One command in a batch.

    :ivar words: the command.
    :ivar answer: gets the reply, or the error.
    """

    __slots__ = ("_awaited", "_batch", "answer", "words")

    def __init__(self, batch: _Batch, words: Words, answer: asyncio.Future[Any]) -> None:
        self.words = words
        self.answer = answer
        self._batch = batch
        self._awaited = True

    async def result(self) -> Any:
        """The reply. A caller that is cancelled meanwhile cancels the round trip if no other is left."""
        self._awaited = True
        try:
            return await self.answer
        except asyncio.CancelledError:
            await self._break_off()
            raise

    def forgive(self) -> None:
        """Perhaps nobody asks for the reply: neither wait for it, nor mind its error."""
        self._awaited = False
        self.answer.add_done_callback(_seen)

    async def _break_off(self) -> None:
        calls, sending = self._batch.calls, self._batch.sending
        if sending is None or any(call._awaited and not call.answer.done() for call in calls):  # noqa: SLF001
            return
        sending.cancel()
        await asyncio.wait({sending})
        for call in calls:
            if not call.answer.done():
                call.answer.set_exception(LostError("the round trip was broken off"))


def _seen(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()


class SharedTrips:
    """The batches of one client."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._next: dict[Address | None, _Batch] = {}
        self._sent: dict[Address | None, float] = {}

    def call(self, key: str, words: Words, *, urgent: bool = False) -> SharedCall:
        """Send a command with the next batch to the server that has ``key``."""
        loop = asyncio.get_running_loop()
        shard = shards.owner(self._redis, key)
        batch = self._next.get(shard)
        if batch is None:
            batch = self._next[shard] = _Batch()
            if not urgent:
                batch.start = self._schedule(loop, shard, batch)
        call = SharedCall(batch, words, loop.create_future())
        batch.calls.append(call)
        if len(batch.calls) >= CALLS_PER_PIPELINE:
            del self._next[shard]
            urgent = True
        if urgent and not batch.hurried:
            batch.hurried = True
            if batch.start is not None:
                batch.start.cancel()
            batch.start = loop.call_soon(self._begin, shard, batch)
        return call

    def _schedule(
        self, loop: asyncio.AbstractEventLoop, shard: Address | None, batch: _Batch
    ) -> asyncio.Handle:
        """At the end of this iteration, or of the interval that began with the pipeline before."""
        due = self._sent.get(shard, -PIPELINE_SECONDS) + PIPELINE_SECONDS
        if due <= loop.time():
            batch.hurried = True
            return loop.call_soon(self._begin, shard, batch)
        return loop.call_at(due, self._begin, shard, batch)

    def _begin(self, shard: Address | None, batch: _Batch) -> None:
        if self._next.get(shard) is batch:
            del self._next[shard]
        self._sent[shard] = asyncio.get_running_loop().time()
        if calls := [call for call in batch.calls if not call.answer.done()]:
            batch.sending = asyncio.create_task(self._send(calls))

    async def _send(self, calls: Sequence[SharedCall]) -> None:
        replies: Sequence[Any]
        try:
            replies = await self._redis.exchange([call.words for call in calls])
        except Exception as error:  # noqa: BLE001 - raised where the calls were made
            replies = [error] * len(calls)
        for call, reply in zip(calls, replies, strict=True):
            if call.answer.done():  # cancelled
                continue
            if isinstance(reply, Exception):
                call.answer.set_exception(reply)
            else:
                call.answer.set_result(reply)


_batches: WeakKeyDictionary[Named, SharedTrips] = WeakKeyDictionary()


def of(redis: Named) -> SharedTrips:
    """The batches of a client, which all its users share."""
    found = _batches.get(redis)
    if found is None:
        found = _batches[redis] = SharedTrips(redis)
    return found


class BatchedScript:
    """A script whose calls share round trips. Each call gets its own answer or error.

    :param urgent: its calls wait for no others.
    """

    def __init__(self, redis: Named, script: Registered, *, urgent: bool = False) -> None:
        self._batches = of(redis)
        self._script = script
        self._urgent = urgent

    def call(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> SharedCall:
        """Send the script, whose answer may be an error like any other that the server does not know it."""
        words = ("EVALSHA", self._script.sha, len(keys), *keys, *args)
        return self._batches.call(keys[0], words, urgent=self._urgent)

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run the script. A caller that is cancelled meanwhile may have run it all the same."""
        return await self.result(self.call(keys, args), keys, args)

    async def result(self, call: SharedCall, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """The answer of :meth:`call`. The script is run again if the server did not know it."""
        try:
            return await call.result()
        except NoScriptError:  # the server was restarted: this loads the script
            result = await self._script(keys, args)
            obey_cancellation()
            return result
