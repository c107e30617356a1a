"""Reads the final state of a run from Redis and the database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from redis.exceptions import RedisError

from legato.protocol import stream, wire
from legato.protocol.jobs import decode_job
from legato.protocol.names import Names
from legato.protocol.parts import decode_entry

from .app import APP_ID
from .record import Kept, LoggedPart, TurnRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from pathlib import Path

    from redis.asyncio import Redis

    from .record import Sent

QUEUE: Final = "ai-streaming"
PAUSE: Final = 0.1
NAMES: Final = Names()

T = TypeVar("T")


class Remains:
    """Reads Redis without the links. Every method waits while Redis is unreachable.

    :param redis: returns a client of the server that has the data now.
    """

    def __init__(self, redis: Callable[[], Redis]) -> None:
        self._find = redis

    @property
    def _redis(self) -> Redis:
        """The server that has the data now: asked at each attempt, since it may be another one."""
        return self._find()

    async def states(self, messages: Collection[Sent]) -> list[str]:
        """The state of each message, empty if unknown."""

        async def ask() -> list[bytes | None]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for sent in messages:
                    pipe.hget(_message_key(sent), "state")
                return cast("list[bytes | None]", await pipe.execute())

        return [(state or b"").decode() for state in await _insist(ask)]

    async def next_index(self, sent: Sent) -> int:
        """How many entries the log of a message has."""
        return int(await _insist(lambda: self._any.hget(_message_key(sent), "next")) or 0)

    @property
    def _any(self) -> Any:
        return self._redis

    async def jobs_left(self) -> int:
        """How many jobs wait or run."""
        return int(await _insist(lambda: self._redis.xlen(NAMES.jobs_key(QUEUE))))

    async def held_by(self, pid: int) -> list[str]:
        """The messages whose jobs a worker process has claimed: its id is in the name of its consumer."""
        key = NAMES.jobs_key(QUEUE)
        pending = await _insist(lambda: self._any.xpending_range(key, wire.GROUP, "-", "+", 1000))
        own = {entry["message_id"] for entry in pending if f"-{pid}-" in entry["consumer"].decode()}
        entries = await _insist(lambda: self._any.xrange(key))
        jobs = [fields[wire.JOB_FIELD.encode()] for entry, fields in entries if entry in own]
        return [decode_job(job).message_id for job in jobs]

    async def dead(self) -> dict[str, str]:
        """Message id -> reason of each dead letter."""
        entries = await _insist(lambda: self._any.xrange(NAMES.dead_key(QUEUE)))
        return {
            json.loads(fields[wire.JOB_FIELD.encode()])["message_id"]: fields[b"reason"].decode()
            for _, fields in entries
        }

    async def message_ids(self) -> set[str]:
        """Every message in Redis."""

        async def ask() -> set[str]:
            keys = self._redis.scan_iter(NAMES.message_key("*", "*", "*"), count=1000)
            return {key.decode().rpartition(":")[2] async for key in keys}

        return await _insist(ask)

    async def kept(self, sent: Sent, rows: Collection[TurnRow]) -> Kept | None:
        """A message's hash and log; None if it does not exist."""
        fields = await _insist(lambda: self._any.hgetall(_message_key(sent)))
        log = NAMES.log_key(APP_ID, _channel(sent), sent.id)
        entries = await _insist(lambda: self._any.xrange(log))
        if not fields:
            return None
        text, final = wire.LOG_TEXT.encode(), wire.LOG_FINAL.encode()
        found = [decode_entry(values) for _, values in entries]
        marker = next((values[final] for _, values in entries if final in values), None)
        decision = {"state": ""} if marker is None else json.loads(marker)
        return Kept(
            state=fields[b"state"].decode(),
            next=int(fields.get(b"next", 0)),
            attempt=int(fields.get(b"attempt", 0)),
            log=tuple(values[text].decode() for _, values in entries if text in values),
            decided=decision.get("state", "complete"),
            code=decision.get("code", ""),
            rows=tuple(rows),
            parts=tuple(
                LoggedPart(offset, entry.token_index or 0, entry.kind, json.loads(entry.data or b"{}"))
                for offset, entry in enumerate(found)
                if entry is not None and entry.kind
            ),
        )


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except (RedisError, OSError):
            await asyncio.sleep(PAUSE)


def turns(database: Path) -> Mapping[str, list[TurnRow]]:
    """The turns of each message, out of an SQLite file."""
    rows: defaultdict[str, list[TurnRow]] = defaultdict(list)
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        for message_id, *turn in connection.execute("SELECT message_id, role, content, status FROM messages"):
            rows[message_id].append(TurnRow(*turn))
    return rows


def _channel(sent: Sent) -> str:
    return stream.chat_channel(sent.user)


def _message_key(sent: Sent) -> str:
    return NAMES.message_key(APP_ID, _channel(sent), sent.id)
