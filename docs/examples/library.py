"""An agent that answers from documents, and names its sources.

legato up --agent docs.examples.library:agent        # in a checkout
cp docs/examples/library.py . && legato up --agent library:agent

Without a key, write this in the chat:
#script tool=search:{"words": "lease"} echo

The documents are in library.db (or LIBRARY_DB), which is made with three of them.
"""

import asyncio
import os
import sqlite3
from contextlib import closing
from typing import Annotated

from legato.worker.agents import Agent, Call, Meta, tool

PAGES = [
    ("https://example.com/leases", "Leases", "A worker renews its lease three times before it expires."),
    ("https://example.com/tokens", "Tokens", "Each token is in the log before a reader gets it."),
    ("https://example.com/tools", "Tools", "A tool that has finished is not called again."),
]


def find(words: str) -> list[tuple[str, str, str]]:
    """Address, title and text of up to five pages with these words."""
    with closing(sqlite3.connect(os.environ.get("LIBRARY_DB", "library.db"), timeout=20)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS pages (url TEXT PRIMARY KEY, title TEXT, text TEXT)")
        db.executemany("INSERT OR IGNORE INTO pages VALUES (?, ?, ?)", PAGES)
        query = "SELECT url, title, text FROM pages WHERE instr(lower(text), lower(?)) ORDER BY url LIMIT 5"
        return db.execute(query, [words]).fetchall()


@tool(on_interrupted="retry")
async def search(
    words: Annotated[str, Meta(min_length=1, max_length=100)], call: Call
) -> list[dict[str, str]]:
    """Search the library for pages with these words, one or a few as they stand there."""
    found = await asyncio.to_thread(find, words)  # SQLite blocks: other replies must not wait for it
    for url, title, text in found:
        call.cite(url=url, title=title, text=text)
    return [{"title": title, "text": text} for _, title, text in found]


agent = Agent(
    system="Answer from the library only. Say so if it has no answer.",
    tools=[search],
)
