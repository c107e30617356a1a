"""Reports: what is compared is called by its right name, and pages show what was found, safely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load import compare, html, markdown, plots
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
