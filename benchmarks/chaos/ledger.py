"""What tools have done: an SQLite file that outlives every process of a run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_TABLES: Final = """\
CREATE TABLE IF NOT EXISTS begun (call TEXT, tool TEXT, message TEXT);
CREATE TABLE IF NOT EXISTS effects (call TEXT, key TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS ended (call TEXT);
"""

_WAIT_SECONDS: Final = 30.0


class CallRecord(NamedTuple):
    """One call.

    :ivar begun: how often a worker began it, :ivar ended: and how often it came to the end.
    :ivar effects: how often it had an effect.
    """

    call: str
    tool: str
    message_id: str
    begun: int
    effects: int
    ended: int


class Ledger:
    """The file, opened for one action."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def begun(self, call: str, tool: str, message_id: str) -> None:
        """A worker begins a call."""
        self._connection.execute("INSERT INTO begun VALUES (?, ?, ?)", (call, tool, message_id))

    def effect(self, call: str, key: str) -> None:
        """The call has its effect; with a ``key`` only once, as of a service that knows idempotency keys."""
        self._connection.execute("INSERT OR IGNORE INTO effects VALUES (?, ?)", (call, key or None))

    def ended(self, call: str) -> None:
        """The call has come to its end."""
        self._connection.execute("INSERT INTO ended VALUES (?)", (call,))


def create(path: Path) -> None:
    """Make an empty ledger."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_TABLES)


def read(path: Path) -> list[CallRecord]:
    """All calls."""
    query = (
        "SELECT call, tool, message, COUNT(*),"
        " (SELECT COUNT(*) FROM effects WHERE effects.call = begun.call),"
        " (SELECT COUNT(*) FROM ended WHERE ended.call = begun.call) FROM begun GROUP BY call, tool, message"
    )
    with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS)) as connection:
        return [CallRecord(*row) for row in connection.execute(query)]
