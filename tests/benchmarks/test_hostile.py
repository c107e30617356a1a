"""``legato bench hostile``: that it sees what a client does to others, and that Legato bears every attack."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import msgspec
import pytest

from legato.benchmarks import stage
from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.hostile import catalogue, observers, report, stream_observer, tasks
from legato.benchmarks.hostile.arena import Arena, AttackOrder, AttackOutcome
from legato.benchmarks.hostile.attack import Attack
from legato.benchmarks.hostile.by_http import request
from legato.benchmarks.hostile.command import QUICK
from legato.benchmarks.hostile.run import HostilePlan, measured, rows
from legato.benchmarks.hostile.scene import LEASE_SECONDS, scene
from legato.benchmarks.hostile.stream_observer import StreamObserver
from legato.benchmarks.hostile.verdict import AttackRow, DelayFigures, HostileLimits, faults, waits
from legato.benchmarks.hostile.watch import NodeLog
from legato.benchmarks.load.orders import LoadTarget
from legato.broadcaster.composition import running
from legato.deploy import cli
from legato.protocol import fallback
from legato.protocol.apps import App
from tests import tiers
from tests.broadcaster.conftest import local_settings
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SECONDS, CALM_SECONDS = (10.0, 4.0) if tiers.PROOF else (0.5, 0.4)
PART = 8

OF_EACH_KIND = (
    *("empty-text", "endless-message", "subscribe-many", "big-text"),
    *("unsigned-events", "up-unread", "scrapers", "stream-unread"),
)
"""The attacks of `make test`. `make proof` makes all, longer; most others are a variant of one of these."""

NOTHING = Attack("nothing", "none", "", lambda _: None)


# --- Legato bears them


async def not_borne(names: Sequence[str], *, tls: bool = False) -> list[str]:
    """The lines of attacks that are not borne, thrice: a busy machine does not do the same again."""
    plan = HostilePlan(stage.redis_server(None), SECONDS, CALM_SECONDS, tls=tls, limits=QUICK)
    found: list[AttackRow] = []
    for _ in range(3):
        found = [row async for row in rows(catalogue.chosen(names), plan) if row.faults]
        names = [row.attack for row in found]
        if not names:
            break
    return [report.line(row) for row in found]


def parts() -> list[tuple[str, ...]]:
    """The attacks, a few at a time, so that the parts can run side by side."""
    names = list(catalogue.ATTACKS) if tiers.PROOF else list(OF_EACH_KIND)
    return [tuple(names[at : at + PART]) for at in range(0, len(names), PART)]


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("names", parts(), ids=lambda names: names[0])
async def test_every_attack_is_borne(names: tuple[str, ...]) -> None:
    """Delays far below those of a server without bounds; nobody closed, nothing lost, the lease kept."""
    assert await not_borne(names) == []


@pytest.mark.timeout(300)
async def test_attacks_over_tls_are_borne() -> None:
    assert await not_borne(["ping-125", "unsigned-events"], tls=True) == []


def test_each_group_has_an_attack_in_short() -> None:
    assert {catalogue.ATTACKS[name].group for name in OF_EACH_KIND} == set(catalogue.GROUPS)


@pytest.mark.timeout(120)
def test_report_has_what_was_done_and_seen(tmp_path: Path) -> None:
    """Of attacks that are not asked here whether they are borne."""
    file = tmp_path / "report.json"
    words = ["--seconds", "0.5", "--only", "after-close", "--only", "not-found", "--delay", "60000"]
    status = cli.main(["bench", "hostile", *words, "--json", str(file)])
    found = msgspec.json.decode(file.read_bytes(), type=report.HostileReport)
    assert found.whole
    assert status == any(row.faults for row in found.rows)
    assert [row.attack for row in found.rows] == ["after-close", "not-found"]
    assert found.limits.p99 == 60_000
    for row in found.rows:
        assert row.sent > 0
        assert row.opened > 0
        assert all(each.count for each in (row.quiet, row.attacked, row.other, row.publish))
        assert 0 < row.lease <= LEASE_SECONDS * 1000


# --- and it would be seen if it did not


class Stopped:
    """Instead of an attack: the attacked node does not run for some seconds."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid, self._seconds = pid, seconds

    async def ready(self) -> None:
        pass

    def begin(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    async def outcome(self) -> AttackOutcome:
        await asyncio.sleep(self._seconds)
        os.kill(self._pid, signal.SIGCONT)
        return AttackOutcome()

    async def end(self) -> None:
        pass


def plan(limits: HostileLimits) -> HostilePlan:
    return HostilePlan(stage.redis_server(None), 1.0, 0.5, tls=False, limits=limits)


@pytest.mark.timeout(120)
async def test_node_that_stands_still_is_seen_and_a_quiet_one_is_not() -> None:
    wanted = plan(QUICK)
    async with scene(wanted.redis, tls=False) as on:
        quiet = await measured(NOTHING, on, wanted, Stopped(on.pid, 0.0))
        assert quiet.faults == []
        still = await measured(NOTHING, on, wanted, Stopped(on.pid, LEASE_SECONDS + 3.0))
    assert still.attacked.longest > LEASE_SECONDS * 1000
    assert still.other.longest < still.attacked.longest / 2
    told = "\n".join(still.faults)
    for part in ("a node has lost its lease", "disconnected", "longest ping on the attacked node"):
        assert part in told


def test_observer_sees_what_is_lost_repeated_empty_or_refused() -> None:
    observer = observers.ObservingClient(observers.ServerAddress(0, None, None), 1)  # type: ignore[arg-type]

    def hear(event: str, data: object) -> list[str]:
        before = len(observer.faults)
        observer._hear(json.dumps({"event": event, "channel": "observed", "data": data}))
        return observer.faults[before:]

    assert [hear("seen", json.dumps({"of": of, "n": n})) for of, n in ((0, 0), (1, 5), (0, 1), (1, 6))] == [
        []
    ] * 4
    assert hear("hostile", '"whole"') == []
    assert "event 1 of publisher 1 came where 2 was next" in hear("seen", '{"of":0,"n":1}')[0]
    assert "event 9 of publisher 2 came where 7 was next" in hear("seen", '{"of":1,"n":9}')[0]
    assert "without its data" in hear("hostile", "")[0]
    assert "an error" in hear("pusher:error", {"code": 4301})[0]


async def test_observer_over_http_goes_on_when_a_stream_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves a stream at the length at which pusher-js does; the server writes no more to it."""
    monkeypatch.setattr(observers, "PING_EVERY", 0.01)
    for module in (fallback, stream_observer):
        monkeypatch.setattr(module, "STREAM_LIMIT", 4096)
    app = App(id="1", key="key", secret="secret")
    async with running(local_settings(app)) as server:
        where = ("127.0.0.1", server.port)
        place = observers.ServerAddress(0, LoadTarget("legato", *where, *where, "1", "key", "secret"), None)
        opened = []
        monkeypatch.setattr(
            stream_observer, "request", lambda *words: opened.append(words) or request(*words)
        )
        async with StreamObserver(place) as observer:
            await until(lambda: sum("xhr_streaming" in words[0] for words in opened) >= 4)
            assert observer.faults == []
            assert len(observer.pings) > 50


def test_log_tells_lines_and_tracebacks_since_it_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("Traceback (most recent call last):\nbefore\n")
    log = NodeLog(path)
    assert (log.lines(), log.failures()) == (0, [])
    with path.open("a") as file:
        file.write("one\nTraceback (most recent call last):\n  x\n")
    assert log.lines() == 3
    assert log.failures() == ["in the log: Traceback (most recent call last):"]


async def test_task_that_swallows_a_cancellation_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN", 0.01)
    swallowed = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) > 2:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await tasks.end([task])
    assert len(swallowed) == 3


def row(**changes: object) -> AttackRow:
    good = DelayFigures(100, 1.0, 2.0, 3.0)
    usual = AttackRow(
        *("x", "g", 1.0, 1.0, 1),
        **dict.fromkeys(("quiet", "attacked", "other", "publish", "newcomer"), good),
        late=0.0,
    )
    return msgspec.structs.replace(usual, **changes)


@pytest.mark.parametrize(
    ("name", "borne", "not_borne", "said"),
    [
        (
            "attacked",
            DelayFigures(1, 0, 100, 1000),
            DelayFigures(1, 0, 100.1, 200),
            "ping p99 on the attacked node: 100.1 ms",
        ),
        (
            "attacked",
            DelayFigures(1, 0, 1, 1000),
            DelayFigures(1, 0, 1, 1000.1),
            "longest ping on the attacked node",
        ),
        ("attacked", DelayFigures(1, 0, 1, 1), DelayFigures(), "no ping was answered"),
        ("other", DelayFigures(1, 0, 100, 1000), DelayFigures(1, 0, 101, 101), "ping p99 on the other node"),
        (
            "publish",
            DelayFigures(1, 0, 0, 1000),
            DelayFigures(1, 0, 0, 1001),
            "a publish took 1001 ms, allowed are 1000",
        ),
        ("newcomer", DelayFigures(1, 0, 0, 1000), DelayFigures(1, 0, 0, 1001), "a new client waited 1001 ms"),
        ("grown", 64.0, 65.0, "memory grew by 65 MiB, allowed are 64"),
        ("kept", 48.0, 49.0, "memory of 49 MiB was not given back"),
        ("threads", 16, 17, "17 more threads"),
        ("log_lines", 200, 201, "201 lines in the log"),
    ],
)
def test_each_limit_is_a_limit(name: str, borne: object, not_borne: object, said: str) -> None:
    assert faults(row(**{name: borne}), HostileLimits()) == []
    (found,) = faults(row(**{name: not_borne}), HostileLimits())
    assert said in found


def test_busy_machine_and_late_observers_are_no_fault() -> None:
    slow = DelayFigures(100, 1, 300, 400)
    assert faults(row(attacked=slow), HostileLimits()) != []
    assert faults(row(attacked=slow, quiet=DelayFigures(100, 1, 80, 90)), HostileLimits()) == []
    assert faults(row(attacked=slow, late=250.0), HostileLimits()) == []
    # but a quiet run that was bad excuses no more than the longest wait
    assert (
        faults(
            row(attacked=DelayFigures(9, 1, 1100, 1100), quiet=DelayFigures(9, 1, 900, 900)), HostileLimits()
        )
        != []
    )


def test_waits_are_those_that_were_due_between() -> None:
    samples = [observers.Sample(due, seconds) for due, seconds in ((1, 9.0), (2, 0.1), (3, 0.3), (4, 9.0))]
    assert waits(samples, 2, 4) == DelayFigures(2, 100.0, 300.0, 300.0)
    assert waits(samples, 5, 6) == DelayFigures()


# --- the attacker


class Sink:
    """A server that reads, and closes each connection after ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: list[int] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        return self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                with peer, suppress(OSError):
                    self.taken.append(0)
                    while self.taken[-1] < self.most and (data := peer.recv(65_536)):
                        self.taken[-1] += len(data)


@pytest.fixture
def flood() -> Callable[[Arena], None]:
    return lambda arena: arena.pour(arena.connect(), b"x" * 1000)


def order(port: int, **changes: object) -> AttackOrder:
    usual = AttackOrder("x", port, port, "1", "key", "secret", scale=1.0, seconds=30.0, max_bytes=1 << 40)
    return msgspec.structs.replace(usual, **changes)


def test_attack_is_bounded_in_bytes(flood: Callable[[Arena], None]) -> None:
    with Sink(1 << 40) as sink:
        arena = Arena(order(sink.port, max_bytes=1_000_000))
        arena.repeat(flood)
        arena.close()
    assert 1_000_000 <= arena.outcome.sent <= 1_001_000
    assert arena.outcome.opened == 1


def test_attack_is_bounded_in_time(flood: Callable[[Arena], None]) -> None:
    """By its own clock, of which each look is a second."""
    ticks: Iterator[int] = iter(range(10_000))
    with Sink(1 << 40) as sink:
        arena = Arena(order(sink.port, seconds=50.0), clock=lambda: float(next(ticks)))
        arena.repeat(flood)
        arena.close()
    assert 50 <= next(ticks) <= 55
    assert arena.outcome.sent <= 50_000


def test_attack_begins_again_when_the_server_closes(flood: Callable[[Arena], None]) -> None:
    with Sink(100_000) as sink:
        arena = Arena(order(sink.port, max_bytes=20_000_000))
        arena.repeat(flood)
        arena.close()
    assert arena.outcome.opened > 1
    assert arena.outcome.refused >= arena.outcome.opened - 1


def test_attack_of_nobody_ends_too(flood: Callable[[Arena], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    arena = Arena(order(port, seconds=0.2))
    arena.repeat(flood)
    assert arena.outcome.opened == 0
    assert arena.outcome.refused > 0


def test_no_order_names_a_host_and_none_shows_a_secret() -> None:
    assert not {"host", "url", "address"} & set(AttackOrder.__struct_fields__)
    assert "secret" not in repr(order(1))


# --- the command


def test_list_has_every_attack(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "hostile", "--list"]) == 0
    said = capsys.readouterr().out
    for attack in catalogue.ATTACKS.values():
        assert re.search(rf"^  {attack.name} +{re.escape(attack.summary)}$", said, re.MULTILINE)
    assert len(catalogue.ATTACKS) == said.count("\n  ") > 40


def test_attacks_are_chosen_by_name_and_group() -> None:
    assert catalogue.chosen([]) == list(catalogue.ATTACKS.values())
    assert [attack.name for attack in catalogue.chosen(["up", "metrics"])] == ["up", "scrapers"]
    assert {attack.group for attack in catalogue.chosen(["fallback"])} == {"fallback"}
    with pytest.raises(BenchmarkError, match="--only upp: no such attack"):
        catalogue.chosen(["up", "upp"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["hostile", "--only", "nothing"], "--only nothing: no such attack; legato bench hostile --list"),
        (["hostile", "--url", "ws://127.0.0.1:1"], "--url does not go with hostile"),
        (["hostile", "--allow-remote", "example.com"], "--allow-remote does not go with hostile"),
        (["hostile", "--connections", "9"], "--connections does not go with hostile"),
        (["hostile", "--seconds", "61"], "--seconds 61: expected at most 60"),
        (["hostile", "--delay", "0"], "--delay 0: expected 1 to 60000"),
        (["hostile", "fanout"], "hostile runs by itself"),
        (["fanout", "--only", "up"], "--only, --tls and --delay go with hostile"),
        (["--tls"], "--only, --tls and --delay go with hostile"),
        (["hostile", "--redis", "/no/such"], "--redis /no/such: there is no such program"),
    ],
)
def test_wrong_option_is_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"legato bench: {complaint}")
    assert said.count("\n") == 1


@pytest.mark.timeout(120)
def test_interrupted_run_writes_what_is_finished(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["bench", "hostile", "--quick", "--only", "http", "--json", str(file)]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "legato.deploy", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        first = next(line.split()[0] for line in lines if line.split()[0] in catalogue.ATTACKS)
        process.send_signal(signal.SIGINT)
        rest = list(lines)
    found = msgspec.json.decode(file.read_bytes(), type=report.HostileReport)
    assert process.returncode == 130
    assert found.rows[0].attack == first
    assert not found.whole
    assert "were not made" in rest[-1]
