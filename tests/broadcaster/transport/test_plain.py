"""Requests of the plainest kind: what is read without the parser is what the parser reads.

Each bad line is among many good ones, so that it is what the verdict hangs on.
"""

from __future__ import annotations

import asyncio
import base64
import re

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.utils import accept_key

from legato.broadcaster.limits import MAX_CACHED_HEADER_BYTES
from legato.broadcaster.transport import handshake, library
from legato.broadcaster.transport import http11 as http
from legato.broadcaster.transport.fastpath import plain_post, plain_upgrade
from legato.broadcaster.transport.frames import goodbye
from tests.broadcaster.api.test_http_api import EVENTS
from tests.broadcaster.transport.fed import door
from tests.broadcaster.transport.test_http import event, post, signed
from tests.tiers import amount

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MANY = settings(max_examples=amount(200, 10_000))


class Parsed:
    """The parser's result: the complete messages, and whether it could continue in a clean state."""

    def __init__(self, data: bytes) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.fields: list[tuple[bytes, bytes]] = []
        self.goes_on = True
        self.upgrades = False
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.upgrades = upgrade.args[0] == len(data)

    def on_message_begin(self) -> None:
        self.url = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages.append((self.url, self.body))
        self.goes_on = self.parser.should_keep_alive() and not self.parser.should_upgrade()


ODD = [
    b"Content-Length: 4",
    b"Content-Length: +3",
    b"Content-Length : 3",
    b"X-Content-Length: 9",
    b"Connection: close",
    b"Connection: keep-alive, close",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:identity",
    b"Expect: 100-continue",
    b"TE: trailers",
    b" folded: x",
    b"Odd\x00: x",
    b"X: \xff",
    b"X:",
    b"X: y ",
    b"X:\t y\tz",
    b"no colon",
    b"X: a\rContent-Length: 3",
    b"X: a\nContent-Length: 3",
    b"X: a\r\n\r\nGET / HTTP/1.1",
    b"Sec-WebSocket-Key: c2Vjb25kIHNhbXBsZSBrIQ==",
    b"sec-websocket-key: c2Vjb25kIHNhbXBsZSBrIQ==",
    b"SEC-WebSocket-Key:c2Vjb25kIHNhbXBsZSBrIQ==",
    b"Sec-WebSocket-Key: c2Vjb25kIHNhbXBsZSBrIQ==c2Vj",
    b"Sec-WebSocket-Key: c2hvcnQ=",
    b"Sec-WebSocket-Key:  c2Vjb25kIHNhbXBsZSBrIQ==",
    b"Sec-WebSocket-Key: ",
    b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Protocol: pusher-channels-protocol-7",
    b"Origin: https://example.com",
]


def request(starts: list[bytes], lines: list[bytes], ends: list[bytes]) -> st.SearchStrategy[bytes]:
    """A valid request with one or a few oddities."""

    def with_odd(start: bytes, odd: list[bytes], left_out: int, order: st.DataObject, end: bytes) -> bytes:
        kept = [line for number, line in enumerate(lines) if number != left_out] + odd
        return b"\r\n".join([start, *order.draw(st.permutations(kept)), b"", end])

    return st.builds(
        with_odd,
        st.one_of(st.just(starts[0]), st.sampled_from(starts)),
        st.lists(st.sampled_from(ODD), max_size=2),
        st.integers(0, 3 * len(lines)),
        st.data(),
        st.one_of(st.just(ends[0]), st.sampled_from(ends)),
    )


POSTS = request(
    [
        b"POST /apps/1/events?a=b HTTP/1.1",
        b"POST /apps/1/events HTTP/1.0",
        b"POST  /apps/1/events HTTP/1.1",
        b"POST http://x/apps/1/events HTTP/1.1",
        b"POST /apps/1/ev ents HTTP/1.1",
        b"POST /apps/1/\xc3\xa4 HTTP/1.1",
        b"GET /apps/1/channels HTTP/1.1",
        b"post /apps/1/events HTTP/1.1",
    ],
    [b"Host: x", b"Content-Type: application/json", b"Content-Length:\t3", b"Connection: keep-alive"],
    [b"abc", b"", b"abcd", b"abcPOST "],
)
UPGRADES = request(
    [
        b"GET /app/app-key?protocol=7&client=js HTTP/1.1",
        b"GET /app/app-key HTTP/1.0",
        b"GET  /app/app-key HTTP/1.1",
        b"GET http://x/app/app-key HTTP/1.1",
        b"GET /app/app key HTTP/1.1",
        b"GET /app/\xc3\xa4 HTTP/1.1",
        b"POST /app/app-key HTTP/1.1",
        b"get /app/app-key HTTP/1.1",
    ],
    [
        b"Host: x",
        b"Upgrade: WebSocket",
        b"Connection: keep-alive, Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + KEY,
    ],
    [b"", b"\x81\x80abcd", b"GET / HTTP/1.1\r\n\r\n"],
)


@given(POSTS)
@MANY
def test_a_plain_post_is_read_as_by_the_parser(data):
    plain = plain_post(data)
    assert plain == plain_post(data)  # what is remembered says the same
    if plain is not None:
        parsed = Parsed(data)
        assert parsed.messages == [plain]
        assert parsed.goes_on
        names = [name for name, _ in parsed.fields]
        assert not {b"expect", b"transfer-encoding", b"upgrade"} & set(names)
        assert names.count(b"content-length") == 1


@given(UPGRADES)
@MANY
def test_a_plain_upgrade_is_read_as_by_the_parser(data):
    plain = plain_upgrade(data)
    if plain is not None:
        parsed = Parsed(data)
        assert parsed.upgrades
        assert parsed.parser.get_method() == b"GET"
        assert parsed.parser.get_http_version() == "1.1"
        assert (parsed.url, parsed.fields) == plain
        assert not parsed.body
        names = [name for name, _ in parsed.fields]
        assert len(names) == len(set(names))
        assert not {b"expect", b"transfer-encoding", b"content-length"} & set(names)
        assert dict(parsed.fields)[b"upgrade"].lower() == b"websocket"


@given(UPGRADES)
@MANY
def test_the_fast_path_answers_as_the_parser_path(data):
    found = handshake.at_once(data)
    assert found == handshake.at_once(data)  # what is remembered says the same
    if found is not None:
        parsed = Parsed(data)
        assert parsed.upgrades
        judged = handshake._by_library(parsed.parser.get_method(), parsed.url, parsed.fields)
        assert judged.accepted
        assert set(found[0].splitlines()) <= set(judged.response.splitlines())  # which has a date, too
        assert found[1] == handshake.asked(parsed.url, parsed.fields)


@pytest.mark.parametrize("name", [b"Sec-WebSocket-Key", b"sec-websocket-key"])
@pytest.mark.parametrize("more", [b"", b"X: " + b"x" * 900 + b"\r\nY: " + b"y" * 900 + b"\r\n"])
def test_each_key_gets_its_own_answer(name, more):
    """However much of the request is cached."""
    for nonce in (b"0123456789abcdef", b"fedcba9876543210", b"0123456789abcdef"):
        key = base64.b64encode(nonce)
        data = FIREFOX[:-2].replace(b"Sec-WebSocket-Key: " + KEY, name + b": " + key) + more + b"\r\n"
        found = handshake.at_once(data)
        assert found is not None
        assert accept_key(key.decode()).encode() in found[0]
        assert found[1] == (
            "/app/app-key",
            {"protocol": "7", "client": "js", "version": "8.4.0", "flash": "false"},
            "https://example.com",
            "",
        )


def test_requests_of_sdks_are_plain():
    body = event("plain")
    assert plain_post(post(body)) == (signed(EVENTS, body).encode(), body)
    assert (
        plain_post(post(body, "Connection: Keep-Alive", "User-Agent: x/1 (y; z)", "Accept: */*")) is not None
    )


def test_fields_too_long_for_the_cache_are_read():
    body = event("long")
    field = "X: " + "y" * MAX_CACHED_HEADER_BYTES
    assert plain_post(post(body, field)) == (signed(EVENTS, body).encode(), body)
    assert plain_post(post(body, field, "Content-Length: 1")) is None


FIREFOX = b"\r\n".join(
    [
        b"GET /app/app-key?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1",
        b"Host: ws.example.com",
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        b"Accept: */*",
        b"Accept-Language: de,en-US;q=0.7,en;q=0.3",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Sec-WebSocket-Version: 13",
        b"Origin: https://example.com",
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"Sec-WebSocket-Key: " + KEY,
        b"Connection: keep-alive, Upgrade",
        b"Pragma: no-cache",
        b"Cache-Control: no-cache",
        b"Upgrade: websocket",
        b"",
        b"",
    ]
)


def test_requests_of_browsers_are_plain():
    found = plain_upgrade(FIREFOX)
    assert found is not None
    target, fields = found
    assert target == b"/app/app-key?protocol=7&client=js&version=8.4.0&flash=false"
    assert (b"origin", b"https://example.com") in fields
    assert len(fields) == 13


def test_incomplete_or_unusual_upgrades_are_not_plain():
    assert plain_upgrade(FIREFOX.replace(b"Upgrade: websocket", b"Upgrade: h2c")) is None
    assert plain_upgrade(FIREFOX[:-2] + b"ab") is None
    assert [cut for cut in range(len(FIREFOX)) if plain_upgrade(FIREFOX[:cut]) is not None] == []


# --- the protocols that are behind it


async def _said(reads: tuple[bytes, ...]) -> tuple[bytes, bool, int]:
    """All answers, whether the connection ends then, and the number of WebSockets."""
    async with door() as opened:
        one = opened.come()
        for read in reads:
            one.read(read)
            await opened.calm()
        written = re.sub(rb"Date: [^\r]*\r\n", b"", one.written)
        found = written, one.ended, len(opened.node.clients.open)
        one.protocol.connection_lost(None)
        assert not opened.node.clients.open
        assert not opened.state.connections
        return found


def said(*reads: bytes) -> tuple[bytes, bool, int]:
    with asyncio.Runner() as runner:
        return runner.run(_said(reads))


@given(UPGRADES)
@settings(max_examples=amount(80, 3_000), deadline=None)
def test_a_request_is_answered_the_same_if_it_arrives_in_two_reads(data):
    """Then the parser reads it."""
    at_once, parsed = said(data), said(data[:1], data[1:])
    assert at_once == parsed


@pytest.mark.parametrize(
    "field",
    [
        b"Sec-WebSocket-Key: c2hvcnQ=",
        b"Sec-WebSocket-Key: " + KEY + b"c2Vj",
        b"Sec-WebSocket-Key: " + b"?" * 24,
        b"Sec-WebSocket-Key: " + KEY[:12] + b" " + KEY[12:],
        b"Sec-WebSocket-Key: ",
        b"Sec-WebSocket-Keys: " + KEY,
        b"X: y",
        b"X: y\r\nSec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Key: \r\nX: " + KEY,
    ],
)
def test_an_invalid_key_is_refused(field):
    data = FIREFOX.replace(b"Sec-WebSocket-Key: " + KEY, field)
    assert handshake.at_once(data) is None
    written, ended, there = said(data)
    assert (written[:13], ended, there) == (b"HTTP/1.1 400 ", True, 0)


def test_an_upgrade_is_answered_the_same_wherever_it_is_cut():
    at_once = said(FIREFOX)
    assert at_once[0].startswith(b"HTTP/1.1 101 ")
    assert at_once[0].endswith(b'"{\\"socket_id\\":\\"1.2\\",\\"activity_timeout\\":120}"}')
    assert at_once[1:] == (False, 1)
    for cut in range(1, len(FIREFOX), 11):
        assert said(FIREFOX[:cut], FIREFOX[cut:]) == at_once


def masked(opcode: int, payload: bytes, mask: bytes) -> bytes:
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes((opcode,)) + length + mask + body


CLOSES = st.builds(
    masked,
    st.sampled_from([0x88, 0x88, 0x88, 0x89, 0x08, 0xC8]),
    st.one_of(st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9", b"\x03\xed"]), st.binary(max_size=4)),
    st.binary(min_size=4, max_size=4),
)


@given(CLOSES, st.sampled_from([b"", b"\x88", b"\x81\x80abcd"]))
@settings(max_examples=amount(80, 3_000), deadline=None)
def test_a_close_frame_is_answered_the_same_if_it_arrives_in_two_reads(frame, more):
    """Then the library reads it."""
    data = frame + more
    assert said(FIREFOX, data) == said(FIREFOX, data[:1], data[1:])


def test_usual_connections_need_neither_parser_nor_library(monkeypatch):
    def needed(*_args: object, **_options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(http, "parse_head", needed)
    monkeypatch.setattr(library, "Protocol", needed)
    written, ended, there = said(FIREFOX, masked(0x88, b"\x03\xe9", b"mask"))
    assert written.startswith(b"HTTP/1.1 101 ")
    assert (written[-4:], ended, there) == (b"\x88\x02\x03\xe9", True, 0)


SUBPROTOCOL = b"Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n\r\n"


@pytest.mark.parametrize("request_", [FIREFOX, FIREFOX[:-2] + SUBPROTOCOL], ids=["plain", "judged"])
def test_frames_in_one_segment_with_the_handshake_are_read(request_):
    """However the segment is cut, and whatever kind the frames are."""
    ping = masked(0x81, b'{"event":"pusher:ping"}', b"mask")
    frames = ping + masked(0x89, b"?", b"mask") + ping
    for cut in (0, 1, len(request_) - 1, len(request_), len(request_) + 3):
        data = request_ + frames
        written, ended, there = said(*filter(None, (data[:cut], data[cut:])))
        assert [written.count(b"pusher:pong"), written.count(b"\x8a\x01?")] == [2, 1], cut
        assert (ended, there) == (False, 1)


@pytest.mark.parametrize("code", [b"", b"\x03\xe8", b"\x03\xe9"])
def test_a_plain_close_frame_is_answered_without_the_library(code):
    assert goodbye(masked(0x88, code, b"mask")) == bytes((0x88, len(code))) + code
    written, ended, there = said(FIREFOX, masked(0x88, code, b"mask"))
    assert (written[-2 - len(code) :], ended, there) == (bytes((0x88, len(code))) + code, True, 0)


@pytest.mark.parametrize(
    "data", [b"\x88\x02abcdef", b"\x88\x80abcdef", b"\x88\x82abcd", b"\x08\x80abcd", b""]
)
def test_other_close_frames_are_left_to_the_library(data):
    assert goodbye(data) is None
