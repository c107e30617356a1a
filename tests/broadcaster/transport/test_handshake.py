"""The opening handshake: the fast path answers as the library does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.utils import accept_key

from legato.broadcaster.transport import handshake

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
USUAL = [
    (b"host", b"example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", KEY),
]


def lines(response: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    status, *rest = response.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return status, {name.lower(): value for name, _, value in (line.partition(b": ") for line in rest)}


def changed(name: bytes, *values: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in USUAL if pair[0] != name] + [(name, value) for value in values]


def test_the_example_of_the_rfc():
    response, accepted = handshake.answer(b"GET", b"/app/key", USUAL)
    status, fields = lines(response)
    assert accepted
    assert status == b"HTTP/1.1 101 Switching Protocols"
    assert fields == {
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }
    assert response.endswith(b"\r\n\r\n")


@given(st.binary(min_size=16, max_size=16))
def test_any_key_is_accepted_as_the_library_does(nonce):
    key = base64.b64encode(nonce)
    at_once = handshake.answer(b"GET", b"/", changed(b"sec-websocket-key", key))
    judged = handshake._by_library(b"GET", b"/", changed(b"sec-websocket-key", key))
    assert at_once.accepted
    assert judged.accepted
    for response in (at_once.response, judged.response):
        assert lines(response)[1][b"sec-websocket-accept"] == accept_key(key.decode()).encode()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (b"pusher-channels-protocol-7", b"pusher-channels-protocol-7"),
        (b"a, pusher-channels-protocol-5", b"pusher-channels-protocol-5"),
        (b"mqtt", None),
    ],
)
def test_a_subprotocol_is_chosen_and_never_required(offered, chosen):
    response, accepted = handshake.answer(b"GET", b"/", [*USUAL, (b"sec-websocket-protocol", offered)])
    assert accepted
    assert lines(response)[1].get(b"sec-websocket-protocol") == chosen


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        (b"POST", USUAL, b"405"),
        (b"GET", changed(b"sec-websocket-version", b"8"), b"400"),
        (b"GET", changed(b"sec-websocket-version"), b"400"),
        (b"GET", changed(b"sec-websocket-key"), b"400"),
        (b"GET", changed(b"sec-websocket-key", b"c2hvcnQ="), b"400"),
        (b"GET", changed(b"sec-websocket-key", b"?" * 24), b"400"),
        (b"GET", changed(b"sec-websocket-key", KEY, KEY), b"400"),
    ],
)
def test_an_invalid_handshake_is_refused(method, headers, status):
    response, accepted = handshake.answer(method, b"/app/key", headers)
    assert not accepted
    assert lines(response)[0].split()[1] == status


@pytest.mark.parametrize(
    ("origins", "trusted"), [([], ""), ([b"https://a"], "https://a"), ([b"https://a", b"https://a"], "null")]
)
def test_several_origins_are_not_trusted(origins, trusted):
    fields = [(b"host", b"x"), *((b"origin", origin) for origin in origins)]
    assert handshake.asked(b"/app/key?Protocol=7&a=%20", fields) == (
        "/app/key",
        {"protocol": "7", "a": " "},
        trusted,
        "",
    )
