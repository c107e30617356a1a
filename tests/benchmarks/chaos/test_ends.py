"""A run that is interrupted tells how far it came."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from types import SimpleNamespace

import pytest

from legato.benchmarks.chaos import command, series
from legato.benchmarks.chaos.proxy import ProxyLink
from legato.benchmarks.chaos.series import SeedResult
from legato.deploy import cli
from tests.benchmarks.chaos.test_series import outcome

PROGRESS = "  14 s: 6 messages, 4 ended, 3 faults"


@pytest.fixture(autouse=True)
def _nothing_is_needed(monkeypatch):
    monkeypatch.setattr(command, "_redis", lambda _: "redis-server")
    monkeypatch.setattr(command, "pusher_js", lambda *_: "modules")


def test_one_seed(monkeypatch, tmp_path, capsys):
    async def interrupted(*_, begun, **__):
        begun.append(SimpleNamespace(done=Counter({"restart-redis": 2}), progress=PROGRESS))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "carry_out", interrupted)
    file = tmp_path / "run.json"
    assert cli.main(["chaos", "--seed", "7", "--json", str(file)]) == 130
    replay = "legato chaos --seed 7 --minutes 2"
    assert capsys.readouterr().out == (
        "faults   2 restart-redis\n\n"
        f"interrupted after {PROGRESS.strip()}; nothing is proven; replay with: {replay}\n"
    )
    assert json.loads(file.read_text()) == {
        "clean": False,
        "interrupted": PROGRESS.strip(),
        "command": replay,
        "faults": {"restart-redis": 2},
    }
    assert series._outcome(file) is None


def test_one_seed_that_had_not_begun(monkeypatch, tmp_path, capsys):
    async def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "carry_out", interrupted)
    file = tmp_path / "run.json"
    assert cli.main(["chaos", "--json", str(file)]) == 130
    assert capsys.readouterr().out == ""
    assert not file.exists()


def test_several_seeds(monkeypatch, tmp_path, capsys):
    async def run(seed, _options, _file):
        if seed == 2:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        return SeedResult(seed, outcome(), "clean: 10 messages")

    monkeypatch.setattr(series, "_run", run)
    files = [tmp_path / "all.json", tmp_path / "report.md"]
    argv = ["chaos", "--seeds", "1-3", "--json", str(files[0]), "--report", str(files[1])]
    assert cli.main(argv) == 130
    said = capsys.readouterr()
    assert "seed 1: clean: 10 messages (1 of 3 seeds done)" in said.err
    assert said.out == "NOT clean: seeds 2, 3; 1 of 3 are clean\n"
    assert len(json.loads(files[0].read_text())) == 1
    assert "| 3 | did not run: interrupted |" in files[1].read_text()


async def test_a_link_that_is_closed_begins_nothing():
    """A connection that was accepted before may be announced after."""
    link = ProxyLink(lambda: asyncio.open_connection("127.0.0.1", 1))
    await link.start()
    await link.close()
    aborted = []
    transport = SimpleNamespace(abort=lambda: aborted.append(1))
    link._accept(None, SimpleNamespace(transport=transport))
    assert aborted == [1]
    assert not link._tasks
