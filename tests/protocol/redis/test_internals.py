"""What is used of redis-py beyond its documented interface is there, and is used in one file."""

from __future__ import annotations

import ast
from pathlib import Path

from legato.protocol.redis import internals

ROOT = Path(__file__).parents[3]
LIBRARIES = ("redis", "hiredis")


def private_imports(text: str) -> list[str]:
    """Modules and names of redis-py that start with an underscore."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [name for name in names if name.split(".")[0] in LIBRARIES and "._" in name]
    return found


def private_attributes(text: str) -> list[str]:
    """Attributes with an underscore that are those of redis-py's connections and parsers."""
    names = {name for used in internals.USED.values() for name in used if name.startswith("_")}
    return [
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr in names
    ]


def test_this_redis_py_has_everything():
    assert internals.missing() == []


def test_what_is_gone_is_named():
    class Connection:
        kept = 1

    assert internals.missing({Connection: ("kept", "_gone")}) == ["Connection._gone"]


def test_a_pipeline_without_its_attributes_is_named(monkeypatch):
    monkeypatch.setattr(internals, "OF_A_PIPELINE", ("command_stack", "_gone"))
    assert internals.missing({}) == ["Pipeline._gone"]


def test_one_file_uses_them():
    for program in ("broadcaster", "worker", "protocol", "deploy", "benchmarks"):
        for file in (ROOT / program).rglob("*.py"):
            if file != Path(internals.__file__).resolve():
                assert private_imports(file.read_text()) == [], file


def test_one_file_of_the_clients_reaches_into_connections():
    for file in (*(ROOT / "protocol/redis").rglob("*.py"), *(ROOT / "broadcaster/bus").rglob("*.py")):
        if file != Path(internals.__file__).resolve():
            reached = [name for name in private_attributes(file.read_text()) if name != "_reader"]
            assert reached == [], file


def test_use_elsewhere_would_be_seen():
    assert private_imports("from redis._parsers.hiredis import X") == ["redis._parsers.hiredis.X"]
    assert private_imports("import redis._parsers\nfrom redis import Redis") == ["redis._parsers"]
    assert private_attributes("a._writer.transport; a._parser.x") == ["_writer", "_parser"]
    assert private_imports(Path(internals.__file__).read_text())
