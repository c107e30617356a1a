"""The benchmarks: short runs come out whole, what is wrong is seen, and what is asked wrongly is a line."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

from legato.benchmarks import garbage, proc, replies, scaling, stage
from legato.benchmarks.collected import Collections
from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.figures import milliseconds, percentile
from legato.benchmarks.readers import ReplyReading

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--replies", "3", "--greedy", "1", "--tokens", "20", "--rate", "200"], {"tokens": 4060}),
        (["--jobs", "12", "--at-once", "3", "--tokens", "5", "--rate", "0"], {"tokens": 60}),
    ],
)
def test_short_run_is_complete_and_written_down(
    options: list[str], expected: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    assert replies.main([*options, "--json", str(file)]) == 0
    assert "all complete and in order" in capsys.readouterr().out
    body = json.loads(file.read_text())
    assert {name: body["result"][name] for name in expected} == expected
    assert set(body["result"]["cpu_us_per_token"]) == {"redis", "broadcaster", "worker", "readers"}
    assert body["command"].startswith("python -m legato.benchmarks.replies ")
    assert {"machine", "versions", "wrong"} <= set(body)
    if "samples" in body["result"]:
        assert [ended for ended, _ in body["result"]["samples"]] == list(range(1, 13))
        assert all(resident > 0 for _, resident in body["result"]["samples"])
    else:
        assert [reply["tokens"] for reply in body["result"]["replies"]] == [20, 20, 20]


@pytest.mark.timeout(120)
def test_cancels_are_all_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "CANCEL_SPREAD", 0.5)
    file = tmp_path / "out.json"
    assert replies.main(["--cancels", "3", "--json", str(file)]) == 0
    result = json.loads(file.read_text())["result"]
    assert len(result["raw_ms"]) == 3
    assert min(result["raw_ms"]) > 0


def test_reader_sees_what_is_lost_repeated_or_cut_short() -> None:
    right, repeated, lost, short = (ReplyReading(name) for name in ("right", "repeated", "lost", "short"))
    for reading, indexes in ((right, (0, 1)), (repeated, (0, 0)), (lost, (0, 2)), (short, (0,))):
        for index in indexes:
            reading.token(index, f"w{index} ", 1.0)
        reading.finish("stream.completed", 2, 2.0)
    failed = ReplyReading("failed", end="stream.failed")
    told = replies.wrong({r.id: r for r in (right, repeated, lost, short, failed)}, "stream.completed")
    assert told == [
        "repeated: token 0 is 'w0 ', where token 1 has to come",
        "lost: token 2 is 'w2 ', where token 1 has to come",
        "short: stream.completed counts 2 tokens, and 1 came",
        "failed: ended with stream.failed",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--replies", "0"], "--replies 0: expected 1 to 1000"),
        (["--jobs", "5", "--at-once", "9999"], "--at-once 9999: expected 1 to 1000"),
        (["--redis", "/no/such/server"], "--redis /no/such/server: there is no such program"),
    ],
)
def test_wrong_option_is_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replies.main(options) == 2
    assert capsys.readouterr().err == f"legato.benchmarks.replies: {said}\n"


async def test_process_that_does_not_start_is_told_with_its_last_line(tmp_path: Path) -> None:
    server = tmp_path / "server"
    server.write_text("#!/bin/sh\necho no such luck\nexit 3\n")
    server.chmod(0o755)
    with pytest.raises(BenchmarkError, match="the redis does not get ready: no such luck"):
        async with stage.stage(str(server), stage.Cast(1)):
            pass


async def test_broadcaster_says_where_its_figures_are() -> None:
    async with stage.stage("", stage.Cast(nodes=1, alone=True)) as on, httpx2.AsyncClient() as client:
        answer = await client.get(on.metrics[0])
    assert "legato_connections_accepted_total 0.0" in answer.text


def test_percentiles_are_values_that_occur() -> None:
    assert [percentile([1, 2, 3, 4], share) for share in (0, 25, 50, 51, 100)] == [1, 1, 2, 3, 4]
    assert percentile([], 50) == 0
    assert milliseconds([0.002, 0.001]) == {"p50": 1.0, "p90": 2.0, "p99": 2.0, "max": 2.0}


def test_use_of_a_process_is_what_the_kernel_says() -> None:
    before = proc.use(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    after = proc.use(os.getpid())
    assert after.cpu > before.cpu
    assert after.resident > 1000
    with pytest.raises(BenchmarkError, match="cannot be read"):
        proc.use(2**30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("options", "figures"),
    [
        (
            ["connections", "--connections", "20"],
            {"connections": 40, "per_subscription.hsetnx": 1, "per_departure.evalsha": 1},
        ),
        (["publish", "--events", "200"], {"events": 200, "per_event.spublish": 1}),
        (["presence", "--members", "20"], {"steps.9.members": 20, "steps.9.per_join.hvals": 1}),
        (["share", "--events", "1000"], {"events": 1000, "channels": [99, 1]}),
    ],
)
def test_scaling_counts_what_redis_is_asked(
    options: list[str], figures: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "IDLE", 0.1)
    file = tmp_path / "out.json"
    assert scaling.main([*options, "--json", str(file)]) == 0
    result = json.loads(file.read_text())["result"]
    for path, expected in figures.items():
        found = result
        for name in path.split("."):
            found = found[int(name)] if isinstance(found, list) else found[name]
        assert found == expected, path


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(["share", "--nodes", "3"], "share has two"), (["presence", "--members", "1"], "expected 10 to 10000")],
)
def test_scaling_that_cannot_be_measured_is_a_line(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scaling.main(options) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.timeout(120)
def test_garbage_tells_the_collections_of_both_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    assert garbage.main(["--connections", "200", "--events", "50", "--json", str(file)]) == 0
    result = json.loads(file.read_text())["result"]
    assert set(result) == {"legato", "python"}
    # 200 clients make some thousand objects: Python looks at every 700, Legato at 20,000.
    assert sum(result["python"]["collections"]) > 5 * sum(result["legato"]["collections"])
    assert result["python"]["pauses_ms"] >= result["python"]["longest_ms"] > 0
    assert "longest_ms" in capsys.readouterr().out


def test_garbage_sums_up_what_was_in_time() -> None:
    found = Collections([1.0, 2.0, 3.0, 9.0], [0.001, 0.003, 0.002, 5.0], [0, 1, 0, 2], [4, 5, 6, 7])
    assert garbage.summed(found, 9.0) == {
        "collections": [2, 1, 0],
        "longest_ms": 3.0,
        "pauses_ms": 6.0,
        "collected": 15,
    }


def test_garbage_that_cannot_be_measured_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert garbage.main(["--connections", "1"]) == 2
    assert capsys.readouterr().err == "legato.benchmarks.garbage: --connections 1: expected 2 to 15000\n"
