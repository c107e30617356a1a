"""The direction of dependencies: broadcaster -> protocol <- worker, and what protocol/ must not touch."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"protocol", "broadcaster", "worker", "deploy", "benchmarks", "tests"}
MAY_IMPORT = {"protocol": set(), "broadcaster": {"protocol"}, "worker": {"protocol"}}
PURE = {
    "__future__",
    "binascii",
    "collections",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "re",
    "tomllib",
    "typing",
    "urllib",
    "msgspec",
}
"""What the rules need. Nothing here does I/O, reads a clock or rolls dice."""


def imports(path: Path) -> set[str]:
    """Top-level names of every absolute import, inside functions and type-checking blocks too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package):
    assert modules(package)
    for path in modules(package):
        assert imports(path) & OURS <= MAY_IMPORT[package], path


def test_inside_a_package_imports_are_relative():
    """An unrelated distribution called `protocol` or `broadcaster` can never be picked up by mistake."""
    for package in MAY_IMPORT:
        for path in modules(package):
            assert package not in imports(path), path


def test_the_rules_do_no_io_and_read_no_clock():
    for path in modules("protocol"):
        assert imports(path) <= PURE, path


def test_a_forbidden_import_would_be_seen(tmp_path):
    module = tmp_path / "x.py"
    module.write_text("def f():\n    from worker.jobs import x\n    import time as t\n")
    assert imports(module) == {"worker", "time"}


@pytest.mark.parametrize(
    "name", ["metrics_server.py", "redis_cluster.py", "redis_connections.py", "redis_pipeline.py"]
)
def test_what_both_need_and_neither_may_import_is_there_twice_and_the_same(name):
    assert (ROOT / "broadcaster" / name).read_text() == (ROOT / "worker" / name).read_text()
