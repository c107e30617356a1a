"""Files that stand in the broadcaster and in the worker are the same (docs/decisions/0018)."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TWINS = {
    "broadcaster/notify.py": "worker/supervisor/notify.py",
    "broadcaster/observability/metrics_server.py": "worker/observability/metrics_server.py",
}
LINES = 8
"""Lines in a row that two files may have in common: imports, and the like."""


@pytest.mark.parametrize(("one", "other"), TWINS.items())
def test_twins_are_equal(one, other):
    assert (ROOT / one).read_text() == (ROOT / other).read_text()


def code(path: Path) -> list[str]:
    """Its lines without imports, blank lines and comments."""
    return [
        line
        for line in path.read_text().splitlines()
        if line.strip() and not line.lstrip().startswith(("#", "import ", "from ", "if TYPE_CHECKING"))
    ]


def runs(path: Path) -> set[tuple[str, ...]]:
    lines = code(path)
    return {tuple(lines[at : at + LINES]) for at in range(len(lines) - LINES + 1)}


def test_no_other_code_stands_in_both():
    mine = {path: runs(path) for path in (ROOT / "broadcaster").rglob("*.py")}
    theirs = {path: runs(path) for path in (ROOT / "worker").rglob("*.py")}
    assert mine
    assert theirs
    both = {
        (str(one.relative_to(ROOT)), str(other.relative_to(ROOT)))
        for one, there in mine.items()
        for other, here in theirs.items()
        if there & here
    }
    assert both == set(TWINS.items())
