"""Reports: what is compared is called by its right name, and pages show what was found, safely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load import command, compare, html, markdown, plots
from legato.benchmarks.load.command import load
from legato.benchmarks.load.result import FIGURES, SCHEMA, DeliveryFigures, LoadReport, Moment, Phase, rounded
from legato.deploy import cli

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
SIZES = {"connections": 10.0, "rate": 5.0, "seconds": 1.0, "size": 40.0, "publishers": 1.0}


def phase(figures: Mapping[str, float], name: str = "paced", **more: object) -> Phase:
    usual = {
        "sizes": SIZES,
        "seconds": 1.0,
        "delivery": DeliveryFigures(1000, 999, 1, 0),
        "faults": [],
        "warnings": [],
        "histograms": {"latency": {100: 90, 2000: 9, 50_000: 1}},
        "timeline": [Moment(at, 5, 50 * at, 0, 0.1, 2.0, 0.5, 60, 0.2) for at in (0.5, 1.0)],
        "reasons": {},
    }
    return msgspec.convert({"scenario": "fanout", "name": name, "figures": figures, **usual, **more}, Phase)


def report(*phases: Phase, label: str = "one", **more: object) -> LoadReport:
    usual = {
        "command": "legato bench",
        "target": {},
        "machine": {"processor": "P", "cores": 2},
        "versions": {"legato": "1"},
        "started": "2026-01-01",
        "cores": {},
    }
    return msgspec.convert({"label": label, **usual, **more, "phases": list(phases)}, LoadReport)


@pytest.mark.parametrize(
    ("name", "first", "second", "verdict"),
    [
        ("latency_p99_ms", 10, 5, "better"),
        ("latency_p99_ms", 10, 20, "worse"),
        ("deliveries_per_second", 10, 20, "better"),
        ("deliveries_per_second", 10, 5, "worse"),
        ("latency_p99_ms", 100, 104, "same"),
        ("latency_p99_ms", 100, 96, "same"),
        ("generator_cpu_percent", 1, 50, ""),
        ("latency_p99_ms", 0, 5, ""),
    ],
)
def test_better_is_less_or_more_by_what_it_is(name: str, first: float, second: float, verdict: str) -> None:
    (row,) = compare.rows(phase({name: first}), phase({name: second}))
    assert row.verdict == verdict
    assert row.ratio == (second / first if first else None)


def test_comparison_says_what_makes_it_doubtful() -> None:
    one = report(phase({"latency_p99_ms": 1}), phase({}, "only here"))
    other = report(
        phase({"latency_p99_ms": 2}, sizes={**SIZES, "rate": 50.0}, faults=["something was lost"]),
        phase({}, "only there"),
        label="other",
        machine={"processor": "Q", "cores": 2},
        cores={"server": [0]},
    )
    text = compare.markdown(one, other)
    assert text.startswith("# other against one\n")
    assert "| delivery latency, p99, ms | 1 | 2 | 2 | worse |" in text
    assert "fanout: only here\n\nNot run by the second." in text
    assert "fanout: only there\n\nNot run by the first." in text
    assert compare.differences(one, other) == [
        "processor: P and Q",
        "kept to cores: not alike",
        "fanout: paced: not of the same size",
        "other, fanout: paced: something was lost",
    ]
    assert compare.differences(one, one) == []


def test_command_compares_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, value in zip(files, (100, 50), strict=True):
        file.write_bytes(msgspec.json.encode(report(phase({"server_cpu_us_per_delivery": value}))))
    assert cli.main(["bench", "--compare", *map(str, files)]) == 0
    assert "| server CPU per delivery, µs | 100 | 50 | 0.5 | better |" in capsys.readouterr().out


def test_reports_of_one_label_are_told_apart(tmp_path: Path) -> None:
    one = report(phase({"latency_p99_ms": 1}), label="legato <1>")
    other = report(phase({"latency_p99_ms": 2}, warnings=["it was busy"]), label="legato <1>")
    assert compare.markdown(one, other).startswith("# legato <1> (second) against legato <1> (first)\n")
    assert compare.differences(one, other) == ["legato <1> (second), fanout: paced: it was busy"]
    assert "<h1>legato bench: legato &lt;1&gt; (second) against legato &lt;1&gt; (first)" in html.comparison(
        one, other
    )


def test_comparison_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the verdict first. Without --markdown, nothing else is printed."""
    figures = {"latency_p99_ms": 10, "deliveries_per_second": 100, "server_mib": 50}
    one = report(phase(figures), phase({}, "only here"), label="<b>one")
    better = {"latency_p99_ms": 5, "deliveries_per_second": 10, "server_mib": 50}
    other = report(phase(better), phase({}, "only there"), label="two")
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, made in zip(files, (one, other), strict=True):
        file.write_bytes(msgspec.json.encode(made))
    page, table = tmp_path / "page.html", tmp_path / "table.md"
    assert cli.main(["bench", "--compare", *map(str, files), "--html", str(page)]) == 0
    assert capsys.readouterr().out == ""
    text = page.read_text()
    assert text.index("two: 1 figures better, 1 worse, 1 the same") < text.index("fanout: paced")
    assert '<td class="n">10</td><td class="n">5</td><td class="n">0.5</td><td class="better">better' in text
    assert "Not run by the second." in text
    assert "Not run by the first." in text
    assert "&lt;b&gt;one" in text
    assert "<b>" not in text
    words = ["--html", str(page), "--markdown", str(table)]
    assert cli.main(["bench", "--compare", *map(str, files), *words]) == 0
    assert "| worse |" in table.read_text()


@pytest.mark.parametrize("more", [["--json", "x.json"], ["fanout"]])
def test_comparison_refuses_what_it_would_not_do(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *more, "--compare", "a", "b"]) == 2
    assert "--compare runs nothing: give it no scenario and no --json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "state", "text"),
    [
        (report(phase({})), "ok", "no faults in 1 phases"),
        (report(phase({}, warnings=["busy"])), "doubtful", "no faults in 1 phases"),
        (report(phase({}), phase({}, "flat out", faults=["lost"])), "fault", "1 of 2 phases have faults: "),
        (report(phase({}), cut="interrupted"), "incomplete", "interrupted; what follows was measured before"),
        (report(phase({}, faults=["lost"]), cut="interrupted"), "fault", "fanout: paced. interrupted; what"),
    ],
)
def test_verdict_is_on_top(made: LoadReport, state: str, text: str) -> None:
    page, tables = html.page(made), markdown.document(made)
    assert f'</h1><p class="verdict {state}">{state}: ' in page
    assert text in page[: page.index("<table>")]
    assert f"\n\n**{state}**: " in tables
    assert text in tables[: tables.index("- server")]


@pytest.mark.parametrize(
    ("error", "status", "cut"),
    [(KeyboardInterrupt(), 130, "interrupted"), (BenchmarkError("fanout: not done"), 1, "fanout: not done")],
)
def test_what_was_measured_is_written_when_a_run_is_cut_short(
    error: BaseException, status: int, cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_short(*args: object) -> None:
        args[-1].append(report(*phases))
        raise error

    monkeypatch.setattr(command, "_measure", cut_short)
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "html", "markdown")}
    words = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    phases: list[Phase] = []
    assert cli.main(["bench", *words]) == status
    assert not any(file.exists() for file in files.values())  # there is nothing to tell
    phases = [phase({})]
    assert cli.main(["bench", *words]) == status
    assert load(str(files["json"])).cut == cut
    for kind in ("html", "markdown"):
        assert f"{cut}; what follows was measured before" in files[kind].read_text()
    assert compare.differences(load(str(files["json"])), report(phase({}))) == [f"one (first): {cut}"]


@pytest.mark.parametrize("text", ["{}", "not json", '{"label": 5}'])
def test_file_that_is_no_report_is_told(text: str, tmp_path: Path) -> None:
    file = tmp_path / "no.json"
    file.write_text(text)
    with pytest.raises(BenchmarkError, match="is no report of legato bench"):
        load(str(file))


def test_report_of_another_schema_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    old = report()
    old.schema = SCHEMA + 1
    file.write_bytes(msgspec.json.encode(old))
    with pytest.raises(BenchmarkError, match=f"schema {SCHEMA + 1}, expected {SCHEMA}"):
        load(str(file))


def test_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    one = report(phase({"latency_p99_ms": 1.5}))
    file.write_bytes(msgspec.json.encode(one))
    assert load(str(file)) == one


def test_page_and_tables_have_figures_faults_and_doubts_and_run_nothing_they_are_told() -> None:
    evil = "<script>alert(1)</script>"
    one = report(
        phase({"latency_p99_ms": 1234.5}, faults=[f"lost {evil}"], warnings=["the machine was busy"]),
        label=evil,
        command=evil,
    )
    page, text = html.page(one), markdown.document(one)
    assert "<script" not in page
    assert "999 of 1,000 (99.9000%)" in page
    for found in (page, text):
        assert "1,234 ms" in found
        assert "the machine was busy" in found
    assert page.count("<polyline") == 1 + 2 + 2 + 2  # percentiles, rates, latency, CPU
    assert "**FAULT: lost" in text
    assert "FAULT" in markdown.line(one.phases[0])


def test_curve_of_percentiles_ends_at_the_greatest_and_has_the_right_height() -> None:
    svg = plots.percentiles("Delivery latency", {100: 90, 2000: 9, 50_000: 1})
    points = [tuple(map(float, p.split(","))) for p in svg.split('points="')[1].split('"')[0].split()]
    floor, ceiling = plots.HEIGHT - plots.BOTTOM, plots.TOP
    right = plots.WIDTH - plots.RIGHT
    highest = floor - 50 / 60 * (floor - ceiling)  # 50 ms of an axis that ends at 60
    assert points[-1] == (right, pytest.approx(highest, abs=0.1))
    at_90 = plots.LEFT + (right - plots.LEFT) / 2
    assert (
        pytest.approx(at_90, abs=0.1),
        pytest.approx(floor - 2 / 60 * (floor - ceiling), abs=0.1),
    ) in points
    assert [x for x, _ in points] == sorted(x for x, _ in points)


@pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (50, 60), (1234, 1500), (0.03, 0.03)])
def test_axis_is_round(most: float, top: float) -> None:
    axis = plots.linear([most], "ms")
    assert axis.most == pytest.approx(top)
    assert axis.ticks[-1][0] == pytest.approx(top)


def test_rounding_pretends_nothing() -> None:
    assert [rounded(value) for value in (0.0123456, 12.3456, 123456.7)] == [0.01235, 12.35, 123457]


def test_every_figure_is_explained() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    labels = {figure.label.split(", p")[0].removesuffix(", most") for figure in FIGURES.values()}
    missing = sorted(label for label in labels if f"| {label} |" not in text)
    assert missing == []
