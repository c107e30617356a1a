"""Conversations and turns as the API tells them, and what goes wrong. Nothing here needs SQLAlchemy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from legato.protocol.stream import Usage


class DatabaseDownError(Exception):
    """The database cannot be used now. The reason is in the log."""


class ConversationRecord(msgspec.Struct, frozen=True):
    """A conversation. Times are ISO 8601 in UTC."""

    id: str
    title: str | None
    created_at: str
    updated_at: str


class TurnRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn. ``message_id`` and ``role`` name it.

    :ivar parent_id: message of the turn that it follows; empty: it begins the conversation.
    :ivar model: this and the following are of replies.
    """

    message_id: str
    role: str
    parent_id: str
    content: str
    status: str
    created_at: str
    model: str | None = None
    stop_reason: str | None = None
    usage: Usage | None = None


class ConversationPage(msgspec.Struct, frozen=True):
    """Conversations, the one that was used last first. ``next``: cursor of the next page, if there is one."""

    conversations: list[ConversationRecord]
    next: str | None


class TurnPage(msgspec.Struct, frozen=True):
    """A conversation with some of its turns, the one that was stored last first."""

    id: str
    title: str | None
    created_at: str
    updated_at: str
    turns: list[TurnRecord]
    next: str | None


def utc(time: datetime) -> datetime:
    """SQLite and MySQL give times without their zone."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def told(time: datetime) -> str:
    """A time as the API tells it."""
    return utc(time).isoformat(timespec="milliseconds").replace("+00:00", "Z")
