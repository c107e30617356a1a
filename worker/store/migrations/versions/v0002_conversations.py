"""Conversations: each session of a user becomes one, and every turn has its place in it.

MySQL ends the transaction with every statement that changes a table, so a crash may leave any part of this
done: each step looks first whether it is needed.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects import mysql

revision: Final = "0002"
down_revision: Final = "0001"

Key: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

conversations: Final = sa.table(
    "conversations",
    *map(sa.column, ("id", "public_id", "user_id", "session_id", "created_at", "updated_at")),
)
messages: Final = sa.table(
    "messages",
    *map(sa.column, ("id", "user_id", "session_id", "created_at", "conversation_id", "position")),
)


def upgrade() -> None:
    """Make the table and the columns that refer to it, fill both, then hold them to it."""
    dialect = op.get_bind().dialect.name
    if dialect == "mysql":
        _tell_case_apart()
    _create_conversations()
    _add_columns(sqlite=dialect == "sqlite")
    _fill()
    _constrain(sqlite=dialect == "sqlite")


def _tell_case_apart() -> None:
    """MySQL took two ids that differ in case for the same one."""
    names = {"message_id": 64, "user_id": 128, "session_id": 64}
    op.execute(
        "ALTER TABLE messages "
        + ", ".join(
            f"MODIFY {name} VARCHAR({length}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
            for name, length in names.items()
        )
    )


def _name(length: int) -> sa.String:
    return sa.String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql")


def _create_conversations() -> None:
    inspector = sa.inspect(op.get_bind())
    if inspector.has_table("conversations"):
        found = {column["name"] for column in inspector.get_columns("conversations")}
        if not {column.name for column in conversations.c} <= found:
            reason = "it has a table conversations that is not Legato's"
            raise CommandError(f"{reason}: give Legato a database of its own")
        return
    op.create_table(
        "conversations",
        sa.Column("id", Key, primary_key=True),
        sa.Column("public_id", _name(64)),
        sa.Column("user_id", _name(128), nullable=False),
        sa.Column("session_id", _name(64)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("public_id", name="uq_conversations_public"),
        sa.UniqueConstraint("user_id", "session_id", name="uq_conversations_user_session"),
        sa.Index("ix_conversations_user", "user_id", "updated_at"),
        mysql_charset="utf8mb4",
    )


def _add_columns(*, sqlite: bool) -> None:
    """Add nullable columns, for rolling upgrades."""
    found = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("messages")}
    if "conversation_id" not in found:
        if sqlite:  # a constraint can only come with its column
            references = "CONSTRAINT fk_messages_conversation REFERENCES conversations (id) ON DELETE CASCADE"
            op.execute(f"ALTER TABLE messages ADD COLUMN conversation_id INTEGER {references}")
        else:
            op.add_column("messages", sa.Column("conversation_id", Key))
    if "position" not in found:
        op.add_column("messages", sa.Column("position", sa.Integer))


def _fill() -> None:
    of_the_session = (
        conversations.c.user_id == messages.c.user_id,
        conversations.c.session_id == messages.c.session_id,
    )
    homeless = messages.c.conversation_id.is_(None)
    sessions = (
        sa.select(
            messages.c.user_id,
            messages.c.session_id,
            sa.func.min(messages.c.created_at),
            sa.func.max(messages.c.created_at),
        )
        .where(homeless, ~sa.exists().where(*of_the_session))
        .group_by(messages.c.user_id, messages.c.session_id)
    )
    names = ("user_id", "session_id", "created_at", "updated_at")
    op.execute(conversations.insert().from_select(names, sessions))
    conversation = sa.select(conversations.c.id).where(*of_the_session).scalar_subquery()
    op.execute(messages.update().where(homeless).values(conversation_id=conversation))
    order = sa.func.row_number().over(partition_by=messages.c.conversation_id, order_by=messages.c.id)
    places = sa.select(messages.c.id, (order - 1).label("position")).subquery("places")
    op.execute(
        messages.update()
        .where(messages.c.id == places.c.id, messages.c.position.is_(None))
        .values(position=places.c.position)
    )


def _constrain(*, sqlite: bool) -> None:
    inspector = sa.inspect(op.get_bind())
    if not sqlite and not inspector.get_foreign_keys("messages"):
        op.create_foreign_key(
            *("fk_messages_conversation", "messages", "conversations", ["conversation_id"], ["id"]),
            ondelete="CASCADE",
        )
    if "uq_messages_position" not in {index["name"] for index in inspector.get_indexes("messages")}:
        op.create_index("uq_messages_position", "messages", ["conversation_id", "position"], unique=True)
