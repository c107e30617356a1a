"""Servers side by side: what the table says is what was measured, and what was not is called so."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load.agents import generators
from legato.benchmarks.load.orders import LoadTarget
from legato.benchmarks.load.result import FIGURES, DeliveryFigures
from legato.benchmarks.load.run import ScenarioRun, Sizes
from legato.benchmarks.load.watch import Live
from legato.benchmarks.versus import command, loop_delay, servers, table
from legato.benchmarks.versus.contestants import BASELINE, LEGATO, OVER_REDIS, SOKETI, RunningServer
from legato.benchmarks.versus.measures import IDLE, ROUND, in_turn
from legato.benchmarks.versus.rates import LONGEST_P99, best, sustained
from legato.benchmarks.versus.rows import ROWS, FigurePlace, FigureRow, Goal, Seen, figures, fill
from tests.benchmarks.fake_server import fake_server
from tests.benchmarks.test_reports import phase

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from legato.benchmarks.load.result import Phase

COST = "server_cpu_us_per_delivery"
RATIO = FigureRow(
    "a row",
    FigurePlace("fanout", "paced", LEGATO, COST),
    FigurePlace("fanout", "paced", BASELINE, COST),
    Goal("≤", 1.4),
)
ALONE = FigureRow("memory", FigurePlace("fanout", "paced", LEGATO, COST), goal=Goal("≤", 8192), unit="bytes")
EVERYBODY = (LEGATO, OVER_REDIS, BASELINE, SOKETI)


def seen(*values: tuple[int, str, float]) -> dict[FigurePlace, dict[int, float]]:
    return figures([Seen(number, server, phase({COST: value})) for number, server, value in values])


def test_ratio_is_taken_in_each_round_and_the_median_decides() -> None:
    known = seen(
        *((1, LEGATO, 10), (1, BASELINE, 10), (2, LEGATO, 12), (2, BASELINE, 8)),
        *((3, LEGATO, 21), (3, BASELINE, 15)),
    )
    found = fill(RATIO, known, EVERYBODY)
    assert found.values == [1.0, 1.5, 1.4]
    assert (found.middle, found.over, found.under) == (1.4, 12, 10)
    assert found.verdict == "reached"
    line = table.line(found)
    assert line == "| a row | legato / C baseline | ≤ 1.4 | 1.4 | 1 … 1.5 | 12 / 10 µs | reached |"
    assert fill(RATIO._replace(goal=Goal("≤", 1.39)), known, EVERYBODY).verdict == "missed"
    assert fill(RATIO._replace(goal=None), known, EVERYBODY).verdict == ""


@pytest.mark.parametrize(("value", "verdict"), [(14.9, "missed"), (15, "reached"), (99, "reached")])
def test_more_is_better_where_the_goal_says_so(value: float, verdict: str) -> None:
    row = RATIO._replace(goal=Goal("≥", 15))
    assert fill(row, seen((1, LEGATO, value), (1, BASELINE, 1)), EVERYBODY).verdict == verdict


def test_figure_without_a_second_stands_for_itself() -> None:
    found = fill(ALONE, seen((1, LEGATO, 8000), (2, LEGATO, 8400), (3, BASELINE, 1)), EVERYBODY)
    assert (found.values, found.middle, found.verdict) == ([8000, 8400], 8200, "missed")
    assert "| ≤ 8,192 bytes | 8,200 bytes | 8,000 … 8,400 |  | missed |" in table.line(found)


def test_what_is_not_there_is_neither_reached_nor_missed() -> None:
    both = seen((1, LEGATO, 10), (1, BASELINE, 0), (2, LEGATO, 10), (3, BASELINE, 10))
    found = fill(RATIO, both, EVERYBODY)
    assert (found.values, found.middle, found.verdict) == ([], None, "not measured")
    assert fill(RATIO, both, (LEGATO,)).verdict == "not run"
    assert fill(RATIO, {}, (BASELINE,)).verdict == "not run"
    assert table.line(found).endswith("|  |  | 10 / 5 µs | not measured |")


def test_every_row_speaks_of_something_that_is_measured() -> None:
    measured = {measure.name: measure.servers for measure in (*ROUND, IDLE)}
    for row in ROWS:
        for place in (row.over, row.under):
            if place is not None:
                assert place.server in measured[place.measure]
                assert place.figure in FIGURES


def test_servers_take_turns_in_being_first() -> None:
    assert in_turn(ROUND[0], 1) == (LEGATO, BASELINE, SOKETI)
    assert in_turn(ROUND[0], 2) == (SOKETI, BASELINE, LEGATO)


def paced(rate: float, seconds: float = 10.0, p99: float = 50.0, **more: object) -> Phase:
    sizes = {"connections": 10.0, "rate": rate, "seconds": 10.0, "size": 40.0, "publishers": 1.0}
    usual = {"sizes": sizes, "seconds": seconds, "delivery": DeliveryFigures(100, 100, 0, 0)}
    return phase({"latency_p99_ms": p99}, **{**usual, **more})


def test_rate_is_sustained_when_all_came_in_time() -> None:
    assert sustained(paced(50, 10.9, LONGEST_P99 - 1))
    for broken in (
        paced(50, 11.5),
        paced(50, p99=LONGEST_P99),
        paced(50, faults=["refused"]),
        paced(50, faults=["99 came"], delivery=DeliveryFigures(100, 99, 0, 0)),
        paced(50, delivery=DeliveryFigures(0, 0, 0, 0)),
        paced(50, delivery=None),
    ):
        assert not sustained(broken)


def test_best_rate_is_the_greatest_that_was_sustained() -> None:
    assert best([paced(40), paced(60), paced(50), paced(70, 12), paced(80, p99=4000)]) == 60
    assert best([paced(40, 12)]) is None
    assert best([]) is None


BEFORE: Mapping[float, float] = {0.001: 100, 0.005: 100, 0.01: 100, math.inf: 101}
AFTER: Mapping[float, float] = {0.001: 190, 0.005: 198, 0.01: 200, math.inf: 201}


def test_p99_is_of_what_was_counted_in_between() -> None:
    found = loop_delay.between(AFTER, BEFORE)
    assert found == {0.001: 90, 0.005: 98, 0.01: 100, math.inf: 100}
    assert loop_delay.quantile(0.99, found) == pytest.approx(0.0075)
    assert loop_delay.quantile(0.45, found) == pytest.approx(0.0005)
    assert loop_delay.quantile(1, found) == pytest.approx(0.01)
    assert loop_delay.counts(found) == {1000: 90, 5000: 8, 10_000: 2}


def test_p99_beyond_all_buckets_passes_no_limit() -> None:
    assert loop_delay.quantile(0.99, {0.01: 98, math.inf: 100}) == math.inf
    assert loop_delay.counts({0.01: 98, math.inf: 100}) == {10_000: 98, 0: 2}
    assert loop_delay.quantile(0.99, {0.01: 99, math.inf: 100}) == pytest.approx(0.01)


@pytest.mark.parametrize("buckets", [{}, {0.01: 0.0, math.inf: 0.0}])
def test_p99_of_nothing_is_none(buckets: dict[float, float]) -> None:
    assert loop_delay.quantile(0.99, buckets) is None


def page(buckets: Mapping[float, float]) -> str:
    """As a broadcaster tells it, among other figures."""
    name = loop_delay.METRIC
    lines = ["# TYPE legato_connections gauge", 'legato_connections{app="1"} 3', f"# TYPE {name} histogram"]
    lines += [
        f'{name}_bucket{{le="{"+Inf" if math.isinf(bound) else bound}"}} {count}'
        for bound, count in buckets.items()
    ]
    return "\n".join([*lines, f"{name}_count {buckets[math.inf]}", f"{name}_sum 1.5", ""])


def test_buckets_are_read_among_other_figures() -> None:
    assert loop_delay.parse(page(AFTER)) == AFTER
    assert loop_delay.parse("# TYPE legato_connections gauge\nlegato_connections 3\n") == {}


@pytest.mark.parametrize(
    ("pages", "p99", "warned"),
    [
        ([page(BEFORE), page(AFTER)], 7.5, ""),
        ([page(BEFORE), page({**AFTER, math.inf: 300})], None, "beyond the last bucket"),
        (["", ""], None, "is not among the server's figures"),
        (None, None, "is not among the server's figures"),
    ],
)
async def test_loop_delay_is_read_around_the_flushes(
    pages: list[str] | None, p99: float | None, warned: str
) -> None:
    left = list(pages or ())

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = left.pop(0).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(tell, "127.0.0.1", 0) as figures_of_it, fake_server() as fake:
        port = figures_of_it.sockets[0].getsockname()[1]
        target = LoadTarget("legato", *("127.0.0.1", fake.port) * 2, "1", "key", "secret")
        async with generators(1, 1) as agents:
            await agents.aim(target)
            run = ScenarioRun("flushes", agents, Sizes(3, 50, 0.1, 60, 1), [], Live(StringIO()))
            url = f"http://127.0.0.1:{port}/metrics" if pages else ""
            await loop_delay.flushes(run, RunningServer(LEGATO, target, [], (), url))
    assert left == []
    assert run.phases[0].figures.get("loop_delay_p99_ms") == p99
    assert any(warned in warning for warning in run.phases[0].warnings)
    assert run.phases[0].faults == []


async def test_figures_that_cannot_be_read_are_told() -> None:
    with pytest.raises(BenchmarkError, match=r"http://127\.0\.0\.1:1/metrics: ConnectError"):
        await loop_delay.read("http://127.0.0.1:1/metrics")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "--rounds 0: expected 1 to 50"),
        (["--connections", "20001"], "--connections 20001: expected 1 to 20000"),
        (["--connections", "900"], "--connections 900: a process may have 10199 files open here"),
        (["--soketi", "/no/such/folder"], "--soketi /no/such/folder: npm has not put @soketi/soketi there"),
        (["--quick", "--pin", "4096"], "--pin 4096: expected one of"),
    ],
)
def test_wrong_option_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "files open" in said:
        monkeypatch.setattr(resource, "getrlimit", lambda _what: (10_199, 10_199))
    assert command.main(words) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"legato.benchmarks.versus: {said}")
    assert complaint.count("\n") == 1


def test_compiler_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert command.main(["--quick", "--no-pin"]) == 1
    assert capsys.readouterr().err == (
        "legato.benchmarks.versus: the baseline needs a C compiler, "
        "and there is no cc (Debian: gcc, libc6-dev)\n"
    )


async def test_baseline_that_does_not_compile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "server.c"
    source.write_text("int main(void) { return no_such_thing; }\n")
    monkeypatch.setattr(servers, "SOURCE", source)
    with pytest.raises(BenchmarkError, match="the baseline does not compile"):
        await servers.compiled(tmp_path)


@pytest.mark.parametrize(("faults", "status"), [([], 0), (["59 deliveries came of 60"], 1)])
def test_exit_status_tells_of_what_was_lost_and_not_of_what_was_missed(
    faults: list[str], status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure(_args: object, _redis: str) -> dict[str, object]:
        await asyncio.sleep(0)
        return {"table": "| missed |\n", "phases": [{"faults": []}, {"faults": faults}]}

    monkeypatch.setattr(command, "_measure", measure)
    assert command.main(["--quick"]) == status
    assert capsys.readouterr().out == "| missed |\n"


def test_faults_and_doubts_are_shown_with_where_they_were() -> None:
    wrong = phase({}, faults=["59 deliveries came of 60"], warnings=["late"])
    assert table.doubts([Seen(2, SOKETI, wrong)]) == [
        "FAULT: round 2, soketi, fanout: paced: 59 deliveries came of 60",
        "Doubtful: round 2, soketi, fanout: paced: late",
    ]


@pytest.mark.timeout(300)
def test_quick_run_measures_everything_but_soketi(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "versus.json"
    words = ["--quick", "--json", str(file), *(["--no-pin"] if len(os.sched_getaffinity(0)) < 2 else [])]
    assert command.main(words) == 0
    body = json.loads(file.read_text())
    done = [(one["scenario"], one["server"]) for one in body["phases"]]
    assert set(done) == {
        (measure.name, server)
        for measure in (IDLE, *ROUND)
        for server in measure.servers
        if server != SOKETI and measure.name != "latency"  # whose rate is soketi's
    }
    phases = {(one["scenario"], one["name"], one["server"]) for one in body["phases"]}
    for row in ROWS:
        for place in (row.over, row.under):
            if place and place.server != SOKETI and place.measure != "latency":
                assert place[:3] in phases
    for one in body["phases"]:
        assert one["faults"] == []
        assert one["delivery"] is None or one["delivery"]["received"] == one["delivery"]["expected"] > 0
        assert one["figures"]["server_cpu_percent"] >= 0
    out = capsys.readouterr().out
    assert out == body["table"]
    assert out.count("\n| ") == len(ROWS) + 1
    assert out.count("| not run |") == sum(
        SOKETI in (row.over.server, row.under and row.under.server) for row in ROWS
    )
    assert next(row["verdict"] for row in body["rows"] if row["unit"] == "bytes") in ("reached", "missed")
