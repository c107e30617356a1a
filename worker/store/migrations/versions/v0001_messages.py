"""Turns, as they were kept before there were revisions: a database from then has the table already."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects import mysql

revision: Final = "0001"
down_revision: Final = None

COLUMNS: Final = (
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("message_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(128), nullable=False),
    sa.Column("session_id", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("content", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("stop_reason", sa.String(64)),
    sa.Column("model", sa.String(200)),
    sa.Column("input_tokens", sa.Integer),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("cache_read_tokens", sa.Integer),
    sa.Column("cache_write_tokens", sa.Integer),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)


def upgrade() -> None:
    """Make the table."""
    inspector = sa.inspect(op.get_bind())
    if inspector.has_table("messages"):
        found = {column["name"] for column in inspector.get_columns("messages")}
        if not {column.name for column in COLUMNS} <= found:
            reason = "it has a table messages that is not Legato's"
            raise CommandError(f"{reason}: give Legato a database of its own")
        return
    op.create_table(
        "messages",
        *COLUMNS,
        sa.UniqueConstraint("message_id", "role", name="uq_messages_message_role"),
        sa.Index("ix_messages_user_session", "user_id", "session_id", "created_at"),
        mysql_charset="utf8mb4",
    )
