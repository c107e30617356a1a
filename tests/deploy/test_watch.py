"""A broadcaster whose event loop stands still is killed and replaced; a machine that does kills nobody."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from legato.deploy import children, watch
from legato.deploy.children import ProcessTree, Spec
from legato.deploy.heartbeats import HeartbeatSockets, StallClock
from legato.deploy.watch import Watch
from tests.deploy.screen import SECONDS, Screen, screen, unmeasured
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STALL = 2.0
SERVER = """
import asyncio, os, signal, time
from legato.broadcaster import process as server
from tests.broadcaster.conftest import (local_settings)

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, block)
    print(f"begins pid={os.getpid()}", flush=True)
    await server.serve(local_settings())

def block():
    while True:
        time.sleep(0.1)

import logging
logging.basicConfig(level="INFO")
asyncio.run(main())
"""


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setattr(children, "BACKOFF_FIRST", 0.05)
    monkeypatch.setattr(watch, "TICK", 0.05)
    with screen(tmp_path / "out", "legato") as shown:
        yield shown


def broadcaster(name: str) -> Spec:
    return Spec(name, (sys.executable, "-c", SERVER), unmeasured(), ready=re.compile("listening on "))


def pids(shown: Screen, name: str) -> list[int]:
    return [int(pid) for pid in re.findall(rf"{name} *\| begins pid=(\d+)", shown.text)]


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR1])
async def test_one_that_stands_still_is_replaced_and_the_others_stay(
    shown: Screen, number: signal.Signals
) -> None:
    """Stopped, or with something that blocks its loop."""
    watched = Watch([broadcaster("one"), broadcaster("two")], STALL)
    tree = ProcessTree(shown.console, SECONDS)
    running = asyncio.create_task(tree.run(watched.run))
    try:
        await until(lambda: shown.text.count("listening on") == 2)
        await until(lambda: all(status._ready for status in watched._statuses))  # said just after that line
        began = time.monotonic()
        os.kill(pids(shown, "one")[0], number)
        await until(lambda: "one has given no sign of life for 2 s and is killed" in shown.text)
        assert time.monotonic() - began >= STALL - 1.1  # it had given one a second ago
        await until(lambda: shown.text.count("listening on") == 3)
        assert "one was killed by SIGKILL; it starts again in" in shown.text
        assert (len(pids(shown, "one")), len(pids(shown, "two"))) == (2, 1)
        await asyncio.sleep(STALL)  # the successor gives heartbeats of its own
        assert (len(pids(shown, "one")), len(pids(shown, "two"))) == (2, 1)
    finally:
        tree.end()
        await running
        await shown.settled()


async def test_time_in_which_the_parent_did_not_run_is_not_held_against_a_child() -> None:
    sockets = HeartbeatSockets()
    status = sockets.listen(lambda: None)
    try:
        now = time.monotonic()
        status._ready, status._seen = True, now - 60
        assert status.silent(15, 60)
        status.excuse(50)
        assert not status.silent(15, 60)
        status.excuse(1000)  # it cannot have been heard after now
        assert status._seen <= time.monotonic()
    finally:
        status.close()
        sockets.close()


def test_a_gap_is_how_much_later_than_due_one_looks() -> None:
    times = iter((0.0, 0.5, 0.7, 1.2, 61.7))
    gaps = StallClock(0.5, lambda: next(times))
    assert [round(gaps.look(), 3) for _ in range(4)] == [0, 0, 0, 60]
