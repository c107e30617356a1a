"""Frames in raw bytes: nothing is lost however bytes are cut, and what is missing in a stream is seen."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.benchmarks.load import frames, stamp
from legato.benchmarks.load.histogram import BucketCounts
from legato.benchmarks.load.orders import GeneratorCounts
from legato.benchmarks.load.tally import FEW, StreamPosition, Tally


def server_frame(payload: bytes, opcode: int = frames.TEXT) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes([size])
    elif size < 65536:
        head = b"\x7e" + size.to_bytes(2)
    else:
        head = b"\x7f" + size.to_bytes(8)
    return bytes([0x80 | opcode]) + head + payload


def event(stream: int, sequence: int, time: int = 1, size: int = 40, *, data_first: bool = False) -> bytes:
    fields = {"event": "bench", "channel": "c", "data": stamp.written(stream, sequence, time, size)}
    return json.dumps(dict(reversed(fields.items())) if data_first else fields).encode()


EVENTS = st.tuples(
    st.integers(0, 0xFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 2**55),
    st.sampled_from([0, 31, 90, 91, 200, 65_000, 70_000]),
    st.booleans(),
)
OTHERS = st.tuples(
    st.sampled_from([frames.TEXT, frames.PING, frames.CLOSE]),
    st.binary(max_size=300).filter(lambda b: b"LGT" not in b),
)


@given(st.lists(st.one_of(EVENTS, OTHERS), max_size=12), st.data())
def test_all_is_found_however_bytes_are_cut(items: list[tuple], data: st.DataObject) -> None:
    sent = b"".join(
        server_frame(item[1], item[0])
        if len(item) == 2
        else server_frame(event(*item[:4], data_first=item[4]))
        for item in items
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    reader, tail, times, others = frames.PieceReader(), b"", [], []
    runs: list[frames.EventRun] = []
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        piece = reader.read(tail + sent[begin:end])
        tail = (tail + sent[begin:end])[piece.used :]
        times += piece.times
        others += piece.others
        runs += piece.runs
    assert tail == b""
    assert times == [item[2] for item in items if len(item) == 5]
    assert others == [item for item in items if len(item) == 2]
    assert sum(run.last - run.first + 1 for run in runs) == len(times)


def test_events_of_a_stream_that_follow_each_other_are_one_run() -> None:
    sent = [(1, 0), (2, 7), (1, 1), (2, 8), (1, 3), (1, 2)]
    piece = frames.take_apart(b"".join(server_frame(event(*item)) for item in sent))
    assert piece.runs == ((1, 0, 1), (2, 7, 8), (1, 3, 3), (1, 2, 2))


def test_same_bytes_are_taken_apart_once_and_memory_is_bounded() -> None:
    reader = frames.PieceReader()
    data = server_frame(event(1, 0))
    assert reader.read(data) is reader.read(bytes(bytearray(data)))
    alike = [server_frame(b" " * 140 + event(1, number)) for number in (1, 2)]
    assert [reader.read(other).runs for other in alike] == [((1, 1, 1),), ((1, 2, 2),)]
    for number in range(frames.REMEMBERED * 3):
        assert reader.read(server_frame(event(1, number))).runs == ((1, number, number),)
    assert len(reader._known) <= frames.REMEMBERED


@pytest.mark.parametrize(
    ("came", "gaps", "backwards"),
    [
        ([0, 1, 2], 0, 0),
        ([0, 2], 1, 0),
        ([1, 2], 1, 0),
        ([0, 4, 5], 3, 0),
        ([0, 1, 1, 2], 0, 1),
        ([0, 2, 1, 3], 1, 1),
        ([0, 1, 2, 0, 1, 2, 3], 0, 3),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_what_is_missing_repeated_or_out_of_order_is_seen(
    came: list[int], gaps: int, backwards: int, together: bool
) -> None:
    sent = [server_frame(event(5, number)) for number in came]
    place, counts = StreamPosition(late=False), GeneratorCounts()
    for data in [b"".join(sent)] if together else sent:
        place.follow(frames.take_apart(data), counts)
    assert (counts.gaps, counts.backwards) == (gaps, backwards)


def test_who_comes_late_misses_no_beginning_but_all_that_follows() -> None:
    place, counts = StreamPosition(late=True), GeneratorCounts()
    for number in (6, 7, 9):
        place.follow(frames.take_apart(server_frame(event(5, number))), counts)
    assert (counts.gaps, counts.backwards) == (1, 0)


@given(
    st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), min_size=1, max_size=5),
    st.lists(st.integers(10**6, 2 * 10**6), min_size=1, max_size=5),
)
def test_latency_of_every_delivery_is_counted_to_32_microseconds(
    pieces: list[list[int]], arrivals: list[int]
) -> None:
    tally, expected = Tally(), []
    for moments in pieces:
        piece = frames.take_apart(b"".join(server_frame(event(1, n, m)) for n, m in enumerate(moments)))
        for arrival in arrivals:
            tally.delivered(piece, arrival)
        together = 0 if len(moments) <= FEW else 31
        expected += [(a | together) - m for a in arrivals for m in moments]
    wanted = BucketCounts()
    for value in expected:
        wanted.record(value)
    for _ in range(2):  # asking changes nothing
        assert tally.told().histograms == {"latency": wanted.counts}
        assert tally.counts.received == len(expected)


def test_clients_at_the_same_place_share_it_and_a_stalled_one_keeps_nothing_alive() -> None:
    pieces = [frames.take_apart(server_frame(event(5, number))) for number in (0, 1, 3, 4)]
    one, other, stalled = (StreamPosition(late=False) for _ in range(3))
    counts = GeneratorCounts()
    first = stalled._state
    for piece in pieces:
        one.follow(piece, counts)
        other.follow(piece, counts)
        assert one._state is other._state
    assert (counts.gaps, counts.backwards) == (2, 0)
    reached = weakref.ref(one._state)
    del one, other
    gc.collect()
    assert reached() is None
    assert stalled._state is first


@given(st.binary(max_size=1000))
def test_client_frame_has_the_text_as_it_is(text: bytes) -> None:
    frame = frames.client_frame(text)
    assert frame[0] == 0x81
    assert frame[1] & 0x80
    assert frame.endswith(b"\0\0\0\0" + text)
    size = frame[1] & 127
    assert (size if size < 126 else int.from_bytes(frame[2:4])) == len(text)
