"""The benchmark of replies that are read over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from legato.benchmarks import doors
from legato.benchmarks.event_reader import EventReader

if TYPE_CHECKING:
    from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'id: 1\nevent: token.received\ndata: {"token":"event: "}\n\n'


@pytest.mark.timeout(120)
def test_both_kinds_of_readers_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    assert doors.main(["--readers", "5", "--rounds", "1", "--seconds-each", "1", "--json", str(file)]) == 0
    result = json.loads(file.read_text())["result"]
    assert set(result) == {"websocket", "events"}
    for found in result.values():
        (one,) = found["rounds"]
        assert found["median"] == one
        assert 2 < one["events_per_second_and_reader"] < 60  # of a script of 20 a second, on a busy machine
        assert one["cpu_us_per_event_and_reader"] >= 0
    assert "cpu_us_per_event_and_reader" in capsys.readouterr().out


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_counted_however_they_are_cut(size: int) -> None:
    reader = EventReader("/x", "t")
    data = HEAD + EVENT * 3 + b": keep-alive\n\n" + EVENT
    for at in range(0, len(data), size):
        reader.data_received(data[at : at + size])
    await reader.subscribed
    assert reader.received == 4


async def test_reader_that_is_refused_says_so() -> None:
    reader = EventReader("/x", "t")
    reader.data_received(b"HTTP/1.1 404 Not Found\r\n\r\n{}")
    with pytest.raises(ConnectionError, match="404"):
        await reader.subscribed


def test_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert doors.main(["--readers", "0"]) == 2
    assert capsys.readouterr().err == "legato.benchmarks.doors: --readers 0: expected 1 to 5000\n"
