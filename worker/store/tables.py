"""The tables of this version. The steps that lead there are in ``migrations/``."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata: Final = sa.MetaData()

_Key: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite autoincrements only INTEGER

# MySQL's TEXT ends at 64 KB.
_LongText: Final = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def _name(length: int) -> sa.String:
    """An id, compared with case, which MySQL's default collations would ignore."""
    return sa.String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql")


conversations: Final = sa.Table(
    "conversations",
    metadata,
    sa.Column("id", _Key, primary_key=True),
    sa.Column("public_id", _name(64)),
    sa.Column("user_id", _name(128), nullable=False),
    sa.Column("session_id", _name(64)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("title", sa.String(200)),
    sa.UniqueConstraint("public_id", name="uq_conversations_public"),
    sa.UniqueConstraint("user_id", "session_id", name="uq_conversations_user_session"),
    sa.Index("ix_conversations_user", "user_id", "updated_at"),
    sa.Index("ix_conversations_listed", "user_id", "session_id", "updated_at", "id"),
    mysql_charset="utf8mb4",
)
"""One row per conversation, with one of two ids.

``public_id`` is the ``conversation_id`` of requests: its turns were answered with the history stored here.
``session_id`` groups turns whose history the client sent; it is unique per user only. A conversation that was
deleted keeps its ``public_id`` and has :data:`~legato.protocol.conversations.NOBODY` as its user, so that it
is everybody's denied one, also to workers of an earlier version.
"""

messages: Final = sa.Table(
    "messages",
    metadata,
    sa.Column("id", _Key, primary_key=True),
    sa.Column("message_id", _name(64), nullable=False),
    sa.Column("user_id", _name(128), nullable=False),
    sa.Column("session_id", _name(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("content", _LongText, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("stop_reason", sa.String(64)),
    sa.Column("model", sa.String(200)),
    sa.Column("input_tokens", sa.Integer),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("cache_read_tokens", sa.Integer),
    sa.Column("cache_write_tokens", sa.Integer),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column(
        "conversation_id",
        _Key,
        sa.ForeignKey("conversations.id", name="fk_messages_conversation", ondelete="CASCADE"),
    ),
    sa.Column("position", sa.Integer),
    sa.Column("parent_id", _name(64)),
    sa.UniqueConstraint("message_id", "role", name="uq_messages_message_role"),
    sa.Index("ix_messages_user_session", "user_id", "session_id", "created_at"),
    sa.Index("uq_messages_position", "conversation_id", "position", unique=True),
    mysql_charset="utf8mb4",
)
"""One row per turn. ``role`` is user or assistant; ``status`` is complete, failed or cancelled.

``position`` counts the turns of a conversation from 0, in the order in which they were stored; both turns of
a message are stored together. It is empty, as is ``conversation_id``, in rows of an earlier version.

``parent_id`` is the ``message_id`` of the turn that this one follows: a user's turn follows a reply, a reply
answers a user's turn. It is '' at the beginning of the conversation. It is NULL in rows of an earlier
version, which follow the row before them by position.
"""
