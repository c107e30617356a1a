"""With ``--reload``, replies that begin after a change have the new agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

import pytest

from legato.worker.agents import Agent, reloading
from legato.worker.agents.loading import Agents
from tests.waiting import until
from tests.worker.agents.test_loading import AGENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.worker.agents.folder import Folder


def model_of(agents: Agents) -> str:
    agent = agents["default"]
    assert isinstance(agent, Agent)
    return agent.model


@pytest.fixture
async def agents(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Agents]:
    """Those of ``shop.py``, watched."""
    caplog.set_level(logging.INFO, "legato.worker")
    folder.write("shop.py", AGENT.format("m1"))
    looks: list[None] = []
    times = reloading._times
    monkeypatch.setattr(reloading, "AGENT_RELOAD_POLL_SECONDS", 0.01)
    monkeypatch.setattr(reloading, "_times", lambda: (times(), looks.append(None))[0])
    watched = Agents({"default": "shop:agent"})
    task = asyncio.create_task(reloading.watch(watched))
    await until(lambda: looks)  # what is there now is known
    yield watched
    assert not task.done(), "it watches for ever"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def change(folder: Folder, name: str, text: str) -> None:
    """Write a module with a time of change that no clock is too coarse for, and at once as a whole."""
    path = folder.path / name
    before = path.stat().st_mtime_ns if path.exists() else 1_000_000_000
    new = folder.write("new.tmp", text)
    os.utime(new, ns=(before + 1_000_000_000, before + 1_000_000_000))
    new.replace(path)


async def test_a_changed_file_brings_a_new_agent(
    folder: Folder, agents: Agents, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (2, 3):
        change(folder, "shop.py", AGENT.format(f"m{number}"))
        await until(lambda number=number: model_of(agents) == f"m{number}")
    assert {record.getMessage() for record in caplog.records} == {"agents reloaded"}


async def test_a_broken_file_leaves_the_agent_and_one_line_in_the_log(
    folder: Folder, agents: Agents, caplog: pytest.LogCaptureFixture
) -> None:
    change(folder, "shop.py", "nonsense(\n")
    await until(lambda: caplog.records)
    assert model_of(agents) == "m1"
    change(folder, "shop.py", AGENT.format("m2"))
    await until(lambda: model_of(agents) == "m2")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    (warning,) = warnings
    assert warning.startswith("worker.agent: shop cannot be imported: SyntaxError: ")
    assert warning.endswith(": the version before is used on")
    assert "\n" not in warning


@pytest.mark.parametrize(
    ("text", "said"),
    [("raise BaseException('x')\n", "BaseException: x"), ("import sys\nsys.exit(1)\n", "SystemExit: 1")],
)
async def test_whatever_a_change_raises_later_changes_are_noticed(
    folder: Folder, agents: Agents, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    change(folder, "shop.py", text)
    await until(lambda: caplog.records)
    assert said in caplog.records[0].getMessage()
    change(folder, "shop.py", AGENT.format("m2"))
    await until(lambda: model_of(agents) == "m2")


async def test_a_fault_of_ours_does_not_end_the_watch(
    folder: Folder, agents: Agents, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError("two\nlines")

    with monkeypatch.context() as patched:
        patched.setattr(agents, "reload", broken)
        change(folder, "shop.py", AGENT.format("m2"))
        await until(lambda: caplog.records)
    assert caplog.records[0].getMessage() == "two lines: the version before is used on"
    change(folder, "shop.py", AGENT.format("m3"))
    await until(lambda: model_of(agents) == "m3")


async def test_a_folder_that_cannot_be_read_for_a_while_does_not_end_the_watch(
    folder: Folder, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    def broken() -> None:
        looks.append(None)
        raise FileNotFoundError("the working directory is gone")

    with monkeypatch.context() as patched:
        patched.setattr(reloading, "_times", broken)
        await until(lambda: len(looks) > 1)
    change(folder, "shop.py", AGENT.format("m2"))
    await until(lambda: model_of(agents) == "m2")


async def test_mending_a_module_that_was_never_imported_is_noticed(
    folder: Folder, agents: Agents, caplog: pytest.LogCaptureFixture
) -> None:
    change(folder, "helper.py", "nonsense(\n")
    change(folder, "shop.py", "import helper\n" + AGENT.format("m2"))
    await until(lambda: any(record.levelno == logging.WARNING for record in caplog.records))
    change(folder, "helper.py", "x = 1\n")
    await until(lambda: model_of(agents) == "m2")
