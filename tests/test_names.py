"""No program goes past the installation's prefix: names in Redis come from `legato.protocol.names` alone."""

from __future__ import annotations

import ast
from pathlib import Path

from legato.protocol import wire
from legato.protocol.names import Names
from tests.sources import GROUP, parsed

pytestmark = GROUP

ROOT = Path(__file__).parents[1]
FUNCTIONS = sorted(
    name
    for name, value in vars(wire).items()
    if callable(value) and name.endswith(("_key", "_mark", "_channel", "_flags"))
)
"""Those of `legato.protocol.wire` that make names."""

PROGRAMS = ("broadcaster", "worker", "deploy", "benchmarks")


def past_the_prefix(source: str) -> list[str]:
    """What of `wire` a program names that makes or is a name in Redis; and names of its own."""
    found = []
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "wire":
            if node.attr in FUNCTIONS or node.attr.endswith("_KEY"):
                found.append(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module in ("wire", "legato.protocol.wire"):
            found += [one.name for one in node.names if one.name in FUNCTIONS or one.name.endswith("_KEY")]
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("legato:", "stream_cancel:")):
            found.append(str(node.value))
    return found


def test_programs_take_names_with_the_prefix():
    for program in PROGRAMS:
        files = list((ROOT / program).rglob("*.py"))
        assert files
        for file in files:
            assert past_the_prefix(file.read_text()) == [], file


def test_scripts_are_given_all_their_names():
    for program in PROGRAMS:
        for file in (ROOT / program).rglob("*.lua"):
            assert "legato:" not in file.read_text(), file


def test_what_goes_past_it_would_be_seen():
    source = (
        "wire.jobs_key(q)\nx = wire.NODES_KEY\n"
        "from legato.protocol.wire import cancel_flags, CACHED\nf'legato:x{y}'"
    )
    assert sorted(past_the_prefix(source)) == ["NODES_KEY", "cancel_flags", "jobs_key", "legato:x"]
    assert past_the_prefix("wire.CACHED\nself._names.jobs_key(q)") == []


def test_every_name_has_one_with_a_prefix():
    assert len(FUNCTIONS) > 20
    assert set(FUNCTIONS) <= set(dir(Names))
    constants = {name.lower() for name in vars(wire) if name.endswith("_KEY")}
    assert constants <= set(dir(Names))
