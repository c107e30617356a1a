"""Branches and titles: what each turn follows, the title of a conversation, and an index to list them.

No row is changed, however many there are: a turn whose ``parent_id`` is NULL follows the one before it by
position. Workers of the version before go on to store such turns until they are replaced.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0003"
down_revision: Final = "0002"

_NAME: Final = sa.String(64).with_variant(mysql.VARCHAR(64, collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    """Add what is missing: on MySQL, a crash may leave any part of this done."""
    _add("conversations", sa.Column("title", sa.String(200)))
    _add("messages", sa.Column("parent_id", _NAME))
    if "ix_conversations_listed" not in _names("conversations", "get_indexes"):
        columns = ["user_id", "session_id", "updated_at", "id"]
        op.create_index("ix_conversations_listed", "conversations", columns)


def _add(table: str, column: sa.Column[str]) -> None:
    if column.name not in _names(table, "get_columns"):
        op.add_column(table, column)


def _names(table: str, what: str) -> set[str]:
    return {found["name"] for found in getattr(sa.inspect(op.get_bind()), what)(table)}
