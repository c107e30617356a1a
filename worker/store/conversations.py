"""Conversations in a database: SQLite by default, PostgreSQL or MySQL by URL.

A turn is written once: its message id and role are unique, and a second write of the same turn is ignored.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from legato.protocol import databases, history
from legato.protocol.conversations import MAX_FIRST_WORDS, NOBODY, first_words
from legato.protocol.jobs import Turn

from . import database, reading, revisions, rows, transactions
from .paths import TurnName, exchanges
from .tables import conversations, messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from legato.protocol.jobs import Job
    from legato.worker.replies.reply import Decision

    from .paths import StoredTurn, Turns

log: Final = logging.getLogger("legato.worker")


class DatabaseUnavailableError(Exception):
    """The database cannot be used now. One line, without the statement and its values."""


class DatabaseRefusedError(Exception):
    """The database will never take these turns. One line, as in :class:`DatabaseUnavailableError`."""


class ConversationDeniedError(Exception):
    """The conversation is another user's, or was deleted."""


class UnknownParentError(Exception):
    """The conversation has no turn that could be followed, or answered once more, as the job says."""


class NewTitle(NamedTuple):
    """A title that a conversation has got."""

    title: str
    updated_at: datetime


class _Conversation(NamedTuple):
    """A row of ``conversations``."""

    id: int
    user_id: str
    title: str | None


class HistoryLimits(NamedTuple):
    """How much of a conversation is sent to the model: maximum turns and characters."""

    turns: int = 40
    characters: int = 160_000


def _ignore_existing(dialect: str) -> Callable[..., Any]:
    def insert_once(table: sa.Table, unique: Iterable[str]) -> Any:
        # Imported by who uses it: PostgreSQL's takes a tenth of the start of a worker.
        insert = importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert
        return insert(table).on_conflict_do_nothing(index_elements=unique)

    return insert_once


_INSERT_ONCE: Final[Mapping[str, Callable[[sa.Table, Iterable[str]], Any]]] = {
    "sqlite": _ignore_existing("sqlite"),
    "postgresql": _ignore_existing("postgresql"),
    # Not INSERT IGNORE, which ignores every other fault too, and cuts off what is too long.
    "mysql": lambda table, _: mysql.insert(table).on_duplicate_key_update(id=table.c.id),
}
"""By dialect: an insert into a table that ignores rows whose unique columns exist already."""


_COUNT_INSERTS: Final = frozenset({"sqlite", "postgresql"})
"""Dialects in which such an insert tells whether there was a row. MySQL counts one that exists as well."""


class Store:
    """The conversations in the database. One per process.

    :param migrate: whether :meth:`prepare` may change the tables.
    :param titles: whether the first words of a conversation become its title.
    :raises SettingsError: ``url`` is not one, or its driver is not installed. The text never holds ``url``.
    """

    def __init__(
        self,
        url: str,
        *,
        migrate: bool = True,
        limits: HistoryLimits = HistoryLimits(),  # noqa: B008 - a tuple
        titles: bool = True,
    ) -> None:
        self._engine = database.connect(url)
        self._transactions = transactions.of(self._engine)
        self._insert_once = _INSERT_ONCE[self._engine.dialect.name]
        self._migrate = migrate
        self._limits = limits
        self._titles = titles

    async def prepare(self) -> None:
        """Upgrade the tables, or check that they are up to date. Several processes may do so at once.

        :raises FAULTS: one of :data:`legato.worker.store.database.FAULTS` when the database cannot be used.
        """
        await asyncio.to_thread(database.probe, self._engine)
        await (revisions.upgrade if self._migrate else revisions.check)(self._engine)

    async def with_history(self, job: Job) -> Job:
        """The job with the turns before its message, as they are sent to the model.

        For a job with a conversation: the newest exchanges on the path to its parent whose reply is complete
        or cancelled, oldest first; and the message, if it is answered once more. The conversation is created
        if it does not exist. If the path is cut to the limits, the job and the log say so. Any other job is
        unchanged.

        :raises ConversationDeniedError: the conversation is another user's, or was deleted.
        :raises UnknownParentError: it has no such turn as the job's parent.
        :raises DatabaseUnavailableError: a later call may succeed.
        :raises DatabaseRefusedError: no later call would.
        """
        if job.conversation_id is None:
            return job
        try:
            message, newest_first = await self._transactions.run(
                lambda connection: self._before(connection, job)
            )
        except database.FAULTS as error:
            raise _translated(error) from None
        turns = _turns(newest_first)
        kept = _within(turns, self._limits, job)
        return msgspec.structs.replace(job, message=message, history=kept, history_cut=len(kept) < len(turns))

    def _before(self, connection: sa.Connection, job: Job) -> tuple[str, Sequence[tuple[str, str]]]:
        """The job's message, and the newest exchanges on the path to it."""
        conversation = self._conversation(connection, job)
        if conversation.user_id != str(job.user_id):
            raise ConversationDeniedError
        turns, message = reading.turns(connection, conversation.id), job.message
        start = _start(turns, job)
        if job.regenerate and start is not None:
            message = reading.text(connection, conversation.id, start.position)
        earlier = (
            exchange
            for exchange in exchanges(turns.path(start))
            if exchange.reply.message_id != job.message_id
        )
        # One more than the limits allow, which shows that there are; texts as far as they can be used.
        newest = list(islice(earlier, self._limits.turns // 2 + 1))
        return message, reading.texts(connection, conversation.id, newest, self._limits.characters + 1)

    async def save(self, job: Job, text: str, decision: Decision) -> NewTitle | None:
        """Store the turns of a message in one transaction. Turns that exist already are left unchanged.

        A message for another user's conversation, or with an unknown parent, is stored outside of it. One for
        a conversation that was deleted is not stored.

        :returns: the title that the conversation has got with this message.
        :raises DatabaseUnavailableError: a later call may succeed.
        :raises DatabaseRefusedError: no later call would.
        """
        try:
            turns = rows.turns_of(job, text, decision)
            return await self._transactions.run(lambda connection: self._save(connection, turns, job))
        except database.FAULTS as error:
            raise _translated(error) from None  # the cause's text holds what people wrote

    def _save(self, connection: sa.Connection, turns: list[dict[str, Any]], job: Job) -> NewTitle | None:
        alone = job.conversation_id is None and job.session_id is None
        if alone and self._save_alone(connection, turns, job):
            return None
        conversation = self._conversation(connection, job)
        if conversation.user_id == NOBODY:
            return None
        place = None
        if conversation.user_id == str(job.user_id):
            place = reading.place(connection, conversation.id, _parent(job))
        if place is None:
            conversation = self._open(connection, job, {"session_id": job.message_id})
            place = reading.place(connection, conversation.id, None)
            assert place is not None  # noqa: S101 - the end of a conversation is always known
            job = msgspec.structs.replace(job, conversation_id=None)
        connection.execute(self._insert_once(messages, ["message_id", "role"]), rows.placed(turns, place))
        title, now = self._new_title(connection, conversation, place, job), datetime.now(UTC)
        touched = conversations.update().where(conversations.c.id == conversation.id)
        connection.execute(touched.values(updated_at=now, **({"title": title} if title else {})))
        return NewTitle(title, now) if title else None

    def _save_alone(self, connection: sa.Connection, turns: list[dict[str, Any]], job: Job) -> bool:
        """Store a message that belongs to no conversation, as one of its own. False if there is one already.

        Nothing has to be looked up for it, and each statement costs as much as many tokens.
        """
        user, now = str(job.user_id), datetime.now(UTC)
        new = {"session_id": job.message_id, "user_id": user, "created_at": now, "updated_at": now}
        if connection.dialect.name not in _COUNT_INSERTS:
            return False
        made = connection.execute(self._insert_once(conversations, ["session_id", "user_id"]), new)
        if made.rowcount != 1 or made.inserted_primary_key is None:
            return False
        place = rows.Place(made.inserted_primary_key[0], 0, "")
        connection.execute(self._insert_once(messages, ["message_id", "role"]), rows.placed(turns, place))
        return True

    def _new_title(
        self, connection: sa.Connection, conversation: _Conversation, place: rows.Place, job: Job
    ) -> str:
        """The first words of a conversation without a title; empty if it gets none."""
        if job.conversation_id is None or conversation.title is not None or not self._titles:
            return ""
        if place.position == 0:
            return first_words(job.message)
        # It is older than titles.
        return first_words(reading.beginning(connection, conversation.id, MAX_FIRST_WORDS * 10))

    async def retitle(self, job: Job, old: str, new: str) -> bool:
        """Give the job's conversation another title, unless it has got another than ``old``. Answers whether.

        :raises DatabaseUnavailableError: and :raises DatabaseRefusedError: it has failed.
        """
        changed = (
            conversations.update()
            .where(
                conversations.c.public_id == job.conversation_id,
                conversations.c.user_id == str(job.user_id),
                conversations.c.title == old,
            )
            .values(title=new)
        )
        try:
            return await self._transactions.run(lambda connection: connection.execute(changed).rowcount > 0)
        except database.FAULTS as error:
            raise _translated(error) from None

    def _conversation(self, connection: sa.Connection, job: Job) -> _Conversation:
        """The job's conversation, whosever it is."""
        if job.conversation_id is not None:
            return self._open(connection, job, {"public_id": job.conversation_id})
        return self._open(connection, job, {"session_id": job.session_id or job.message_id})

    def _open(self, connection: sa.Connection, job: Job, name: Mapping[str, str]) -> _Conversation:
        """Find or create the conversation, and lock it until the end of the transaction.

        It may be another user's, or nobody's, only by ``public_id``.
        """
        user = str(job.user_id)
        key = name if "public_id" in name else {**name, "user_id": user}
        query = (
            sa.select(conversations.c.id, conversations.c.user_id, conversations.c.title)
            .where(*(conversations.c[column] == value for column, value in key.items()))
            .with_for_update()
        )
        row = (connection.execute(query)).first()
        if row is None:
            now = datetime.now(UTC)
            new = {**name, "user_id": user, "created_at": now, "updated_at": now}
            connection.execute(self._insert_once(conversations, list(key)), [new])
            row = (connection.execute(query)).one()
        return _Conversation(*row)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transactions.aclose()


def _translated(error: Exception) -> DatabaseUnavailableError | DatabaseRefusedError:
    kind = DatabaseUnavailableError if database.is_down(error) else DatabaseRefusedError
    return kind(databases.reason(error))


def _start(turns: Turns, job: Job) -> StoredTurn | None:
    """Where the path to the job's message begins; None if it is the first.

    :raises UnknownParentError: there is no such turn.
    """
    parent = _parent(job)
    if parent is None:
        return turns.last()
    if not parent.message_id:
        return None
    found = turns.find(parent)
    if found is None:
        raise UnknownParentError
    return found


def _parent(job: Job) -> TurnName | None:
    """The turn that the first turn of the job follows; None: the last one that is stored."""
    if job.parent_id is None:
        return None
    return TurnName(job.parent_id, "user" if job.regenerate else "assistant")


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
