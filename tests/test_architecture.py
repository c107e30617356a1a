"""The guides for contributors name files and names that exist, and every room there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = ("docs/architecture.md", "CONTRIBUTING.md")
TABLE = "Where to change what"
PACKAGES = ("benchmarks", "broadcaster", "client-js", "deploy", "docs", "protocol", "tests", "worker")
ROOMS = ("broadcaster", "worker")
NOT_ROOMS = {"scripts"}
"""Folders with data, not with a subject of their own."""


def section(text: str, heading: str) -> str:
    """The text between a heading and the next of the same level."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"no section {heading}"
    return rest.partition("\n## ")[0]


def entries(text: str) -> list[tuple[str, list[str]]]:
    """File and names of each row of the table."""
    found = []
    for row in re.findall(r"^\| [^|]+ \| (`[^|]+`) \| (`[^|]+`) \|$", section(text, TABLE), re.MULTILINE):
        file, names = (re.findall(r"`([^`]+)`", cell) for cell in row)
        assert len(file) == 1, row
        found.append((file[0], names))
    return found


def wrong(file: str, names: list[str], root: Path = ROOT) -> list[str]:
    """What a row of the table says that is not so."""
    path = root / file
    if not path.is_file():
        return [f"{file} does not exist"]
    text = path.read_text()
    return [f"{file} defines no {name}" for name in names if not defines(text, name)]


def defines(text: str, name: str) -> bool:
    """Whether a module defines a name: a function, class, constant, field, or a metric in quotes."""
    word = re.escape(name)
    ways = (rf"^ *(?:(?:async )?def |class )?{word}\b *[(:=\[]", rf"[\"']{word}\b", rf"- alert: {word}$")
    return bool(re.search("|".join(ways), text, re.MULTILINE))


def paths(text: str) -> set[str]:
    """Every file or folder of the repository that a text names as code, without placeholders in capitals."""
    pattern = rf"`((?:{'|'.join(PACKAGES)})/[\w./-]*)`"
    return {path for path in re.findall(pattern, text) if not re.search(r"\b[A-Z]{2,}\b", path)}


def rooms(package: str) -> set[str]:
    """The sub-packages of a package, as the guide writes them."""
    found = {path.parent for path in (ROOT / package).glob("*/__init__.py")}
    return {f"{path.relative_to(ROOT)}/" for path in found if path.name not in NOT_ROOMS}


ARCHITECTURE = (ROOT / GUIDES[0]).read_text()


@pytest.mark.parametrize(("file", "names"), entries(ARCHITECTURE))
def test_the_table_names_files_that_have_what_it_says(file, names):
    assert wrong(file, names) == []


def test_the_table_is_read_whole():
    """A row in another form would be skipped in silence."""
    rows = [line for line in section(ARCHITECTURE, TABLE).splitlines() if line.startswith("| ")]
    assert len(entries(ARCHITECTURE)) == len(rows) - 1 > 25


@pytest.mark.parametrize("guide", GUIDES)
def test_every_path_that_a_guide_names_exists(guide):
    named = paths((ROOT / guide).read_text())
    assert len(named) > 15
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_is_in_the_guide_and_no_other(package):
    table = ARCHITECTURE.partition(f"\n### Sub-packages of `{package}/`\n")[2].partition("\n#")[0]
    assert set(re.findall(rf"^\| `({package}/\w+/)` \|", table, re.MULTILINE)) == rooms(package)


def test_every_module_of_the_rules_is_in_the_guide_and_no_other():
    table = ARCHITECTURE.partition("\n### Modules of `protocol/`\n")[2].partition("\n#")[0]
    named = set(re.findall(r"^\| `(protocol/[\w./]+)` \|", table, re.MULTILINE))
    files = {f"protocol/{path.name}" for path in (ROOT / "protocol").glob("*.py")}
    assert named == (files - {"protocol/__init__.py"}) | {"protocol/doors/", "protocol/redis/"}


def test_what_is_wrong_would_be_seen(tmp_path):
    (tmp_path / "a.py").write_text("LEEWAY = 30\n")
    assert wrong("a.py", ["LEEWAY"], tmp_path) == []
    assert wrong("a.py", ["LEE"], tmp_path) == ["a.py defines no LEE"]
    (tmp_path / "c.py").write_text('"""Not LEEWAY: see LEEWAY."""\nuse(LEEWAY)\n')
    assert wrong("c.py", ["LEEWAY"], tmp_path) == ["c.py defines no LEEWAY"]
    assert wrong("b.py", ["LEEWAY"], tmp_path) == ["b.py does not exist"]
    assert paths("see `protocol/wire.py`, `tests/` and `worker/providers/NAME.py`") == {
        "protocol/wire.py",
        "tests/",
    }


def test_every_make_target_that_a_guide_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for guide in GUIDES for name in re.findall(r"`make ([a-z]+)", (ROOT / guide).read_text())}
    assert named
    assert named <= targets
