"""Who may import whom: broadcaster -> protocol <- worker, rules without I/O, and no import circle."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sources import GROUP, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = GROUP

ROOT = Path(__file__).parents[1]
PACKAGES = ("protocol", "broadcaster", "worker", "deploy", "benchmarks")
MAY_IMPORT = {
    "protocol": {"protocol"},
    "broadcaster": {"broadcaster", "protocol"},
    "worker": {"worker", "protocol"},
}
PURE = {
    "__future__",
    "binascii",
    "collections",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "ipaddress",
    "itertools",
    "legato",
    "msgspec",
    "re",
    "tomllib",
    "typing",
    "unicodedata",
    "urllib",
}
"""What the rules need. Nothing here does I/O, reads a clock or rolls dice."""


def name_of(path: Path, root: Path = ROOT) -> str:
    """The module that a file is, as ``legato.broadcaster.bus``."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("legato", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imports(path: Path, root: Path = ROOT) -> set[str]:
    """Every name that is imported, absolute: inside functions and type-checking blocks too.

    ``from a import b`` is both ``a`` and ``a.b``: nobody can tell from the text whether ``b`` is a module.
    """
    package = name_of(path, root) if path.name == "__init__.py" else name_of(path, root).rpartition(".")[0]
    return set(_imported(path.read_text(), package))


@functools.cache
def _imported(text: str, package: str) -> frozenset[str]:
    found = set()
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join((*above, *(() if node.module is None else (node.module,))))
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


def forbidden(path: Path, package: str, root: Path = ROOT) -> set[str]:
    """Imports of packages of ours that ``package`` must not know."""
    allowed = {f"legato.{name}" for name in MAY_IMPORT[package]}
    ours = {
        name
        for name in imports(path, root)
        if name.partition(".")[0] in {"legato", "tests"} and name != "legato"
    }
    return {name for name in ours if ".".join(name.split(".")[:2]) not in allowed}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package):
    for path in modules(package):
        assert forbidden(path, package) == set(), path


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_is_imported_below_one_name(package):
    """Another distribution called ``protocol`` or ``broadcaster`` is never picked up by mistake."""
    for path in modules(package):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert tops.isdisjoint({*PACKAGES, "tests"}), path


def test_the_rules_do_no_io_and_read_no_clock():
    for path in modules("protocol"):
        if "redis" not in path.relative_to(ROOT).parts:
            assert {name.partition(".")[0] for name in imports(path)} <= PURE, path


def test_no_rule_imports_the_clients_of_redis():
    for path in modules("protocol"):
        if "redis" not in path.relative_to(ROOT).parts:
            found = {name for name in imports(path) if f"{name}.".startswith("legato.protocol.redis.")}
            assert found == set(), path


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, directly or through others (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1 or node in graph[node]:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def graph_of(packages: tuple[str, ...]) -> dict[str, set[str]]:
    paths = {name_of(path): path for package in packages for path in modules(package)}
    return {
        name: {target for target in imports(path) if target in paths and target != name}
        for name, path in paths.items()
    }


def test_no_modules_import_each_other():
    """Imports for type checking count: who needs another's type knows it."""
    assert circles(graph_of(PACKAGES)) == []


def test_what_is_forbidden_would_be_seen(tmp_path):
    module = tmp_path / "broadcaster" / "bus" / "x.py"
    module.parent.mkdir(parents=True)
    module.write_text("def f():\n    from legato.worker.jobs import queue\n    import time as t\n")
    assert forbidden(module, "broadcaster", tmp_path) == {"legato.worker.jobs", "legato.worker.jobs.queue"}
    module.write_text("from ...worker import jobs\nfrom ..channels.hub import Hub\nfrom . import y\n")
    assert forbidden(module, "broadcaster", tmp_path) == {"legato.worker", "legato.worker.jobs"}
    assert "legato.broadcaster.channels.hub" in imports(module, tmp_path)
    assert "legato.broadcaster.bus.y" in imports(module, tmp_path)


def test_a_circle_would_be_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set(), "c": {"b"}}) == []
