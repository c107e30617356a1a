"""The stored conversations of each user. To anybody else, a conversation does not exist."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from legato.broadcaster.database_limits import TURNS_PAGE_CHARACTERS
from legato.protocol.conversations import NOBODY
from legato.protocol.stream import Usage

from . import running
from .cursors import ConversationPlace, TurnPosition, encode
from .records import ConversationPage, ConversationRecord, TurnPage, TurnRecord, told, utc
from .tables import conversations, messages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from legato.broadcaster.replies.open_messages import OpenMessage
    from legato.protocol.stream import UserId

    from .database import ConversationDatabase


class Conversations:
    """The conversations that have a ``conversation_id``.

    Every method raises :class:`.records.DatabaseDownError` when the database cannot be used.
    """

    def __init__(self, database: ConversationDatabase) -> None:
        self._database = database

    async def page(
        self,
        user_id: UserId,
        limit: int,
        below: ConversationPlace | None,
        words: Sequence[str] = (),
        open_messages: Sequence[OpenMessage] = (),
    ) -> ConversationPage:
        """The user's conversations, the one that was used last first.

        :param words: each has to be in the title, or in a text of the conversation.
        :param open_messages: the user's open ones that have these words, read before this is called. On the
           first page, their conversations of which nothing is stored yet come first, beyond the limit.
        """
        begun = running.conversations(open_messages)
        query = _listed(user_id, below).limit(limit + 1)
        if words:
            has_all = sa.and_(*(_has(word) for word in words))
            query = query.where(sa.or_(has_all, conversations.c.public_id.in_(begun)))

        def work(connection: sa.Connection) -> ConversationPage:
            rows = connection.execute(query).all()
            fresh = [] if below is not None else _not_stored(connection, begun)
            stored = [_titled(_conversation(row), begun) for row in rows[:limit]]
            more = rows[limit - 1] if len(rows) > limit else None
            following = None if more is None else encode(ConversationPlace(utc(more.updated_at), more.id))
            return ConversationPage([*(begun[name] for name in fresh), *stored], following)

        return await self._database.run(work)

    async def read(
        self,
        user_id: UserId,
        conversation_id: str,
        limit: int,
        below: TurnPosition | None,
        open_messages: Sequence[OpenMessage] = (),
    ) -> TurnPage | None:
        """A conversation with its turns, the one that was stored last first; None if there is none such.

        :param open_messages: its open ones, read before this is called. On the first page, their turns come
           first, beyond the limit.
        """

        def work(connection: sa.Connection) -> TurnPage | None:
            row = connection.execute(_owned(user_id, conversation_id)).first()
            if row is not None:
                page = _turn_page(connection, row, limit, below)
                return page if below is not None else _with(connection, row, page, open_messages)
            if below is None and open_messages and _not_stored(connection, [conversation_id]):
                return running.page(open_messages)
            return None

        return await self._database.run(work)

    async def rename(self, user_id: UserId, conversation_id: str, title: str) -> ConversationRecord | None:
        """Give a conversation a title; None if there is none such."""
        change = conversations.update().where(*_is(user_id, conversation_id)).values(title=title)

        def work(connection: sa.Connection) -> ConversationRecord | None:
            connection.execute(change)  # first: SQLite's transactions cannot wait once they have read
            row = connection.execute(_owned(user_id, conversation_id)).first()
            return None if row is None else _conversation(row)

        return await self._database.run(work)

    async def delete(self, user_id: UserId, conversation_id: str) -> str | None:
        """Remove the text of a conversation. Its id stays taken, so that no late reply revives it.

        :returns: when; None if there is none such.
        """
        now = datetime.now(UTC)
        values = {"user_id": NOBODY, "title": None, "updated_at": now}
        gone = conversations.update().where(*_is(user_id, conversation_id)).values(values)
        of_it = sa.select(conversations.c.id).where(conversations.c.public_id == conversation_id)
        texts = sa.delete(messages).where(messages.c.conversation_id == of_it.scalar_subquery())

        def work(connection: sa.Connection) -> str | None:
            if not connection.execute(gone).rowcount:
                return None
            connection.execute(texts)
            return told(now)

        return await self._database.run(work)


def _listed(user_id: UserId, below: ConversationPlace | None) -> sa.Select[Any]:
    c = conversations.c
    query = (
        sa.select(c.public_id, c.title, c.created_at, c.updated_at, c.id)
        .where(c.user_id == str(user_id), c.session_id.is_(None), c.public_id.is_not(None))
        .order_by(c.updated_at.desc(), c.id.desc())
    )
    if below is None:
        return query
    same = sa.and_(c.updated_at == below.updated_at, c.id < below.number)
    return query.where(sa.or_(c.updated_at < below.updated_at, same))


def _has(word: str) -> sa.ColumnElement[bool]:
    """Whether the word is in the title of the conversation, or in one of its texts."""
    in_text = sa.exists().where(
        messages.c.conversation_id == conversations.c.id, _contains(messages.c.content, word)
    )
    return sa.or_(_contains(conversations.c.title, word), in_text)


def _contains(column: sa.ColumnClause[Any], word: str) -> sa.ColumnElement[bool]:
    """SQLite, and PostgreSQL with the locale C, know the case of ASCII letters only."""
    forms = {word} if word.isascii() else {word, word.lower(), word.upper(), word.title()}
    return sa.or_(*(column.icontains(form, autoescape=True) for form in sorted(forms)))


def _not_stored(connection: sa.Connection, names: Collection[str]) -> list[str]:
    """Those of these conversations that are nobody's: not stored, and not deleted either."""
    if not names:
        return []
    c = conversations.c
    stored = set(connection.scalars(sa.select(c.public_id).where(c.public_id.in_(names))))
    return [name for name in names if name not in stored]


def _titled(record: ConversationRecord, begun: Mapping[str, ConversationRecord]) -> ConversationRecord:
    """The conversation, with the first words of its first message before anything of it is stored."""
    if record.title is not None or record.id not in begun or record.created_at != record.updated_at:
        return record
    return msgspec.structs.replace(record, title=begun[record.id].title)


def _is(user_id: UserId, conversation_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    c = conversations.c
    return c.public_id == conversation_id, c.user_id == str(user_id)


def _owned(user_id: UserId, conversation_id: str) -> sa.Select[Any]:
    c = conversations.c
    query = sa.select(c.public_id, c.title, c.created_at, c.updated_at, c.id)
    return query.where(*_is(user_id, conversation_id))


def _turn_page(
    connection: sa.Connection, row: sa.Row[Any], limit: int, below: TurnPosition | None
) -> TurnPage:
    m = messages.c
    of_it = [m.conversation_id == row.id, m.position.is_not(None)]
    if below is not None:
        of_it.append(m.position < below.position)
    query = sa.select(m.position, m.message_id, sa.func.char_length(m.content).label("length"))
    places = connection.execute(query.where(*of_it).order_by(m.position.desc()).limit(limit + 1)).all()
    count = _fitting(places, limit)
    turns: list[TurnRecord] = []
    if count:
        reach = m.position.between(places[count - 1].position, places[0].position)
        found = connection.execute(sa.select(*messages.c).where(m.conversation_id == row.id, reach))
        rows = {turn.position: turn for turn in found}
        before = {place.position: earlier.message_id for place, earlier in pairwise(places)}
        turns = [
            _turn(rows[place.position], before.get(place.position, ""))
            for place in places[:count]
            if place.position in rows  # else it was deleted between the two queries
        ]
    following = encode(TurnPosition(places[count - 1].position)) if count < len(places) else None
    return TurnPage(**_fields(row), turns=turns, next=following)


def _with(
    connection: sa.Connection, row: sa.Row[Any], page: TurnPage, open_messages: Sequence[OpenMessage]
) -> TurnPage:
    """The first page of a conversation with the turns of its open messages before it."""
    if not open_messages:
        return page
    m = messages.c
    ids = [message.message_id for message in open_messages]
    of_them = sa.select(m.message_id).where(m.conversation_id == row.id, m.message_id.in_(ids))
    stored = set(connection.scalars(of_them))
    last = page.turns[0].message_id if page.turns else ""
    unstored = [message for message in open_messages if message.message_id not in stored]
    title = _titled(_conversation(row), running.conversations(unstored)).title
    turns = [*running.turns(unstored, last), *page.turns]
    return msgspec.structs.replace(page, title=title, turns=turns)


def _fitting(places: Sequence[sa.Row[Any]], limit: int) -> int:
    """How many of these turns make a page: at least one, if there is any."""
    characters = 0
    for count, place in enumerate(places[:limit]):
        characters += place.length
        if count and characters > TURNS_PAGE_CHARACTERS:
            return count
    return min(limit, len(places))


def _fields(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "title": row.title,
        "created_at": told(row.created_at),
        "updated_at": told(row.updated_at),
    }


def _conversation(row: sa.Row[Any]) -> ConversationRecord:
    return ConversationRecord(**_fields(row))


_TOKENS: Final = ("input", "output", "cache_read", "cache_write")


def _turn(row: sa.Row[Any], before: str) -> TurnRecord:
    """:param before: message of the turn before it by position, which it follows if it does not say."""
    usage = None
    if row.role == "assistant":
        usage = Usage(*(getattr(row, f"{name}_tokens") or 0 for name in _TOKENS))
    return TurnRecord(
        row.message_id,
        row.role,
        before if row.parent_id is None else row.parent_id,
        row.content,
        row.status,
        told(row.created_at),
        row.model or None,
        row.stop_reason,
        usage,
    )
