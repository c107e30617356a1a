"""Bounds on the sources: lines of a module, attributes of a class, and one meaning for each name."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.sources import GROUP, parsed
from tests.test_imports import PACKAGES, modules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

pytestmark = GROUP

MOST_LINES: Final = 400
MOST_ATTRIBUTES: Final = 12

DATA: Final = {"dataclass", "Struct", "NamedTuple"}
"""Decorators and bases of records. One without methods may have as many attributes as there are facts."""

NO_METHODS: Final = {"property", "classmethod", "staticmethod"}
"""Decorators of functions that a record may have: they read it, or make it."""

SAME_NAME: Final = {
    "Notifier": "sd_notify for a broadcaster and for a worker; protocol/, which they share, does no I/O",
    "Settings": "the settings of each program, in its own config.py",
    "StartError": "the one line with which a broadcaster or a worker says why it does not start",
}
"""Names that mean the same thing in several modules, and why they are not one class."""


# --- lines


def too_long(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if len(path.read_text().splitlines()) > MOST_LINES]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_too_long(package):
    assert too_long(modules(package)) == []


def test_a_module_that_is_too_long_would_be_seen(tmp_path):
    short, long = tmp_path / "short.py", tmp_path / "long.py"
    short.write_text("x = 1\n" * MOST_LINES)
    long.write_text("x = 1\n" * (MOST_LINES + 1))
    assert too_long([short, long]) == [long]


# --- attributes


class Class(NamedTuple):
    """A class in the sources. ``kinds`` are the last names of its bases and decorators."""

    path: Path
    node: ast.ClassDef
    top: bool

    @property
    def kinds(self) -> set[str]:
        return {_last_name(node) for node in (*self.node.bases, *self.node.decorator_list)}


def _last_name(node: ast.expr) -> str:
    """``Base`` of ``module.Base[int]``, ``dataclass`` of ``dataclass(frozen=True)``."""
    while isinstance(node, ast.Subscript | ast.Call):
        node = node.value if isinstance(node, ast.Subscript) else node.func
    return ast.unparse(node).rpartition(".")[2]


def classes(paths: Iterable[Path]) -> list[Class]:
    """All classes, also those inside of functions and classes."""
    found = []
    for path in paths:
        tree = parsed(path.read_text())
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        found += [Class(path, node, node in tree.body) for node in nodes]
    return found


def records(found: Collection[Class]) -> set[str]:
    """The names of classes that are records, directly or by a base."""
    names = set(DATA)
    while more := {c.node.name for c in found if c.kinds & names} - names:
        names |= more
    return names


def methods(node: ast.ClassDef) -> list[str]:
    """The methods of the class itself, without special ones such as ``__str__``."""
    return [
        statement.name
        for statement in node.body
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        and not statement.name.startswith("__")
        and not {_last_name(decorator) for decorator in statement.decorator_list} & NO_METHODS
    ]


def attributes(node: ast.ClassDef) -> set[str]:
    """What the class declares, names in ``__slots__`` or assigns to ``self``; not what its bases do."""
    return set(_attributes(node)) - {"__weakref__", "__dict__"}


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _assigned(statement)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                yield from (c.value for c in ast.walk(value) if isinstance(c, ast.Constant))
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind):
                if not ast.unparse(kind).startswith(("ClassVar", "Final")):
                    yield name


def _assigned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def too_wide(found: Collection[Class]) -> dict[str, int]:
    """Classes with too many attributes, and how many."""
    data = records(found)
    wide = [c for c in found if methods(c.node) or not c.kinds & data]
    counts = {f"{c.path}: {c.node.name}": len(attributes(c.node)) for c in wide}
    return {name: count for name, count in counts.items() if count > MOST_ATTRIBUTES}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_class_has_too_many_attributes(package):
    assert too_wide(classes(modules(package))) == {}


NAMES = [f"a{number}" for number in range(MOST_ATTRIBUTES + 1)]
WIDE = {
    "assigned": "class A:\n    def f(self):\n" + "".join(f"        self.{name} = 1\n" for name in NAMES),
    "unpacked": f"class A:\n    async def f(self):\n        {', '.join(f'self.{n}' for n in NAMES)} = x\n",
    "slots": f"class A(B):\n    __slots__ = (*B.__slots__, {', '.join(map(repr, NAMES))})\n",
    "declared": "class A:\n" + "".join(f"    {name}: int\n" for name in NAMES),
}
FIELDS = "".join(f"    {name}: int\n" for name in NAMES)


@pytest.mark.parametrize("source", WIDE.values(), ids=WIDE)
def test_a_class_with_too_many_attributes_would_be_seen(tmp_path, source):
    module = tmp_path / "x.py"
    module.write_text(source)
    assert list(too_wide(classes([module])).values()) == [MOST_ATTRIBUTES + 1]
    module.write_text(source.replace(NAMES[-1], NAMES[0]))
    assert too_wide(classes([module])) == {}


RECORDS = [
    "@dataclass(frozen=True)\nclass A:\n",
    "@dataclasses.dataclass\nclass A:\n",
    "class A(msgspec.Struct, frozen=True):\n",
    "class A(NamedTuple):\n",
    "class B(msgspec.Struct):\n    pass\nclass A(B):\n",
]


@pytest.mark.parametrize("head", RECORDS)
def test_plain_data_may_have_any_number_of_attributes(tmp_path, head):
    module = tmp_path / "x.py"
    reads = "".join(f"    @{kind}\n    def {kind}_f(x):\n        pass\n" for kind in sorted(NO_METHODS))
    module.write_text(head + FIELDS + "    def __str__(self):\n        pass\n" + reads)
    assert too_wide(classes([module])) == {}


@pytest.mark.parametrize("head", RECORDS)
@pytest.mark.parametrize("method", ["def start(self)", "async def start(self)", "@cache\n    def _f(self)"])
def test_data_with_a_method_is_bounded_like_any_class(tmp_path, head, method):
    module = tmp_path / "x.py"
    module.write_text(f"{head}{FIELDS}    {method}:\n        pass\n")
    assert list(too_wide(classes([module])).values()) == [MOST_ATTRIBUTES + 1]


# --- names


def several(found: Iterable[Class]) -> dict[str, list[Path]]:
    """Public names of classes at the top of several modules."""
    where = defaultdict(list)
    for c in found:
        if c.top and not c.node.name.startswith("_"):
            where[c.node.name].append(c.path)
    return {name: paths for name, paths in where.items() if len(paths) > 1}


def test_no_two_classes_have_one_name():
    found = several(classes(path for package in PACKAGES for path in modules(package)))
    assert {name: paths for name, paths in found.items() if name not in SAME_NAME} == {}
    assert set(SAME_NAME) <= set(found), "an exception that is no longer needed"


def test_a_name_that_is_given_twice_would_be_seen(tmp_path):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("class A:\n    pass\nclass _B:\n    pass\nclass C:\n    pass\n")
    second.write_text("class A:\n    pass\nclass _B:\n    pass\ndef f():\n    class C:\n        pass\n")
    assert several(classes([first, second])) == {"A": [first, second]}
