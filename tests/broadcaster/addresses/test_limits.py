"""Limits by address, as clients and back ends meet them."""

from __future__ import annotations

import json

import jwt
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from legato.broadcaster.composition import _measured
from legato.broadcaster.config import Auth, Server, load
from legato.broadcaster.observability.metrics import NodeCollector
from legato.protocol.apps import App
from legato.protocol.settings import SettingsError
from tests.broadcaster.api.test_http_api import EVENTS, signed
from tests.broadcaster.auth.test_auth import SECRET, bearer
from tests.broadcaster.conftest import APP, local_settings
from tests.broadcaster.transport.fed import door
from tests.broadcaster.transport.test_http import event, post
from tests.broadcaster.transport.test_plain import FIREFOX, masked

PROXY = "10.0.0.1"
ORIGIN = "https://chat.example.com"


def limited(**limits: int):
    server = Server(
        port=0, drain_seconds=0, trusted_proxies=("10.0.0.0/8",), cors_origins=(ORIGIN,), **limits
    )
    return local_settings(server=server, auth=Auth(jwt_secret=SECRET))


def upgrade(said: str = "", more: bytes = b"") -> bytes:
    """A handshake, with ``X-Forwarded-For``."""
    field = f"X-Forwarded-For: {said}\r\n".encode() if said else b""
    return FIREFOX[:-2] + field + more + b"\r\n"


def connected(opened, request: bytes, peer: str = PROXY):
    """A connection, and the code that it was refused with; None if it was not."""
    one = opened.come(peer)
    one.read(request)
    assert one.written.startswith(b"HTTP/1.1 101 ")
    told = one.written.partition(b"\r\n\r\n")[2]
    if b"pusher:connection_established" in told:
        return one, None
    return one, json.loads(told[2 : 2 + told[1]])["data"]["code"]


@pytest.mark.parametrize("more", [b"", b"X-Forwarded-Proto: http\r\nSec-WebSocket-Protocol: pusher\r\n"])
async def test_connections_of_one_address_at_once(more):
    """Those of a client behind a proxy, whichever part of the server reads the handshake."""
    async with door(limited(max_connections_per_address=2)) as opened:
        one, code = connected(opened, upgrade("203.0.113.9", more))
        assert code is None
        assert connected(opened, upgrade("198.51.100.1, 203.0.113.9", more))[1] is None
        assert connected(opened, upgrade("198.51.100.1, 203.0.113.9", more))[1] == 4100
        assert connected(opened, upgrade("203.0.113.8", more))[1] is None
        assert connected(opened, upgrade("203.0.113.7", more), "203.0.113.9")[1] == 4100
        one.read(masked(0x88, b"\x03\xe9", b"mask"))
        assert connected(opened, upgrade("203.0.113.9", more))[1] is None
        assert opened.node.connections.refused == {4100: 2}


async def test_who_is_refused_for_another_reason_holds_no_place():
    async with door(limited(max_connections_per_address=1)) as opened:
        unknown = upgrade().replace(b"/app/app-key", b"/app/nope")
        assert [connected(opened, unknown)[1] for _ in range(3)] == [4001] * 3
        assert connected(opened, upgrade())[1] is None
        assert len(opened.node.addresses.gate) == 1


async def test_a_client_under_the_quota_of_its_application_holds_one_place():
    settings = limited(max_connections_per_address=1)
    app = App(APP.id, APP.key, APP.secret, max_connections=5)
    async with door(local_settings(app, server=settings.server)) as opened:
        one = opened.come(PROXY)
        one.read(upgrade())
        assert b"pusher:connection_established" in one.written
        assert connected(opened, upgrade())[1] == 4100
        one.read(masked(0x88, b"\x03\xe9", b"mask"))
        assert not len(opened.node.addresses.gate)


async def test_new_connections_of_one_address_per_minute():
    async with door(limited(max_new_connections_per_address=2)) as opened:
        for _ in range(2):
            one, code = connected(opened, upgrade("2001:db8:1:2::1"))
            assert code is None
            one.read(masked(0x88, b"\x03\xe9", b"mask"))
        assert connected(opened, upgrade("2001:db8:1:2:ffff::1"))[1] == 4100  # of the same network
        assert connected(opened, upgrade("2001:db8:1:3::1"))[1] is None


async def test_sessions_over_http_count_as_well():
    async with door(limited(max_connections_per_address=1)) as opened:
        assert connected(opened, upgrade("203.0.113.9"))[1] is None
        for address, answer in (("203.0.113.9", b"4100"), ("203.0.113.8", b"connection_established")):
            one = opened.come(PROXY)
            one.read(
                f"POST /pusher/app/app-key/1/abcdefg{address[-1]}/xhr?protocol=7 HTTP/1.1\r\nHost: x\r\n"
                f"X-Forwarded-For: {address}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            await opened.calm()
            assert answer in one.written


def forged(said: str, form: str) -> bytes:
    """An event with a wrong signature."""
    good = post(event("a"), f"X-Forwarded-For: {said}")
    return in_form(good.replace(b"auth_signature=", b"auth_signature=0", 1), form)


def in_form(request: bytes, form: str) -> bytes:
    if form == "parser":
        return request.replace(b"Host:", b"Expect: \r\nHost:", 1)
    return request.replace(b"POST /", b"POST http://x/", 1) if form == "absolute" else request


@pytest.mark.parametrize("form", ["plain", "parser", "absolute"])
async def test_wrong_signatures_of_one_address(form):
    async with door(limited(max_failed_signatures_per_address=2)) as opened:

        async def answer(request: bytes) -> bytes:
            one = opened.come(PROXY)
            one.read(request)
            await opened.calm()
            return one.written

        good = in_form(post(event("a"), "X-Forwarded-For: 203.0.113.9"), form)
        for request in (forged("203.0.113.9", form), good, forged("203.0.113.9", form)):
            assert (await answer(request)).split()[1] == (b"200" if request is good else b"401")
        for request in (forged("203.0.113.9", form), good):
            told = await answer(request)
            head, body = told.lower().split(b"\r\n\r\n")
            assert head.startswith(b"http/1.1 429 ")
            assert b"retry-after: 30" in head.split(b"\r\n")
            assert json.loads(body) == {"error": "too many wrong signatures from your address", "code": 429}
        assert (await answer(in_form(post(event("a"), "X-Forwarded-For: 203.0.113.8"), form))).split()[
            1
        ] == b"200"
        assert opened.node.requests["events", 429] == 2
        assert opened.node.requests["events", 401] == 2


async def test_a_wrong_signature_is_counted_before_its_body_has_come():
    async with door(limited(max_failed_signatures_per_address=1)) as opened:
        head = f"POST {signed(EVENTS, b'')}x HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n".encode()
        for status in (b"401", b"429"):
            one = opened.come("203.0.113.9")
            one.read(head)
            assert one.written.split()[1] == status


def authorise(said: str, token: str) -> bytes:
    body = b"socket_id=1.2&channel_name=private-ai-chat.7"
    return (
        f"POST /broadcasting/auth HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {said}\r\nOrigin: {ORIGIN}\r\n"
        f"Authorization: {token}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def test_wrong_tokens_of_one_address():
    async with door(limited(max_failed_tokens_per_address=2)) as opened:

        async def answer(request: bytes) -> bytes:
            one = opened.come(PROXY)
            one.read(request)
            await opened.calm()
            return one.written.lower()

        good, wrong = bearer({"sub": "7"}), "Bearer " + jwt.encode({"sub": "7"}, SECRET[::-1], "HS256")
        nothing = authorise("203.0.113.9", "x").replace(b"Authorization", b"X-Nothing")
        for _ in range(3):
            assert (await answer(nothing)).split()[1] == b"401"  # no token, no attempt
        for token, status in ((wrong, b"401"), (good, b"200"), (wrong, b"401")):
            assert (await answer(authorise("203.0.113.9", token))).split()[1] == status
        for token in (wrong, good):
            told = await answer(authorise("203.0.113.9", token))
            head, body = told.split(b"\r\n\r\n")
            assert head.startswith(b"http/1.1 429 ")
            assert b"retry-after: 30" in head.split(b"\r\n")
            assert f"access-control-allow-origin: {ORIGIN}".encode() in head.split(b"\r\n")
            assert json.loads(body) == {"message": "too many wrong tokens from your address."}
        assert (await answer(authorise("203.0.113.8", good))).split()[1] == b"200"
        assert (await answer(nothing)).split()[1] == b"401"
        reading = b"GET /up?token=x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
        assert (await answer(reading)).split()[1] == b"429"
        assert (await answer(reading.replace(b"token", b"t"))).split()[1] == b"200"


async def test_a_neighbour_on_this_machine_is_no_proxy_unless_it_is_named():
    async with door(limited(max_failed_tokens_per_address=1)) as opened:
        for number, status in enumerate((b"401", b"429")):
            one = opened.come("127.0.0.1")
            one.read(authorise(f"203.0.113.{number}", "Bearer x"))
            await opened.calm()
            assert one.written.split()[1] == status


async def test_refusals_are_in_the_metrics():
    async with door(limited(max_connections_per_address=1)) as opened:
        registry = CollectorRegistry()
        registry.register(NodeCollector(_measured(opened.node)))
        connected(opened, upgrade())
        connected(opened, upgrade())
        line = 'legato_address_refusals_total{limit="max_connections_per_address"} 1.0'
        assert line in generate_latest(registry).decode().splitlines()


async def test_nothing_is_limited_by_default():
    """Behind a proxy that is not trusted, all clients have one address."""
    async with door(local_settings()) as opened:
        assert opened.node.context.addresses.callers is None
        assert [connected(opened, upgrade())[1] for _ in range(50)] == [None] * 50


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8': expected an address or a network, as 10.0.0.0/8"),
        ("10.0.0.1,proxy", "'proxy': expected an address or a network, as 10.0.0.0/8"),
        ("*", r"'\*': expected an address or a network, as 10.0.0.0/8"),
        (",".join(["10.0.0.1"] * 257), "expected at most 256"),
    ],
)
def test_what_is_no_proxy_stops_the_start(value, reason):
    app = {"LEGATO_APP_ID": "1", "LEGATO_APP_KEY": "k", "LEGATO_APP_SECRET": "s"}
    with pytest.raises(SettingsError, match=f"trusted_proxies: {reason}"):
        load(object(), app | {"LEGATO_SERVER_TRUSTED_PROXIES": value})
