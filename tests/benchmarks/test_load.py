"""The load itself: a server that loses, repeats, refuses or stalls is found out, and Legato is whole."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load import run as run_module
from legato.benchmarks.load import scenarios, watch
from legato.benchmarks.load.agents import generators
from legato.benchmarks.load.command import load
from legato.benchmarks.load.histogram import bucket
from legato.benchmarks.load.http import ApiConnection, whole
from legato.benchmarks.load.orders import GeneratorCounts, Join, LoadTarget
from legato.benchmarks.load.probe import ProcessUsage
from legato.benchmarks.load.run import Measured, ScenarioRun, Sizes
from legato.benchmarks.load.watch import Live
from legato.deploy import cli
from tests.benchmarks.fake_server import fake_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from legato.benchmarks.load.result import Phase
    from tests.benchmarks.fake_server import FakeServer

SIZES = Sizes(3, 100, 0.2, 60, 1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes is not waited for long."""
    monkeypatch.setattr(run_module, "GRACE", 4.0)


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with fake_server() as server:
        yield server


def target(fake: FakeServer, secret: str = "secret") -> LoadTarget:
    where = ("127.0.0.1", fake.port)
    return LoadTarget("legato", *where, *where, "1", "key", secret)


async def measured(fake: FakeServer, sizes: Sizes = SIZES) -> Phase:
    """One phase of three clients on one channel, paced."""
    async with generators(2, 1) as agents:
        await agents.aim(target(fake))
        run = ScenarioRun("test", agents, sizes, [], Live(StringIO()))
        await run.come(Join(0, sizes.connections, "c"))
        work = run.publish(run.streams(["c"]), sizes.rate)
        return await run.phase("paced", work, Measured.deliveries, receivers=sizes.connections)


async def test_all_that_came_in_order_is_no_fault(fake: FakeServer) -> None:
    phase = await measured(fake)
    assert phase.faults == []
    assert phase.delivery is not None
    assert (phase.delivery.expected, phase.delivery.received) == (60, 60)
    assert fake.requests == 20
    assert sum(phase.histograms["latency"].values()) == 60
    assert any("--pid" in warning for warning in phase.warnings)


@pytest.mark.usefixtures("impatient")
async def test_lost_events_are_faults_the_last_one_too(fake: FakeServer) -> None:
    fake.copies = {5: 0, 19: 0}
    assert (await measured(fake)).faults == [
        "54 deliveries came of 60",
        "3 events left out and 0 out of order or repeated",
    ]


async def test_repeated_events_are_faults(fake: FakeServer) -> None:
    fake.copies = {5: 2}
    phase = await measured(fake)
    assert phase.delivery is not None
    assert phase.delivery.backwards > 0
    assert any("out of order or repeated" in fault for fault in phase.faults)


async def test_refused_request_is_a_fault_and_no_lost_event(fake: FakeServer) -> None:
    fake.refuse = {3: 429, 4: 500}
    phase = await measured(fake)
    assert phase.faults == ["refused: {'HTTP 429': 1, 'HTTP 500': 1}"]
    assert phase.delivery is not None
    assert (phase.delivery.expected, phase.delivery.ratio) == (54, 1.0)


async def test_stalled_server_does_not_hide_its_stall(fake: FakeServer) -> None:
    """20 events are due within 0.2 s, and nothing is answered for 1.5 s: every one has waited for that."""
    fake.stall = 1.5
    phase = await measured(fake)
    assert phase.faults == []
    assert min(phase.histograms["latency"]) >= 1_250_000
    assert min(phase.histograms["request"]) >= 1_250_000
    assert sum(phase.histograms["request"].values()) == 20


async def test_stalled_reader_reads_nothing_until_it_reads_on(fake: FakeServer) -> None:
    async with generators(1, 1) as agents:
        await agents.aim(target(fake))
        run = ScenarioRun("test", agents, SIZES, [], Live(StringIO()))
        await run.come(Join(0, 1, "c", stalled=True))
        assert await run.publish(run.streams(["c"]), 100) == 20
        assert (await run.settled()).aside == 0
        await agents.read_on()
        counts = await run.settled()
    assert (counts.aside, counts.received, counts.aside_gaps) == (20, 0, 0)


async def test_server_that_keeps_no_connection_gets_a_new_one_each_time(fake: FakeServer) -> None:
    fake.keep_alive = False
    phase = await measured(fake)
    assert phase.faults == []
    assert fake.connections == SIZES.connections + 20


async def test_clients_that_cannot_get_in_end_the_scenario(fake: FakeServer) -> None:
    async with generators(1, 1) as agents:
        wrong = target(fake)
        await agents.aim(LoadTarget(**{**{f: getattr(wrong, f) for f in wrong.__struct_fields__}, "port": 1}))
        run = ScenarioRun("test", agents, SIZES, [], Live(StringIO()))
        with pytest.raises(BenchmarkError, match="test: 0 of 3 got in"):
            await run.come(Join(0, 3, "c"))


async def test_generator_that_dies_is_told() -> None:
    async with generators(1, 1) as agents:
        agents.readers[0]._process.kill()
        with pytest.raises(BenchmarkError, match="a generator has ended"):
            await agents.figures()


async def test_post_tells_what_the_server_says(fake: FakeServer) -> None:
    fake.refuse = {1: 413}
    connection = ApiConnection(target(fake), None)
    body = b'{"name":"e","channel":"c","data":"LGT%s"}' % (b"0" * 28)
    assert [await connection.post(body), await connection.post(body)] == [200, 413]
    assert connection.opened == 1
    connection.close()


@pytest.mark.parametrize(
    ("answer", "ended", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", False, None),
        (b"HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\n{}", False, (200, True)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", False, (200, False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False, (200, False)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", False, None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", False, (200, True)),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", False, None),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", True, (200, False)),
        (b"HTTP/1.1 500 No\r\nContent-Le", True, None),
    ],
)
def test_answer_is_whole_when_it_is(answer: bytes, ended: bool, expected: tuple[int, bool] | None) -> None:
    assert whole(answer, ended=ended) == expected


def test_doubts_are_raised_by_a_busy_late_or_waiting_machine() -> None:
    good = Measured(GeneratorCounts(), 0, 10, ProcessUsage(5, 0.1, 0), [ProcessUsage(5, 0, 0)])
    assert good.warnings() == []
    late = GeneratorCounts(histograms={"late": {bucket(6000): 1}})
    doubts = Measured(
        late, 0, 10, ProcessUsage(5, 2, 0), [ProcessUsage(1, 0, 0), ProcessUsage(9.5, 0, 0)]
    ).warnings()
    assert [text.split(":")[0].split(" (")[0] for text in doubts] == [
        "a generator had 95% of a core",
        "the generator was late in sending",
        "the server waited 20% of the time for a core that others had",
    ]


def test_progress_counts_phases() -> None:
    out = StringIO()
    live = Live(out, of=4)
    for _ in range(2):
        live.begin()
    live.show("fanout: paced", watch.Moment(1.5, 0, 0, 0, 0, 0, 0, 0, 0))
    assert out.getvalue().startswith("phase 2 of 4  fanout: paced ")


def test_progress_has_live_figures() -> None:
    out = StringIO()
    live = Live(out)
    moment = watch.Moment(1.5, 100, 5000, 0, 1.25, 9.5, 0.5, 60, 0.25)
    live.show("fanout: paced", moment)
    live.show("fanout: paced", moment)
    assert out.getvalue().splitlines() == [
        (
            "fanout: paced        1.5 s  sent 100/s  delivered 5,000/s  p50 1.2 p99 9.5 ms  server 50% 60 MiB"
            "  generator 25%"
        )
    ]


@pytest.mark.timeout(300)
def test_every_scenario_works_and_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "html", "markdown")}
    options = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    assert cli.main(["bench", "--quick", *options]) == 0
    report = load(str(files["json"]))
    assert list(dict.fromkeys(phase.scenario for phase in report.phases)) == list(scenarios.SCENARIOS)
    for phase in report.phases:
        assert phase.faults == []
        assert phase.figures["server_mib"] > 10
        if phase.delivery:
            assert phase.delivery.expected > 0
            assert phase.delivery.ratio == 1
        assert phase.title in files["markdown"].read_text()
        assert phase.title in files["html"].read_text()
    counts = Counter(phase.scenario for phase in report.phases)
    assert counts == {name: one.phases(over_redis=False) for name, one in scenarios.SCENARIOS.items()}
    figures = {phase.scenario: phase.figures for phase in report.phases}
    assert figures["slow"]["stalled_events"] > 0
    assert figures["churn"]["newcomers"] > 0
    assert "server_bytes_per_connection" in figures["idle"]
    said = capsys.readouterr().err
    assert all(phase.title in said for phase in report.phases)
    page = files["html"].read_text()
    assert page.count("<svg") == page.count("</svg>") >= len(report.phases)
    assert "://" not in page.replace("http://www.w3.org", "")
    assert report.command.startswith("legato bench --quick --json ")
    assert report.left_out == ["streams: through Redis (runs with --over-redis)"]
    assert report.left_out[0] in files["markdown"].read_text()
    assert {"processor", "cores", "load_before"} <= set(report.machine)
    assert json.loads(files["json"].read_text())["schema"] == 1


@pytest.mark.timeout(120)
def test_own_legato_over_redis(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["streams", "--quick", "--over-redis", "--json", str(file), "--markdown", str(tmp_path / "m")]
    assert cli.main(["bench", *words]) == 0
    report = load(str(file))
    assert "redis_server" in report.versions
    assert len(report.phases) == scenarios.SCENARIOS["streams"].phases(over_redis=True)


@pytest.mark.usefixtures("impatient")
def test_faults_are_the_exit_status(tmp_path: Path) -> None:
    async def bench() -> int:
        async with fake_server() as fake:
            fake.copies = {2: 0}
            words = [
                *("fanout", "--quick", "--url", f"ws://127.0.0.1:{fake.port}", "--app-id", "1"),
                *("--key", "key", "--secret", "secret", "--markdown", str(tmp_path / "report.md")),
            ]
            return await asyncio.to_thread(cli.main, ["bench", *words])

    assert asyncio.run(bench()) == 1
    text = (tmp_path / "report.md").read_text()
    assert "**FAULT: 40 events left out" in text
    assert "secret secret" not in text
    assert "--secret SECRET" in text
