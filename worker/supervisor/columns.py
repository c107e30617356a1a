"""Formats tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows below a header, numbers right-aligned. Control characters are replaced: values are untrusted."""
    cells = [[_printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[at]) for line in (head, *cells)) for at in range(len(head))]
    right = [all(isinstance(row[at], int) for row in rows) and bool(rows) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (head, *cells)
    )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
