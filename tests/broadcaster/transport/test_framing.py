"""HTTP framing gives the same messages as the parser, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legato.broadcaster.limits import MAX_HEAD_BYTES, MAX_HEADER_FIELDS
from legato.broadcaster.transport.framing import (
    Chunked,
    FramingRefusal,
    Sized,
    body_of,
    parse_head,
    take_head,
)
from tests.tiers import amount

HEAD = b"POST /a?b HTTP/1.1\r\nHost: x\r\n"
MOST = 65_536


class Parsed:
    """The result of llhttp for a message with its body."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.complete = False
        httptools.HttpRequestParser(self).feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def read(body: Sized | Chunked, pieces: list[bytes], most: int = MOST) -> tuple[bytes, bytes]:
    """The content, and the bytes after the body."""
    unread, content = bytearray(), b""
    for piece in pieces:
        unread += piece
        while not body.done:
            before = len(unread)
            content += body.take(unread, most)
            if len(unread) == before:
                break
    return content, bytes(unread)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


CHUNKS = st.lists(
    st.builds(
        lambda content, extension, zeros: b"%b%x%b\r\n%b\r\n" % (zeros, len(content), extension, content),
        st.binary(min_size=1, max_size=40),
        st.sampled_from([b"", b";a", b';a="b c"', b";x=y;z"]),
        st.sampled_from([b"", b"0", b"00"]),
    ),
    max_size=6,
)
TRAILERS = st.lists(st.sampled_from([b"X: y\r\n", b"Y:\r\n", b"Z: \xff\r\n"]), max_size=3)


@given(CHUNKS, TRAILERS, st.binary(max_size=9), st.lists(st.integers(0, 400)), st.integers(1, 50))
@settings(max_examples=amount(200, 10_000))
def test_chunks_are_read_as_by_the_parser(chunks, trailers, behind, places, most):
    whole = b"".join([*chunks, b"0\r\n", *trailers, b"\r\n"])
    body = Chunked(MAX_HEAD_BYTES)
    content, left = read(body, cut(whole + behind, places), most)
    parsed = Parsed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + whole)
    assert (body.done, parsed.complete) == (True, True)
    assert (content, left) == (parsed.body, behind)


@given(st.binary(max_size=60), st.lists(st.integers(0, 100)))
def test_no_bytes_are_chunks_that_are_not_chunks_for_the_parser(data, places):
    body = Chunked(MAX_HEAD_BYTES)
    try:
        content, _ = read(body, cut(data, places))
    except FramingRefusal:
        return
    if body.done:
        parsed = Parsed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + data)
        assert (parsed.complete, parsed.body) == (True, content)


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 ;a\r\n",
        b"1;\r\n",
        b"1;a=\r\n",
        b"1 1\r\n",
        b"123456789\r\n",
        b"1\na\r\n",
        b"1;\n\r\na\r\n",
        b"1\r\nabc",
        b"1\r\na\n00",
        b"0\r\nno colon\r\n",
        b"0\r\n folded: x\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
    ],
)
def test_invalid_chunks_are_refused(data):
    with pytest.raises(FramingRefusal) as refused:
        read(Chunked(MAX_HEAD_BYTES), [data])
    assert refused.value.status == 400


def refusal(body: Chunked, data: bytes, piece: int) -> tuple[int, int]:
    """The status of the refusal, and the number of bytes received by then."""
    unread = bytearray()
    for at in range(0, len(data), piece):
        unread += data[at : at + piece]
        try:
            body.take(unread, MOST)
        except FramingRefusal as refused:
            return refused.status, at + piece
    raise AssertionError


@pytest.mark.parametrize("piece", [1, 700])
@pytest.mark.parametrize(
    "endless",
    [
        b"0\r\n" + b"X: y\r\n" * 400,
        b"0\r\nX: " + b"y" * 9000,
        b"1;x=" + b"y" * 9000,
        (b"1;" + b"x" * 40 + b"\r\na\r\n") * 90,
        b"0" * 9000,
    ],
)
def test_extensions_and_trailers_have_a_bound(endless, piece):
    """Counted on arrival, also in a line that does not end."""
    status, came = refusal(Chunked(500), endless, piece)
    assert (status, came <= 700 * 2) == (431, True)


@given(st.binary(max_size=50), st.integers(0, 60), st.lists(st.integers(0, 100)))
def test_a_body_has_its_announced_length(data, length, places):
    body = Sized(length)
    content, left = read(body, cut(data, places), 7)
    assert (content, left) == (data[:length], data[length:])
    assert body.done == (len(data) >= length)


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\n", b"\r\n\r\n"])
def test_a_head_is_found_however_the_bytes_are_cut(before):
    head = HEAD + b"\r\n"
    unread, searched = bytearray(), 0
    for byte in before + head:
        assert take_head(unread, searched) is None
        searched = len(unread)
        unread.append(byte)
    unread += b"rest"
    assert take_head(unread, searched) == head
    assert unread == b"rest"


def test_endless_empty_lines_are_refused():
    head = take_head(bytearray(b"\r\n" * 1000 + HEAD + b"\r\n"))
    assert head is not None
    with pytest.raises(FramingRefusal):
        parse_head(head)


def test_the_size_of_a_head_is_bounded():
    fill = b"X: " + b"y" * (MAX_HEAD_BYTES - len(HEAD) - 7) + b"\r\n"
    assert take_head(bytearray(HEAD + fill + b"\r\n")) is not None
    for large in (
        HEAD + b"X" + fill + b"\r\n",
        HEAD + b"x" * MAX_HEAD_BYTES,
        HEAD + b"a:b\r\n" * MAX_HEADER_FIELDS + b"\r\n",
    ):
        with pytest.raises(FramingRefusal) as refused:
            take_head(bytearray(large))
        assert refused.value.status == 431
    assert take_head(bytearray(HEAD + b"a:b\r\n" * (MAX_HEADER_FIELDS - 1) + b"\r\n")) is not None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: +3\r\n", 400),
        (b"Content-Length:\r\n", 400),
        (b"Content-Length: 99999999999999999999999\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
        (b"Transfer-Encoding: x\r\n", 400),
        (b"a b: c\r\n", 400),
        (b"a: b\n", 400),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", 400),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", 400),
    ],
)
def test_ambiguous_heads_are_refused(fields, status):
    with pytest.raises(FramingRefusal) as refused:
        parse_head(HEAD + fields + b"\r\n")
    assert refused.value.status == status


def test_version_1_0_has_no_chunks_and_no_upgrades():
    head = HEAD.replace(b"1.1", b"1.0")
    with pytest.raises(FramingRefusal):
        parse_head(head + b"Transfer-Encoding: chunked\r\n\r\n")
    assert not parse_head(head + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n").websocket
    assert not parse_head(head + b"Expect: 100-continue\r\n\r\n").expects


@pytest.mark.parametrize(
    ("fields", "websocket"),
    [
        (b"Upgrade: websocket\r\nConnection: Upgrade\r\n", True),
        (b"Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n", True),
        (b"Upgrade: websocket\r\n", False),
        (b"Upgrade: h2c\r\nConnection: Upgrade\r\n", False),
        (b"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", False),
        (b"Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n", False),
    ],
)
def test_only_upgrades_to_websocket_alone_count(fields, websocket):
    assert parse_head(HEAD + fields + b"\r\n").websocket is websocket


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"CONNECT"])
def test_the_body_of_a_foreign_upgrade_stays_a_body(method):
    target = b"x:1" if method == b"CONNECT" else b"/"
    head = method + b" " + target + b" HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    sized = body_of(parse_head(head + b"Content-Length: 7\r\n\r\n"))
    assert isinstance(sized, Sized)
    assert sized.left == 7
    assert isinstance(body_of(parse_head(head + b"Transfer-Encoding: chunked\r\n\r\n")), Chunked)
    assert body_of(parse_head(head + b"\r\n")) is None
