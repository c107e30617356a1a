"""SIGHUP to the parent of several broadcasters."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from legato.broadcaster.config import Metrics, Server, Settings
from legato.deploy.passed_on import PassedOnReloads
from legato.protocol.settings import Log, SettingsError

START = Settings(server=Server(processes=2))


class Tree:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.passed_on = 0
        self.console = SimpleNamespace(line=lambda _, text: self.lines.append(text))

    async def hang_up(self) -> None:
        await asyncio.sleep(0)
        self.passed_on += 1


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        (START, ""),
        (msgspec.structs.replace(START, server=Server(processes=2, max_connections=5, host="::")), ""),
        (
            Settings(Server(processes=3, port=1), Metrics(port=2)),
            "metrics.port, server.port, server.processes",
        ),
        (msgspec.structs.replace(START, log=Log(level="debug")), ""),
        (msgspec.structs.replace(START, log=Log(level="error", time="full")), "log.level, log.time"),
    ],
)
async def test_valid_settings_are_passed_on(new: Settings, kept: str) -> None:
    """The processes say the rest."""
    tree = Tree()
    await PassedOnReloads(START, lambda: new).reload(tree)  # type: ignore[arg-type]  # all that it uses
    assert tree.passed_on == 1
    start = "changed settings that need a restart, and stay as they were: "
    assert tree.lines == ([start + kept] if kept else [])


async def test_wrong_settings_are_not() -> None:
    def read() -> Settings:
        raise SettingsError("legato.toml: no such table")

    tree, reloads = Tree(), PassedOnReloads(START, read)
    reloads(tree)  # type: ignore[arg-type]
    assert reloads._task is not None
    await reloads._task
    assert tree.passed_on == 0
    assert tree.lines == ["not reloaded, the settings stay as they were: legato.toml: no such table"]


async def test_signals_that_come_meanwhile_make_one_more() -> None:
    tree, reloads = Tree(), PassedOnReloads(START, lambda: START)
    for _ in range(2):
        for _ in range(3):
            reloads(tree)  # type: ignore[arg-type]
        await asyncio.sleep(0)
    assert reloads._task is not None
    await reloads._task
    assert tree.passed_on == 2
