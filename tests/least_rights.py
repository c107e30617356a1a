"""The user that docs/redis.md describes, and the commands that the sources of both programs name."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ROOT = Path(__file__).parents[1]
PROGRAMS = ("broadcaster", "worker", "protocol/redis")

CONTAINERS = {"acl", "client", "cluster", "command", "config", "function", "script", "xgroup", "xinfo"}
"""Commands of which the next word is a part."""

BY_METHOD = {
    "delete": {"del"},
    "register_script": {"script|load", "evalsha"},
    "pipeline": {"multi", "exec"},
}
"""Of redis-py, where its name says otherwise or more."""

NO_COMMANDS = {"GET", "MEMORY", "TIME"}
"""Constants in capitals that are a method of HTTP or the head of a column."""

ANYBODYS = {"auth", "hello"}


def rules() -> list[str]:
    """What the documents tell operators to give to the user, without the password."""
    text = (ROOT / "docs/redis.md").read_text()
    (block,) = re.findall(r"ACL SETUSER legato ((?:[^`]|\n)*)```", text)
    return [word for word in block.replace("\\\n", " ").split() if not word.startswith(">")]


def allowed() -> set[str]:
    """Commands, as ``name`` or ``name|part``."""
    return {rule.removeprefix("+") for rule in rules() if rule.startswith("+")}


def by_scripts() -> set[str]:
    """Commands that the Lua of both programs calls."""
    found = set()
    for program in PROGRAMS:
        for file in (ROOT / program).rglob("*.lua"):
            text = file.read_text()
            calls = re.findall(r"redis\.p?call\('(\w+)'(?:, '(\w+)')?", text)
            assert len(calls) == len(re.findall(r"redis\.p?call\b", text)), (
                f"{file}: a call is not understood"
            )
            found |= {_name(*call) for call in calls}
    return found


def by_python(commands: Collection[str]) -> set[str]:
    """Commands that the Python of both programs sends.

    :param commands: all that a server knows.
    """
    found: set[str] = set()
    for program in PROGRAMS:
        for file in (ROOT / program).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                found |= set(_written(node, commands)) | _called(node, commands)
    return found - ANYBODYS - CONTAINERS


def _name(command: str, part: str = "") -> str:
    name = command.lower()
    return f"{name}|{part.lower()}" if name in CONTAINERS else name


def _written(node: ast.AST, commands: Collection[str]) -> Iterator[str]:
    """Constants in capitals: of ``execute_command``, and of what is passed on to it."""
    words = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else [node]
    texts = [word.value if isinstance(word, ast.Constant) else None for word in words]
    for word, part in zip(texts, [*texts, None][1:], strict=True):
        if isinstance(word, str) and word.isupper() and word.lower() in commands and word not in NO_COMMANDS:
            yield _name(word, part if isinstance(part, str) and len(words) > 1 else "").rstrip("|")


def _called(node: ast.AST, commands: Collection[str]) -> set[str]:
    """Methods of a client or a pipeline."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return set()
    whose = ast.unparse(node.func.value).rpartition(".")[2].strip("_")
    method = node.func.attr
    if whose not in ("redis", "reader", "pipe", "pipeline"):
        return set()
    if method in BY_METHOD:
        return BY_METHOD[method]
    if method in commands:
        return {method}
    first, _, part = method.partition("_")
    return {f"{first}|{part}"} if first in CONTAINERS else set()
