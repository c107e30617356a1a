"""Several seeds: which, what they come to together, and a real run of two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tests.e2e
from legato.benchmarks.chaos import markdown, series
from legato.benchmarks.chaos.errors import ChaosError
from legato.benchmarks.chaos.series import SeedResult
from legato.deploy import cli

MACHINE = {"processor": "a processor", "cores": 2, "memory_mib": 1024, "system": "Linux 6"}


def outcome(**changes):
    return {
        "clean": True,
        "command": "legato chaos --seed 1 --minutes 2",
        "versions": {"Legato": "0.1.0"},
        "faults": {"kill-worker": 2, "cancel": 1},
        "figures": {"messages": 10, "complete": 9, "frames": 500},
        "observed": {"tracebacks in logs": 0, "tokens made up for": 0},
        "violations": [],
    } | changes


LOST = {"kind": "lost", "place": "whole", "who": "m1 at 7/0", "detail": "token 4 | is missing"}


@pytest.mark.parametrize(
    ("text", "found"),
    [("1-3", [1, 2, 3]), ("7", [7]), ("3, 1,3", [3, 1]), ("1-2,2-3", [1, 2, 3]), ("0-0", [0])],
)
def test_seeds_are_lists_and_ranges_each_once(text, found):
    assert series.seeds(text) == found


@pytest.mark.parametrize("text", ["", "x", "3-1", "1-", "-1", "1-2000", "1,,2", "1-1000,2000"])
def test_what_names_no_seeds_is_refused(text):
    with pytest.raises(ChaosError, match="--seeds"):
        series.seeds(text)


def test_report_of_clean_seeds_counts_nothing_lost_and_sums_up():
    made_up_for = outcome(observed={"tokens made up for": 1})
    results = [SeedResult(1, outcome(), "clean"), SeedResult(2, made_up_for, "clean")]
    made = markdown.report("legato chaos --seeds 1-2", MACHINE, "2026-01-02", results)
    assert "**clean: 2 of 2 seeds**. 20 messages, 1000 token frames" in made
    assert "    legato chaos --seeds 1-2\n" in made
    assert "| 2 | clean | 10 | 500 | 3 | 0 | 1 |" in made
    for row in ("| lost | 0 |", "| repeated | 0 |", "| reordered | 0 |", "| missing ending | 0 |"):
        assert row in made
    assert "| kill-worker | 4 |" in made
    assert "- 2026-01-02; 2 seeds\n- a processor, 2 cores, 1024 MiB, Linux 6\n- Legato 0.1.0\n" in made


def test_report_names_what_is_not_clean_and_what_did_not_run():
    results = [
        SeedResult(1, outcome(), "clean"),
        SeedResult(2, outcome(clean=False, violations=[LOST, LOST]), "NOT clean"),
        SeedResult(3, None, "legato chaos: node is not on the PATH"),
    ]
    made = markdown.report("legato chaos --seeds 1-3", MACHINE, "2026-01-02", results)
    assert "**NOT clean: seeds 2, 3; 1 of 3 are clean**" in made
    assert "| 2 | **not clean** | 10 | 500 | 3 | 2 | 0 |" in made
    assert "| 3 | did not run: legato chaos: node is not on the PATH | - |" in made
    assert "| lost | 2 |" in made
    assert "- `legato chaos --seed 1 --minutes 2`: lost (whole): m1 at 7/0: token 4 | is missing" in made


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "1-2", "--plan"], "--plan and --keep are for one seed"),
        (["--seeds", "1-2", "--parallel", "0"], "--parallel 0: expected 1 to 64"),
        (["--seed", "1", "--report", "x.md"], "--report and --parallel go with --seeds"),
        (["--seeds", "1-2", "--report", "/nowhere/x.md"], "/nowhere/x.md cannot be written"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options, said, capsys):
    assert cli.main(["chaos", *options]) in (1, 2)
    assert said in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_two_real_seeds_at_once_make_one_report(tmp_path, capsys):
    small = ["--users", "1", "--readers", "1", "--nodes", "1", "--workers", "1", "--faults", "none"]
    files = ["--report", str(tmp_path / "report.md"), "--json", str(tmp_path / "all.json")]
    modules = ["--modules", str(Path(tests.e2e.__file__).parent)]
    argv = ["chaos", "--seeds", "13,16", "--minutes", "0.05", "--parallel", "2", *small, *files, *modules]
    assert cli.main(argv) == 0, capsys.readouterr()
    said = capsys.readouterr()
    assert said.out == "clean: 2 of 2 seeds\n"
    assert "seed 16: clean: " in said.err
    made = (tmp_path / "report.md").read_text()
    assert "    legato chaos --seeds 13,16 --minutes 0.05 --users 1 " in made
    assert "**clean: 2 of 2 seeds**" in made
    outcomes = json.loads((tmp_path / "all.json").read_text())
    assert [outcome["command"].split()[3] for outcome in outcomes] == ["13", "16"]
