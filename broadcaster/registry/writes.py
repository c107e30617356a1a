"""Writes the registry's changes to Redis, in pipelines, in order per channel, until each is answered.

Each server has a lane of its own: on a Cluster, changes of one shard never wait for another shard. Every
change can be repeated; a change that may have been sent before is marked as such.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from redis.exceptions import NoScriptError, RedisError

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import CHANGES_PER_PIPELINE
from legato.protocol.redis import scripts
from legato.protocol.redis.cancellation import end_task
from legato.protocol.redis.cluster import Cluster
from legato.protocol.redis.errors import reason_of
from legato.protocol.redis.retry import Backoff
from legato.protocol.redis.slots import slot_of

from .codec import Change, keys_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from legato.protocol.names import Names
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.redis_url import Address

    from .codec import NodeEntry

    Command = tuple[Any, ...]

logger: Final = logging.getLogger("legato.registry")

EVERYTHING: Final = Key("", "")
"""The key of a mark: it is reached when everything before it is carried out."""

_SCRIPTS: Final = {name: scripts.text(__package__, name) for name in ("join", "leave", "release")}


class Changes:
    """All pending changes.

    :param steady: called before anything is sent; when it returns, the lease is no longer in doubt.
    :param failed: called when Redis does not answer.
    :param stands: whether a join that was not answered is still wanted.
    """

    def __init__(
        self,
        redis: Named,
        steady: Callable[[], Awaitable[None]],
        failed: Callable[[], None],
        stands: Callable[[Change], bool],
    ) -> None:
        self.steady = steady
        self.failed = failed
        self.stands = stands
        self.batches = Batches(redis)
        self._redis = redis
        self._names = redis.names
        self._lanes: dict[Address | None, _Lane] = {}
        self._of: dict[Key, _Lane] = {}  # of channels with pending changes: their order must not change

    def __len__(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def put(self, change: Change) -> None:
        """Send it in the next pipeline to the server of its channel."""
        lane = self._of.get(change.key)
        if lane is None:
            lane = self._of[change.key] = self._lane(change.key)
        lane.put(change)

    def _lane(self, key: Key) -> _Lane:
        address = None
        if isinstance(self._redis, Cluster):
            address = self._redis.slots.owner(slot_of(self._names.bus_channel(*key).encode()))
        lane = self._lanes.get(address)
        if lane is None:
            lane = self._lanes[address] = _Lane(self, self._of)
        return lane

    async def flush(self) -> None:
        """Wait until all changes put so far are applied."""
        marks = []
        for lane in self._lanes.values():
            marks.append(reached := asyncio.Event())
            lane.put(_mark(reached))
        for mark in marks:
            await mark.wait()

    def drop_joins(self) -> None:
        """Discard the pending joins."""
        for lane in self._lanes.values():
            lane.drop_joins()

    def stuck(self) -> float:
        """Seconds since the longest-failing server last accepted a change; 0 if none fails."""
        since = [lane.failing_since for lane in self._lanes.values() if lane.failing_since is not None]
        return time.monotonic() - min(since) if since else 0.0

    async def close(self) -> None:
        """Stop sending."""
        for lane in self._lanes.values():
            await end_task(lane.task)


def _mark(reached: asyncio.Event) -> Change:
    return Change("", EVERYTHING, (), lambda _: reached.set())


class _Lane:
    """Sends the changes of one server, one pipeline at a time."""

    def __init__(self, changes: Changes, lanes: dict[Key, _Lane]) -> None:
        self.waiting: deque[Change] = deque()
        self.counts: dict[Key, int] = {}
        self.failing_since: float | None = None
        self._changes = changes
        self._lanes = lanes
        self._unsure = 0  # how many of the first pending changes may have been sent before
        self._ready = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    def put(self, change: Change) -> None:
        self.waiting.append(change)
        self.counts[change.key] = self.counts.get(change.key, 0) + 1
        self._ready.set()

    def drop_joins(self) -> None:
        kept = [change for change in self.waiting if change.script != "join"]
        for change in self.waiting:
            if change.script == "join":
                self._count_off(change)
        self.waiting = deque(kept)

    def _count_off(self, change: Change) -> None:
        self.counts[change.key] -= 1
        if not self.counts[change.key]:
            del self.counts[change.key]
            if self._lanes.get(change.key) is self:
                del self._lanes[change.key]

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self.waiting:
                error = await self._try()
                if error is None:
                    backoff.reset()
                    self.failing_since = None
                    continue
                if self.failing_since is None:
                    self.failing_since = time.monotonic()
                    if not isinstance(error, NoScriptError):
                        logger.warning("Redis does not accept changes (%s), trying again", reason_of(error))
                await backoff.wait()

    async def _try(self) -> Exception | None:
        """Send one pipeline. Returns why a part of it has to be sent again; None if nothing has."""
        try:
            await self._changes.steady()
            error = await self._carry_out_some()
        except (RedisError, OSError) as failure:
            error = failure
        except Exception as failure:  # a bug here: without this task nobody can subscribe
            logger.exception("sending changes failed")
            return failure
        if error is not None and not isinstance(error, NoScriptError):
            self._changes.failed()
        return error

    async def _carry_out_some(self) -> Exception | None:
        batch = self._next_batch()
        left = max(0, self._unsure - len(batch))
        try:
            answers, still_listed = await self._changes.batches.send(batch, again=self._unsure > 0)
        except BaseException:
            self._put_back(batch, left)
            raise
        kept, error = _unanswered(batch, answers)
        for change in still_listed:
            self.counts[change.key] = self.counts.get(change.key, 0) + 1
        self._put_back([*still_listed, *kept.values()], left)
        for at, (change, answer) in enumerate(zip(batch, answers, strict=True)):
            if at not in kept:
                self._follow_up(change, answer)
        return error

    def _next_batch(self) -> list[Change]:
        """Take the next changes, at most one of each subscription: a repeated join must not follow its leave.

        A second change of a subscription waits for the next pipeline, and with it all later changes of its
        channel; other channels go on. Changes that may have been sent before were in one pipeline, so none
        of them waits here.
        """
        batch: list[Change] = []
        aside: list[Change] = []
        places: set[tuple[Key, Any]] = set()
        blocked: set[Key] = set()
        while self.waiting and len(batch) < CHANGES_PER_PIPELINE and len(aside) < CHANGES_PER_PIPELINE:
            change = self.waiting.popleft()
            place = (change.key, change.arguments[0]) if change.script in ("join", "leave") else None
            if change.key in blocked or place in places or (blocked and change.key == EVERYTHING):
                blocked.add(change.key)
                aside.append(change)
                continue
            batch.append(change)
            if place is not None:
                places.add(place)
        self.waiting.extendleft(reversed(aside))
        return batch

    def _put_back(self, changes: Sequence[Change], unsure: int) -> None:
        """Put them back at the front, ahead of later changes."""
        standing = []
        for change in changes:
            if change.script == "join" and not self._changes.stands(change):
                self._count_off(change)
            else:
                standing.append(change)
        self.waiting.extendleft(reversed(standing))
        self._unsure = len(standing) + unsure

    def _follow_up(self, change: Change, answer: Any) -> None:
        self._count_off(change)
        try:
            change.done(answer)
        except Exception:  # a failure of one client must not delay the others
            logger.exception("the callback of a change failed")


def _unanswered(
    batch: Sequence[Change], answers: Sequence[Any]
) -> tuple[dict[int, Change], Exception | None]:
    """What to send again, by place in the batch, and why: all of a channel from its first error on.

    Entries that were to be removed are listed again: they may be gone already, and must outlive the change.
    """
    kept: dict[int, Change] = {}
    failing: set[Key] = set()
    error: Exception | None = None
    for at, (change, answer) in enumerate(zip(batch, answers, strict=True)):
        if _is_error(answer):
            error = error or answer
            failing.add(change.key)
        if change.key in failing or (failing and change.key == EVERYTHING):
            lists = dict.fromkeys((*change.lists, *change.forgets)) if change.script else change.lists
            kept[at] = change._replace(lists=tuple(lists))
    return kept, error


class Batches:
    """Sends a batch of changes."""

    def __init__(self, redis: Named) -> None:
        self._redis = redis
        self._names = redis.names
        self._sha: dict[str, str] = {}
        self._hints: dict[str, dict[str, None]] = {}

    async def send(self, batch: Sequence[Change], *, again: bool) -> tuple[list[Any], list[Change]]:
        """Send them. Returns the answers, and changes for the entries that are still to be removed.

        An answer is that of the script, or its error, or None without a script.

        An entry is listed before its change and removed after it, so a crash in between loses nothing. One
        server keeps the order of a pipeline; on a Cluster each step waits for the one before.

        :raises RedisError: assume that nothing was carried out.
        """
        if not self._sha:
            self._sha = {name: await self._redis.script_load(text) for name, text in _SCRIPTS.items()}
        before, hints = _listing(batch, self._names), self._occupied(batch)
        called = [change for change in batch if change.script]
        calls = [self._call(change, again=again) for change in called]
        if isinstance(self._redis, Cluster):
            self._check(await self._pipe([*before, *hints]), len(before))
            answers = await self._pipe(calls)
            failed = {id(change) for change, answer in zip(called, answers, strict=True) if _is_error(answer)}
            entries = _forgotten([change for change in batch if id(change) not in failed])
        else:
            entries = _forgotten(batch)
            answers = await self._pipe([*before, *hints, *calls, *_forgetting(entries, self._names)])
            self._check(answers, len(before))
            first = len(before) + len(hints)
            answers = answers[first : first + len(calls)]
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._sha.clear()
        found = iter(answers)
        results = [next(found) if change.script else None for change in batch]
        return results, await self._forget(entries) if isinstance(self._redis, Cluster) else []

    async def _forget(self, entries: dict[NodeEntry, Key]) -> list[Change]:
        answers = await self._pipe(_forgetting(entries, self._names))
        return [
            Change("", key, (), lambda _: None, forgets=(entry,))
            for (entry, key), answer in zip(entries.items(), answers, strict=True)
            if _is_error(answer)
        ]

    async def _pipe(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def _check(self, answers: Sequence[Any], needed: int) -> None:
        """Raise an error of the first ``needed`` answers; failed hints are sent again with the next batch."""
        for answer in answers[:needed]:
            if _is_error(answer):
                raise answer
        hinted = answers[needed : needed + len(self._hints)]
        for app_id, answer in zip(list(self._hints), hinted, strict=True):
            if not _is_error(answer):
                del self._hints[app_id]

    def _occupied(self, batch: Sequence[Change]) -> list[Command]:
        """Hints for ``occupied()``, which verifies each channel."""
        for change in batch:
            if change.script == "join" and change.key.channel[0] != "#":
                self._hints.setdefault(change.key.app_id, {})[change.key.channel] = None
        return [("SADD", self._names.occupied_key(app_id), *names) for app_id, names in self._hints.items()]

    def _call(self, change: Change, *, again: bool) -> Command:
        keys = keys_of(change.key, self._names)
        if change.script == "release":
            keys = keys[-1:]
        if change.call:
            keys = (*keys, self._names.answer_key(*change.key, change.call))
        return ("EVALSHA", self._sha[change.script], len(keys), *keys, *change.arguments, int(again))


def _listing(batch: Iterable[Change], names: Names) -> list[Command]:
    # The node first: the others have to find what arrives after they have declared it dead.
    listed = dict.fromkeys(entry for change in batch for entry in change.lists)
    nodes = dict.fromkeys(node for node, _ in listed)
    naming: list[Command] = [("SADD", names.nodes_key, *nodes)] if nodes else []
    return [*naming, *(("SADD", names.entries_key(node), entry) for node, entry in listed)]


def _forgotten(batch: Iterable[Change]) -> dict[NodeEntry, Key]:
    """Entries to remove after ``batch``, except those that a later change of it lists again."""
    last: dict[NodeEntry, Key | None] = {}
    for change in batch:
        last |= dict.fromkeys(change.lists)
        last |= dict.fromkeys(change.forgets, change.key)
    return {entry: key for entry, key in last.items() if key is not None}


def _forgetting(entries: Iterable[NodeEntry], names: Names) -> list[Command]:
    return [("SREM", names.entries_key(node), entry) for node, entry in entries]


def _is_error(answer: Any) -> TypeGuard[Exception]:
    return isinstance(answer, Exception)
