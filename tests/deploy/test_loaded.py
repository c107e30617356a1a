"""What a command loads: help the standard library alone, and an action no database. Nothing is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from legato.deploy import cli
from tests.deploy.test_docs import parsers

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS = {"legato"}

_MAIN = """
import contextlib, io, json, sys
before = set(sys.modules)
from legato.deploy.cli import main
loaded = {}
for argv in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main(argv)
    loaded[" ".join(argv)] = [said.getvalue(), sorted(set(sys.modules) - before)]
print(json.dumps(loaded))
"""


def loaded_by(*commands: Iterable[str], **environ: str) -> dict[str, Any]:
    """Each command -> what it says, and the modules that it and those before it have loaded."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE_"))}
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, json.dumps(commands)],
        env=kept | environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def strangers(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - OURS


def test_help_loads_nothing_but_the_standard_library_and_options():
    commands = [[*name.split(), "--help"] for name in parsers()]
    assert len(commands) > len(cli.COMMANDS)
    for command, (said, modules) in loaded_by(*commands).items():
        assert said.startswith("usage: "), command
        assert strangers(modules) == set(), command
        assert "asyncio" not in modules, command


def test_directing_workers_loads_neither_database_nor_model_nor_server():
    heavy = {"sqlalchemy", "alembic", "anthropic", "httpx2", "uvicorn", "uvloop"}
    actions = [["worker", *action.split()] for action in ("status", "pause", "drain", "dead list")]
    for command, (_, modules) in loaded_by(*actions, REDIS_URL="redis://127.0.0.1:1").items():
        assert "redis" in modules, command  # it has really tried
        assert not heavy & set(modules), command


OPTIONAL = {
    "legato.broadcaster.composition": {"jwt", "sqlalchemy", "httpx2", "anthropic"},
    "legato.worker.cli": {"alembic", "anthropic", "asyncpg", "asyncmy", "sqlalchemy.dialects.postgresql"},
}


@pytest.mark.parametrize(("program", "optional"), OPTIONAL.items())
def test_a_program_loads_what_only_some_need_when_they_need_it(program, optional):
    loaded = f"import sys, {program}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=100
    )
    assert not optional & set(done.stdout.split())
