"""Conversations in a database: SQLite by default, PostgreSQL or MySQL by URL.

A turn is written once: its message id and role are unique, and a second write of the same turn is ignored.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from legato.protocol import databases, history
from legato.protocol.stream import Turn, Usage

from . import database, revisions
from .tables import conversations, messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from legato.protocol.stream import Job
    from legato.worker.replies.reply import Decision

log: Final = logging.getLogger("legato.worker")


class DatabaseUnavailableError(Exception):
    """The database cannot be used now. One line, without the statement and its values."""


class DatabaseRefusedError(Exception):
    """The database will never take these turns. One line, as in :class:`DatabaseUnavailableError`."""


class ConversationDeniedError(Exception):
    """The conversation is another user's."""


class HistoryLimits(NamedTuple):
    """How much of a conversation is sent to the model: maximum turns and characters."""

    turns: int = 40
    characters: int = 160_000


def _ignore_existing(insert: Any) -> Callable[..., Any]:
    return lambda table, unique: insert(table).on_conflict_do_nothing(index_elements=unique)


_INSERT_ONCE: Final[Mapping[str, Callable[[sa.Table, Iterable[str]], Any]]] = {
    "sqlite": _ignore_existing(sqlite.insert),
    "postgresql": _ignore_existing(postgresql.insert),
    # Not INSERT IGNORE, which ignores every other fault too, and cuts off what is too long.
    "mysql": lambda table, _: mysql.insert(table).on_duplicate_key_update(id=table.c.id),
}
"""By dialect: an insert into a table that ignores rows whose unique columns exist already."""

HISTORY_STATES: Final = ("complete", "cancelled")
"""States of a reply whose exchange belongs to the history that is sent to the model."""


class Store:
    """The conversations in the database. One per process.

    :param migrate: whether :meth:`prepare` may change the tables.
    :raises SettingsError: ``url`` is not one, or its driver is not installed. The text never holds ``url``.
    """

    def __init__(self, url: str, *, migrate: bool = True, limits: HistoryLimits = HistoryLimits()) -> None:  # noqa: B008 - a tuple
        self._engine = database.connect(url)
        self._insert_once = _INSERT_ONCE[self._engine.dialect.name]
        self._migrate = migrate
        self._limits = limits

    async def prepare(self) -> None:
        """Upgrade the tables, or check that they are up to date. Several processes may do so at once.

        :raises FAULTS: one of :data:`legato.worker.store.database.FAULTS` when the database cannot be used.
        """
        await asyncio.to_thread(database.probe, self._engine)
        await (revisions.upgrade if self._migrate else revisions.check)(self._engine)

    async def history(self, job: Job) -> tuple[Turn, ...]:
        """The turns before the job's message, as they are sent to the model.

        For a job with a conversation: its newest exchanges whose reply is complete or cancelled, oldest
        first; the conversation is created if it does not exist. The log says when it is cut to the limits.
        For any other job: the job's own history.

        :raises ConversationDeniedError: the conversation is another user's.
        :raises DatabaseUnavailableError: a later call may succeed.
        :raises DatabaseRefusedError: no later call would.
        """
        if job.conversation_id is None:
            return job.history
        try:
            async with self._engine.begin() as connection:
                conversation = await self._conversation(connection, job)
                if conversation is None:
                    raise ConversationDeniedError
                query = _exchanges(conversation, self._limits).where(messages.c.message_id != job.message_id)
                newest_first = (await connection.execute(query)).all()
        except database.FAULTS as error:
            raise _translated(error) from None
        return _within(_turns(newest_first), self._limits, job)

    async def save(self, job: Job, text: str, decision: Decision) -> None:
        """Store both turns of a message in one transaction. Turns that exist already are left unchanged.

        A message for another user's conversation is stored outside of it.

        :raises DatabaseUnavailableError: a later call may succeed.
        :raises DatabaseRefusedError: no later call would.
        """
        try:
            async with self._engine.begin() as connection:
                await self._save(connection, [_user_turn(job), _assistant_turn(job, text, decision)], job)
        except database.FAULTS as error:
            raise _translated(error) from None  # the cause's text holds what people wrote

    async def _save(self, connection: AsyncConnection, turns: list[dict[str, Any]], job: Job) -> None:
        conversation = await self._conversation(connection, job)
        if conversation is None:
            conversation = await self._open(connection, job, {"session_id": job.message_id})
        place = await connection.scalar(
            sa.select(sa.func.coalesce(sa.func.max(messages.c.position) + 1, 0)).where(
                messages.c.conversation_id == conversation
            )
        )
        rows = [
            {**turn, "conversation_id": conversation, "position": position}
            for position, turn in enumerate(turns, place or 0)
        ]
        await connection.execute(self._insert_once(messages, ["message_id", "role"]), rows)
        touched = conversations.update().where(conversations.c.id == conversation)
        await connection.execute(touched.values(updated_at=datetime.now(UTC)))

    async def _conversation(self, connection: AsyncConnection, job: Job) -> int | None:
        """The job's conversation; None if it is another user's."""
        if job.conversation_id is not None:
            return await self._open(connection, job, {"public_id": job.conversation_id})
        return await self._open(connection, job, {"session_id": job.session_id or job.message_id})

    async def _open(self, connection: AsyncConnection, job: Job, name: Mapping[str, str]) -> int | None:
        """Find or create the conversation, and lock it until the end of the transaction.

        None if it is another user's, which is possible only by ``public_id``.
        """
        user = str(job.user_id)
        key = name if "public_id" in name else {**name, "user_id": user}
        query = (
            sa.select(conversations.c.id, conversations.c.user_id)
            .where(*(conversations.c[column] == value for column, value in key.items()))
            .with_for_update()
        )
        row = (await connection.execute(query)).first()
        if row is None:
            now = datetime.now(UTC)
            new = {**name, "user_id": user, "created_at": now, "updated_at": now}
            await connection.execute(self._insert_once(conversations, list(key)), [new])
            row = (await connection.execute(query)).one()
        return row.id if row.user_id == user else None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _translated(error: Exception) -> DatabaseUnavailableError | DatabaseRefusedError:
    kind = DatabaseUnavailableError if database.is_down(error) else DatabaseRefusedError
    return kind(databases.reason(error))


def _exchanges(conversation: int, limits: HistoryLimits) -> sa.Select[str, str]:
    """Messages with their replies, newest first: one more than the limits allow, which shows that there are.

    Texts are cut only where they are too long to be used at all.
    """
    asked, answered = messages.alias("asked"), messages
    enough = limits.characters + 1
    return (
        sa.select(sa.func.substr(asked.c.content, 1, enough), sa.func.substr(answered.c.content, 1, enough))
        .join(asked, sa.and_(asked.c.message_id == answered.c.message_id, asked.c.role == "user"))
        .where(
            answered.c.conversation_id == conversation,
            asked.c.conversation_id == conversation,
            answered.c.role == "assistant",
            answered.c.status.in_(HISTORY_STATES),
            sa.func.trim(answered.c.content) != "",  # cancelled before the first token
        )
        .order_by(answered.c.position.desc())
        .limit(limits.turns // 2 + 1)
    )


def _turns(newest_first: Sequence[tuple[str, str]]) -> list[Turn]:
    """The turns of the exchanges, oldest first. Models refuse a turn without text."""
    return [
        turn
        for asked, answered in reversed(newest_first)
        if asked.strip() and answered.strip()
        for turn in (Turn("user", asked), Turn("assistant", answered))
    ]


def _within(turns: Sequence[Turn], limits: HistoryLimits, job: Job) -> tuple[Turn, ...]:
    """As many of the turns as the limits allow; a line in the log if those are not all."""
    kept = history.cut(turns, turns=limits.turns, characters=limits.characters)
    if len(kept) < len(turns):
        length = sum(len(turn.content) for turn in kept)
        log.info("reply %s: history cut to %d turns, %d characters", job.message_id, len(kept), length)
    return kept


def _user_turn(job: Job) -> dict[str, Any]:
    return {
        **_turn(job, "user", job.message),
        **_no_model,
        "status": "complete",
        "created_at": datetime.fromtimestamp(min(job.queued_at, _LAST_MS) / 1000, UTC),
    }


def _assistant_turn(job: Job, text: str, decision: Decision) -> dict[str, Any]:
    usage = decision.usage or Usage()
    return {
        **_turn(job, "assistant", text),
        "status": decision.state,
        "stop_reason": decision.stop_reason,
        "model": decision.model,
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "created_at": datetime.now(UTC),
    }


def _turn(job: Job, role: str, content: str) -> dict[str, Any]:
    return {
        "message_id": job.message_id,
        "user_id": str(job.user_id),
        "session_id": job.session_id or job.message_id,
        "role": role,
        "content": content.replace("\0", ""),  # PostgreSQL's text cannot hold it
    }


_LAST_MS: Final = 253_402_300_799_000  # of the year 9999: other programs may put any number into a job
_no_model: Final = dict.fromkeys(
    ("stop_reason", "model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
)
