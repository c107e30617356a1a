"""Server-sent events: what the specification says, however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from legato.worker.providers import sse
from legato.worker.providers.sse import ServerEvent, SseReader


def read(*pieces: bytes) -> list[ServerEvent]:
    reader = SseReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"event: a\ndata: {}\n\n", [(b"a", b"{}")]),
        (b"event:a\ndata:{}\n\n", [(b"a", b"{}")]),
        (b"data:  two spaces\n\n", [(b"", b" two spaces")]),
        (b"data: one\ndata: two\n\n", [(b"", b"one\ntwo")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data: a:b\n\n", [(b"", b"a:b")]),
        (b"event: a\n\n", [(b"a", b"")]),
        (b"event: a\nevent: b\ndata: x\n\n", [(b"b", b"x")]),
        (b"event: a\ndata: x\n\ndata: y\n\n", [(b"a", b"x"), (b"", b"y")]),
        (b": a comment\nid: 1\nretry: 5\nunknown: u\nnothing\ndata: x\n\n", [(b"", b"x")]),
        (b": ping\n\n\n\n", []),
        (b"\xef\xbb\xbfdata: x\n\n", [(b"", b"x")]),
        (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [(b"", b"x")]),
        (b"event: a\r\ndata: x\r\ndata: y\r\n\r\n", [(b"a", b"x\ny")]),
        (b"data: x\r\n\r\ndata: y\r\rdata: z\n\n", [(b"", b"x"), (b"", b"y"), (b"", b"z")]),
        ("data: \u2028 \x0b \x85\n\n".encode(), [(b"", "\u2028 \x0b \x85".encode())]),
        (b"data: x\n\ndata: unfinished", [(b"", b"x")]),
        (b"data: x\n\ndata: unfinished\n", [(b"", b"x")]),
    ],
)
def test_stream_is_read_as_the_specification_says(stream: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert read(stream) == events
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == events


def test_event_is_there_with_its_last_byte() -> None:
    """The next bytes may take long to come, also those of a line end."""
    assert [len(SseReader().feed(b"data: x" + end)) for end in (b"\n\n", b"\r\r", b"\r\n\r", b"\n")] == [
        1,
        1,
        1,
        0,
    ]


WORDS = st.sampled_from(
    [
        b"event",
        b"data",
        b"id",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"x",
        b"\xef\xbb\xbf",
        "é".encode(),
    ]
)


@given(st.lists(WORDS, max_size=40), st.data())
@example([b"data", b":", b"x", b"\r\n", b"\r\n"], None)
def test_events_do_not_depend_on_where_the_bytes_are_cut(
    words: list[bytes], data: st.DataObject | None
) -> None:
    stream = b"".join(words)
    places = st.lists(st.integers(0, len(stream)), max_size=10).map(sorted)
    cuts = [0, *(data.draw(places) if data else range(len(stream))), len(stream)]
    pieces = [stream[begin:end] for begin, end in itertools.pairwise(cuts)]
    assert read(*pieces) == read(stream)


@pytest.mark.parametrize("piece", [b"x" * 10, b"data: xx\n"])
def test_event_without_an_end_is_not_collected_for_ever(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "SSE_MAX_EVENT_BYTES", 100)
    with pytest.raises(sse.SseError, match="more than 100 bytes"):
        read(*[piece] * 20)


def test_size_is_that_of_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SSE_MAX_EVENT_BYTES", 100)
    assert len(read(*[b": comment\ndata: ", b"x\n\n"] * 50)) == 50
    assert len(read(b"data: ", *[b"x"] * 92, b"\n\n")) == 1, "a line in pieces counts once"
