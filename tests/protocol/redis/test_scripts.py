"""Every Lua script is loaded by the package that it is in."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from redis.asyncio import Redis

from legato.protocol.redis import scripts

ROOT = Path(__file__).parents[3]
FILES = sorted(
    path for program in ("broadcaster", "protocol", "worker") for path in (ROOT / program).rglob("*.lua")
)


def package_of(file: Path) -> str:
    return ".".join(("legato", *file.relative_to(ROOT).parts[:-1]))


def test_there_are_scripts():
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_script_is_named_beside_it_and_says_what_it_takes(file):
    named = {
        node.value
        for source in file.parent.glob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant)
    }
    assert file.stem in named
    text = scripts.text(package_of(file), file.stem)
    assert text == file.read_text()
    assert text.startswith("-- ")
    assert "\n-- KEYS: " in text


async def test_a_script_that_is_not_there_is_missed_at_once():
    async with Redis() as redis:
        with pytest.raises(FileNotFoundError):
            scripts.load(redis, "legato.worker.jobs", "nonsense")


async def test_a_loaded_script_runs_wherever_it_is_not_known_yet(valkey_url):
    async with Redis.from_url(valkey_url) as redis:
        revive = scripts.load(redis, "legato.worker.jobs", "revive")
        assert await redis.script_exists(revive.sha) == [False]
        assert not await revive(["legato:jobs:q", "legato:dead:q"], ["1-1", "job", b"{}"])
        assert await redis.script_exists(revive.sha) == [True]
