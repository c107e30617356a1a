"""The limits of the broadcaster and of the worker stand in the files for them, and all are used."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.sources import GROUP, parsed
from tests.test_imports import ROOT, imports, modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = GROUP

LIMITS: Final = {
    "broadcaster.limits": "broadcaster/limits.py",
    "broadcaster.address_limits": "broadcaster/address_limits.py",
    "broadcaster.database_limits": "broadcaster/database_limits.py",
    "broadcaster.door_limits": "broadcaster/door_limits.py",
    "broadcaster.log_limits": "broadcaster/log_limits.py",
    "worker.limits": "worker/limits.py",
}
PACKAGES: Final = ("broadcaster", "worker")
READERS: Final = ("broadcaster", "worker", "deploy", "benchmarks")

LIMIT: Final = re.compile(
    r"_?(MAX_\w+|(\w+_)?(SECONDS|BYTES|MS|INTERVAL|TIMEOUT|LIMIT|BATCH|MOST|AT_ONCE|PER_TURN))"
)
"""Names of limits; use with ``fullmatch``."""

NOT_LIMITS: Final = {
    "broadcaster/auth/endpoints.py: MASTER_KEY_BYTES": "the length of a key, given by the cipher",
    "broadcaster/clients/command_queue.py: EFFECT_BYTES": "an estimate, part of a calculation",
    "broadcaster/transport/handshake.py: KEY_BYTES": "the length of a key, given by RFC 6455",
    "worker/providers/openai_stream.py: MAX_COUNT": "the largest integer that is exact in JSON",
}
"""Numbers that have the name of a limit but belong to a format or an algorithm, and why."""


def numbers(tree: ast.Module) -> Iterator[str]:
    """Constants at the top of a module whose value is a number, or is calculated from one."""
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case _:
                continue
        if name.isupper() and _is_number(value):
            yield name


def _is_number(value: ast.expr) -> bool:
    match value:
        case ast.Constant(value=number):
            return isinstance(number, int | float) and not isinstance(number, bool)
        case ast.UnaryOp(operand=operand):
            return _is_number(operand)
        case ast.BinOp(left=left, right=right):
            return _is_number(left) or _is_number(right)
    return False


def limits_of(path: Path) -> list[str]:
    return list(numbers(parsed(path.read_text())))


def elsewhere(paths: Iterable[Path], root: Path = ROOT) -> set[str]:
    """Limits in other modules than the one for them."""
    return {
        f"{path.relative_to(root)}: {name}"
        for path in paths
        if str(path.relative_to(root)) not in LIMITS.values()
        for name in limits_of(path)
        if LIMIT.fullmatch(name)
    }


def test_limits_stand_in_the_files_for_them():
    found = elsewhere(path for package in PACKAGES for path in modules(package))
    assert found - set(NOT_LIMITS) == set()
    assert set(NOT_LIMITS) <= found, "an exception that is no longer needed"


@pytest.mark.parametrize("module", LIMITS)
def test_every_limit_is_used(module):
    names = limits_of(ROOT / LIMITS[module])
    assert len(names) > 5
    used = {name for reader in READERS for path in modules(reader) for name in imports(path)}
    assert {name for name in names if f"legato.{module}.{name}" not in used} == set()


def unexplained(tree: ast.Module) -> list[str]:
    """Constants that no docstring follows."""
    names = {id(node): ast.unparse(node.target) for node in tree.body if isinstance(node, ast.AnnAssign)}
    followed = {
        id(node) for node, after in zip(tree.body, tree.body[1:], strict=False) if _is_docstring(after)
    }
    return [name for node, name in names.items() if node not in followed]


def _is_docstring(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


@pytest.mark.parametrize("file", LIMITS.values(), ids=LIMITS)
def test_the_file_has_limits_and_their_reasons_only(file):
    tree = parsed((ROOT / file).read_text())
    assert {name.partition(".")[0] for name in imports(ROOT / file)} == {"typing"}
    assert unexplained(tree) == []
    kinds = {type(node) for node in tree.body}
    assert kinds == {ast.Expr, ast.ImportFrom, ast.AnnAssign}
    names = limits_of(ROOT / file)
    assert len(names) == len(set(names)) == sum(isinstance(node, ast.AnnAssign) for node in tree.body)


@pytest.mark.parametrize(
    "line",
    [
        "CLOSE_SECONDS: Final = 2.0",
        "SECONDS = 5",
        "_QUIET_SECONDS: Final = 60 * LONGER",
        "MAX_ROWS: Final = 10_000",
        "MOST: Final = 2**6",
        "AT_ONCE: int = 3",
        "BATCH = -1",
        "POLL_INTERVAL = 0.2",
    ],
)
def test_a_limit_elsewhere_would_be_seen(tmp_path, line):
    module = tmp_path / "x.py"
    module.write_text(f"{line}\n")
    assert elsewhere([module], tmp_path) == {f"x.py: {re.split('[: =]', line)[0]}"}


@pytest.mark.parametrize(
    "line",
    ["EXTENDED = 126", "MAX_NAME = 'x'", "SECONDS = Histogram(5)", "from x import MAX_ROWS", "MOST = True"],
)
def test_other_constants_are_no_limits(tmp_path, line):
    module = tmp_path / "x.py"
    module.write_text(f"{line}\n")
    assert elsewhere([module], tmp_path) == set()


def test_a_limit_without_a_reason_would_be_seen():
    assert unexplained(ast.parse('A: Final = 1\n"""Why."""\nB: Final = 2\n')) == ["B"]
