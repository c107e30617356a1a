"""What the broadcaster uses of the worker's tables.

They are the worker's (``worker/store/tables.py``), and so are the revisions that change them. A test compares
this description with them.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

_Time: Final = sa.DateTime(timezone=True)

conversations: Final = sa.table(
    "conversations",
    sa.column("id", sa.BigInteger),
    sa.column("public_id", sa.String),
    sa.column("user_id", sa.String),
    sa.column("session_id", sa.String),
    sa.column("title", sa.String),
    sa.column("created_at", _Time),
    sa.column("updated_at", _Time),
)

messages: Final = sa.table(
    "messages",
    sa.column("conversation_id", sa.BigInteger),
    sa.column("position", sa.Integer),
    sa.column("message_id", sa.String),
    sa.column("role", sa.String),
    sa.column("parent_id", sa.String),
    sa.column("content", sa.Text),
    sa.column("status", sa.String),
    sa.column("created_at", _Time),
    sa.column("model", sa.String),
    sa.column("stop_reason", sa.String),
    sa.column("input_tokens", sa.Integer),
    sa.column("output_tokens", sa.Integer),
    sa.column("cache_read_tokens", sa.Integer),
    sa.column("cache_write_tokens", sa.Integer),
)
