"""The table of applications as documented."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

TABLE = "legato_apps"

STATEMENTS = re.findall(
    r"^```sql\n(.+?)^```",
    (Path(__file__).parents[3] / "docs" / "settings.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
"""The SQL in the documentation."""


def create(path: Path) -> None:
    """The documented table, without the example row."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{STATEMENTS[0]}; DELETE FROM {TABLE};")


def put_row(path: Path, **values: Any) -> None:
    """Insert or replace a row; lists and tables are JSON."""
    row = {
        name: json.dumps(value) if isinstance(value, (list, dict)) else value
        for name, value in values.items()
    }
    marks = ", ".join("?" * len(row))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            f"INSERT OR REPLACE INTO {TABLE} ({', '.join(row)}) VALUES ({marks})", list(row.values())
        )
