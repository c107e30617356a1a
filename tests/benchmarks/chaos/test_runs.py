"""Real runs: a right build is clean, one without its fence is caught."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tests.e2e
from legato.benchmarks.chaos import command, plan
from legato.benchmarks.chaos.plan import ChaosPlan, Options, PlannedFault, PlannedSend
from legato.benchmarks.chaos.programs import LEGATO, WORKER
from legato.benchmarks.chaos.script import ReplyScript
from tests.conftest import BINARIES

UNFENCED = (sys.executable, str(Path(__file__).with_name("unfenced.py")), *WORKER[len(LEGATO) :])

MODULES = Path(tests.e2e.__file__).parent
"""Where `make test` has put pusher-js."""

LONG = ReplyScript(500, 20)


def zombie_plan(options: Options) -> ChaosPlan:
    """One worker after the other is stopped beyond its lease, and wakes up while others have its replies."""
    sends = [PlannedSend(1.0, user, 0, LONG, None) for user in range(options.users)]
    return ChaosPlan(
        sends, [PlannedFault(4.0, "stop-worker", 0, 6.0), PlannedFault(14.0, "stop-worker", 1, 6.0)]
    )


def tracebacks(directory: Path) -> list[str]:
    """The tracebacks in the logs, with the lines before them."""
    found = []
    for path in sorted(directory.glob("*.log")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        begins = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
        found += ["\n".join([path.name, *lines[max(0, at - 5) : at + 60]]) for at in begins]
    return found


@pytest.mark.timeout(600)
async def test_a_short_run_with_faults_of_all_kinds_is_clean(tmp_path):
    options = Options(seed=2328, minutes=0.4)
    outcome = await command.carry_out(options, plan.plan(options), BINARIES["valkey"], MODULES, tmp_path)
    assert outcome.verdict.findings == []
    assert outcome.verdict.clean
    assert outcome.faults["fail-over"]
    assert outcome.faults["kill-node"]
    assert outcome.verdict.figures["webhook events"]
    assert tracebacks(tmp_path) == []
    assert outcome.observed["tracebacks in logs"] == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("worker", [WORKER, UNFENCED], ids=["fenced", "unfenced"])
async def test_a_zombie_is_harmless_only_behind_the_fence(worker, tmp_path):
    faults = frozenset({"stop-worker"})
    options = Options(seed=1, minutes=0.1, users=4, readers=1, nodes=1, workers=2, faults=faults)
    outcome = await command.carry_out(
        options, zombie_plan(options), BINARIES["valkey"], MODULES, tmp_path, worker=worker
    )
    assert outcome.verdict.figures["claimed again"]
    if worker is UNFENCED:
        found = {(finding.kind, finding.place) for finding in outcome.verdict.findings}
        # A node forwards each place of the log once, so live the log's second text is another than was told.
        assert found >= {("repeated", "log"), ("forged", "live")}
    else:
        assert outcome.verdict.findings == []
