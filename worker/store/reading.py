"""Reads the turns of one conversation, within a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from legato.worker.limits import PATH_TURNS_PER_READ

from .paths import StoredTurn, TurnName, Turns
from .rows import Place
from .tables import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .paths import StoredExchange


def turns(connection: sa.Connection, conversation: int) -> Turns:
    """The turns of the conversation, without their texts."""
    newest = (
        sa.select(
            messages.c.position,
            messages.c.message_id,
            messages.c.role,
            messages.c.parent_id,
            messages.c.status,
            _said(messages.c),
        )
        .where(*_of(conversation))
        .order_by(messages.c.position.desc())
        .limit(PATH_TURNS_PER_READ)
    )

    def read(start: TurnName | int | None) -> Sequence[StoredTurn]:
        query = newest
        if isinstance(start, TurnName):
            where = sa.select(messages.c.position).where(*_of(conversation), *_named(start))
            query = query.where(messages.c.position <= where.scalar_subquery())
        elif start is not None:
            query = query.where(messages.c.position < start)
        return [StoredTurn(*row) for row in connection.execute(query)]

    return Turns(read)


def texts(
    connection: sa.Connection, conversation: int, exchanges: Sequence[StoredExchange], enough: int
) -> list[tuple[str, str]]:
    """The texts of these exchanges, the first ``enough`` characters of each."""
    positions = [turn.position for exchange in exchanges for turn in exchange]
    if not positions:
        return []
    query = sa.select(messages.c.position, sa.func.substr(messages.c.content, 1, enough)).where(
        *_of(conversation), messages.c.position.in_(positions)
    )
    found = dict(connection.execute(query).all())
    return [(found[exchange.user.position], found[exchange.reply.position]) for exchange in exchanges]


def text(connection: sa.Connection, conversation: int, position: int) -> str:
    """The whole text of one turn."""
    query = sa.select(messages.c.content).where(*_of(conversation), messages.c.position == position)
    return str(connection.scalar(query))


def beginning(connection: sa.Connection, conversation: int, characters: int) -> str:
    """The beginning of the conversation's first turn."""
    query = (
        sa.select(sa.func.substr(messages.c.content, 1, characters))
        .where(*_of(conversation))
        .order_by(messages.c.position)
        .limit(1)
    )
    return connection.scalar(query) or ""


def place(connection: sa.Connection, conversation: int, parent: TurnName | None) -> Place | None:
    """The place of further turns, which follow ``parent``, or the turn that was stored last (None).

    An empty name stands for the beginning. None if there is no such parent.
    """
    known: sa.ColumnElement[Any] = sa.literal(1)
    if parent is not None and parent.message_id:
        known = sa.exists().where(*_of(conversation), *_named(parent))
    query = (
        sa.select(messages.c.position, messages.c.message_id, known)
        .where(*_of(conversation))
        .order_by(messages.c.position.desc())
        .limit(1)
    )
    last = connection.execute(query).first()
    if last is None:
        return None if parent is not None and parent.message_id else Place(conversation, 0, "")
    if not last[2]:
        return None
    return Place(conversation, last[0] + 1, last[1] if parent is None else parent.message_id)


def _of(conversation: int) -> tuple[sa.ColumnElement[bool], ...]:
    return messages.c.conversation_id == conversation, messages.c.position.is_not(None)


def _named(name: TurnName) -> tuple[sa.ColumnElement[bool], ...]:
    return messages.c.message_id == name.message_id, messages.c.role == name.role


def _said(columns: Any) -> sa.ColumnElement[bool]:
    """Whether a turn has text. Only a reply that was cancelled at once has none: no other text is read."""
    return sa.case((columns.status != "cancelled", True), else_=sa.func.trim(columns.content) != "")
