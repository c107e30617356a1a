"""Opens the database of conversations, if the settings name one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .archive import Conversations


@contextlib.asynccontextmanager
async def open_conversations(url: str) -> AsyncIterator[Conversations | None]:
    """The conversations in the database at ``url``; None if that is empty. Nothing is connected before use.

    :raises SettingsError: ``url`` cannot be used.
    """
    if not url:
        yield None
        return
    from .archive import Conversations  # noqa: PLC0415 - SQLAlchemy's megabytes are for those who use it
    from .database import ConversationDatabase  # noqa: PLC0415

    database = ConversationDatabase(url)
    try:
        yield Conversations(database)
    finally:
        await database.close()
