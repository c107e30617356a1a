"""Limits and timeouts of the databases that the broadcaster uses, as :mod:`.limits` has the others.

A database is never used while a message is delivered, only for applications and for stored conversations.
"""

from typing import Final

# --- apps/: the table of applications

APP_TABLE_READ_SECONDS: Final = 10.0
"""Time limit of one poll of the table of applications. A firewall that drops packets never answers."""

APP_TABLE_CLOSE_SECONDS: Final = 1.0
"""How long a stop of the server waits for the database connections to close."""

APP_TABLE_MAX_ROWS: Final = 100_000
"""Maximum number of rows of that table. With more it is probably the wrong table."""

# --- conversations/: stored conversations

CONVERSATIONS_SECONDS: Final = 10.0
"""Time limit of one request to the database of conversations, with the wait for a connection."""

CONVERSATIONS_CONNECTIONS: Final = 4
"""Maximum number of connections to it, per process."""

CONVERSATIONS_CLOSE_SECONDS: Final = 1.0
"""How long a stop of the server waits for these connections to close."""

CONVERSATIONS_PAGE: Final = 30
"""Conversations, or turns of one, on a page, if a request does not say how many."""

CONVERSATIONS_MAX_PAGE: Final = 100
"""Maximum of these."""

SEARCH_MAX_WORDS: Final = 8
"""Maximum number of words of a search. The database compares each with all texts of a user."""

SEARCH_MAX_CHARACTERS: Final = 200
"""Maximum number of characters of a search."""

TURNS_PAGE_CHARACTERS: Final = 1_000_000
"""Characters after which a page of turns ends early, though never before its first turn."""

MAX_OPEN_MESSAGES: Final = 1_000
"""Maximum number of a user's messages without an end that are looked at for a conversation."""

OPEN_MESSAGES_AT_ONCE: Final = 10
"""How many of them one round trip to Redis reads: as many as ``chat.max_open_per_user`` allows by default."""

OPEN_MESSAGES_BYTES: Final = 4_194_304
"""Bytes of these messages after which no more are read."""
