"""Tokens of a model, measured: a short run comes out whole, and its delays are those of its tokens."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from legato.benchmarks import model_streams, readers
from legato.benchmarks.fake_model import piece

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("versus", "names"),
    [((), {"this"}), (("--versus", sys.executable), {"this", "versus"})],
    ids=["alone", "versus"],
)
def test_short_run_is_complete_and_written_down(
    versus: tuple[str, ...], names: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    size = ["--streams", "3", "--tokens", "8", "--rate", "100", "--rounds", "1"]
    assert model_streams.main([*size, *versus, "--json", str(file)]) == 0
    assert "all complete and in order" in capsys.readouterr().out
    body = json.loads(file.read_text())
    assert body["wrong"] == []
    (result,) = body["result"]
    assert result["streams"] == 3
    assert set(result["rounds"]) == names
    for name, (one,) in result["rounds"].items():
        cost = one["cpu_us_per_token"]
        assert set(cost) == {"redis", "broadcaster", "worker", "readers", "model"}
        servers = cost["worker"] + cost["redis"] + cost["broadcaster"]
        assert one["us_per_token"] > 0
        assert one["us_per_token"] == pytest.approx(servers, abs=0.2)
        assert 0 < one["delay_ms"]["p50"] <= one["delay_ms"]["p99"] <= one["seconds"] * 1000
        assert one["seconds"] >= 8 / 100
        assert one["redis_per_token"]["scripts"] > 1 / 8
        assert one["redis_per_token"]["socket_reads"] > 0
        assert result["median"][name]["us_per_token"] == one["us_per_token"]


def test_readers_expect_what_the_model_says() -> None:
    reading = readers.ReplyReading("m1")
    for index in range(12):
        reading.token(index, piece(index), 0.0)
    assert reading.wrong == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--streams", "16", "0"], "--streams 0: expected 1 to 1000"),
        (["--rate", "1001"], "--rate 1001: expected 1 to 1000"),
        (["--streams", "1000", "--rate", "100"], "--streams x --rate: at most 50000 tokens/s"),
        (["--versus", "/no/python"], "--versus /no/python: there is no such program"),
    ],
)
def test_wrong_option_is_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert model_streams.main(options) == 2
    assert capsys.readouterr().err == f"legato.benchmarks.model_streams: {said}\n"
