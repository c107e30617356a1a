"""What the log says of refused clients and requests: one line with a reason, and nothing that is secret."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from legato.broadcaster.api import refusals as api_refusals
from legato.broadcaster.bus.base import BusError
from legato.broadcaster.config import Auth, Metrics, Server, Settings
from legato.broadcaster.transport import polling
from legato.protocol import errors, signatures
from legato.protocol.apps import App
from legato.protocol.jobs import InvalidRequest
from tests.broadcaster.transport.fed import SOCKET_ID, door
from tests.broadcaster.transport.test_plain import masked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tests.broadcaster.transport.fed import Door, Transport

SECRET = "app-secret-that-nobody-may-read"
JWT_SECRET = "a secret of more than thirty-two bytes"
APP = App(
    id="1",
    key="app-key",
    secret=SECRET,
    allowed_origins=("app.example.com",),
    max_presence_members=1,
    max_channels_per_connection=3,
    client_events_per_second=1,
)
ADDRESS = "192.0.2.1:5000"
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{more}"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def settings(app: App = APP, **server: Any) -> Settings:
    return Settings(
        server=Server(port=0, **server),
        metrics=Metrics(enabled=False),
        apps=(app,),
        auth=Auth(jwt_secret=JWT_SECRET),
    )


@pytest.fixture
def lines(caplog) -> Iterator[list[dict[str, Any]]]:
    """The fields of the lines so far, with level and text."""
    caplog.set_level(logging.DEBUG, "legato")
    found: list[dict[str, Any]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if hasattr(record, "fields"):
                more = {"level": record.levelname.lower(), "text": record.getMessage()}
                found.append(record.fields | more)

    handler = Collect()
    logging.getLogger("legato").addHandler(handler)
    yield found
    logging.getLogger("legato").removeHandler(handler)
    told = repr(found)
    assert SECRET not in told
    assert JWT_SECRET not in told
    assert "eyJ" not in told, "a token"


def only(lines: list[dict[str, Any]]) -> dict[str, Any]:
    (line,) = [one for one in lines if "reason" in one]
    return line


def dialled(opened: Door, path: str = "/app/app-key?protocol=7", **headers: str) -> Transport:
    one = opened.come()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    one.read(UPGRADE.format(path=path, more=more).encode())
    return one


def say(one: Transport, message: Any) -> None:
    one.read(masked(0x81, message if isinstance(message, bytes) else json.dumps(message).encode(), b"mask"))


def subscribe(one: Transport, channel: str, **data: Any) -> None:
    say(one, {"event": "pusher:subscribe", "data": {"channel": channel, **data}})


def auth(channel: str, data: str | None = None) -> str:
    return signatures.sign_channel(APP.key, SECRET, SOCKET_ID, channel, data)


@asynccontextmanager
async def a_client(**changes: Any) -> AsyncIterator[Transport]:
    async with door(settings(**changes)) as opened:
        yield dialled(opened)


# --- connections


@pytest.mark.parametrize(
    ("path", "headers", "code", "expected"),
    [
        ("/app/app-secret-that-nobody-may-read", {}, 4001, {"reason": "unknown_key", "key": "app-…"}),
        ("/socket?token=eyJ", {}, 4005, {"reason": "wrong_path", "path": "/socket"}),
        ("/app/app-key?protocol=x", {}, 4006, {"reason": "bad_version", "version": "x", "app": "1"}),
        ("/app/app-key?protocol=8", {}, 4007, {"reason": "unsupported_version", "version": "8"}),
        (
            "/app/app-key",
            {"Origin": "https://evil.example", "X_Forwarded_For": "203.0.113.9"},
            4009,
            {
                "reason": "origin_not_allowed",
                "app": "1",
                "origin": "https://evil.example",
                "forwarded_for": "203.0.113.9",
            },
        ),
    ],
)
async def test_a_refused_connection(lines, path, headers, code, expected):
    async with door(settings()) as opened:
        dialled(opened, path, **headers)
    line = only(lines)
    assert expected.items() <= line.items()
    assert (line["code"], line["address"], line["level"]) == (code, ADDRESS, "info")


@pytest.mark.parametrize(
    ("app", "server", "reason"),
    [
        (App(id="1", key="app-key", secret=SECRET, enabled=False), {}, "app_disabled"),
        (App(id="1", key="app-key", secret=SECRET, max_connections=1), {}, "over_quota"),
        (App(id="1", key="app-key", secret=SECRET), {"max_connections": 1}, "over_capacity"),
    ],
)
async def test_a_connection_for_which_there_is_no_room(lines, app, server, reason):
    async with door(settings(app, **server)) as opened:
        if app.enabled:
            dialled(opened)
            assert lines == []
        opened.node.admission._socket_ids = iter(["3.4"])
        dialled(opened)
    line = only(lines)
    assert (line["reason"], line["app"]) == (reason, "1")
    assert line["level"] == ("info" if reason == "app_disabled" else "warning")


async def test_a_connection_that_waits_for_its_quota_when_the_node_ends(lines, monkeypatch):
    app = App(id="1", key="app-key", secret=SECRET, max_connections=1)
    async with door(settings(app)) as opened:
        node = opened.node
        monkeypatch.setattr(node.registry, "enter", lambda *_: None)
        dialled(opened)
        node.admission._too_late(next(iter(node.admission._waiting)))
        dialled(opened)
        node.admission.close(errors.LEASE_LAPSED)
        dialled(opened)
        node.admission.close(errors.OVER_CAPACITY)
    assert [line["reason"] for line in lines] == ["quota_unknown", "lease_lapsed", "stopping"]


@pytest.mark.parametrize(
    ("key", "most", "reason"), [("wrong-key", 9, "unknown_key"), ("app-key", 0, "over_capacity")]
)
async def test_a_refused_client_of_the_fallback(lines, monkeypatch, key, most, reason):
    monkeypatch.setattr(polling, "MAX_POLLING_SESSIONS", most)
    async with door(settings()) as opened:
        await ask(opened, f"/pusher/app/{key}/1/abcdefgh/xhr", {"X-Forwarded-For": "203.0.113.9\t"}, "")
    line = only(lines)
    assert (line["reason"], line["address"], line["forwarded_for"]) == (reason, ADDRESS, r"203.0.113.9\t")


async def test_an_upgrade_that_is_none_and_a_request_that_is_none(lines):
    async with door(settings()) as opened:
        opened.come().read(
            b"GET /app/app-key?a=b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
        )
        opened.come().read(b"nonsense\r\n\r\n")
    assert [(line["reason"], line["status"]) for line in lines] == [("bad_handshake", 400), ("bad_http", 400)]
    assert lines[0]["path"] == "/app/app-key"


async def test_a_connection_that_the_server_closes(lines):
    async with door(settings()) as opened:
        dialled(opened).read(masked(0x82, b"binary", b"mask"))
        dialled(opened).read(b"\x81\xff" + (2**20).to_bytes(8) + b"mask")
        for error in (errors.TOO_SLOW, errors.TOO_MUCH_AT_ONCE):
            dialled(opened).protocol.give_up(error)
    told = [(line["reason"], line["code"]) for line in lines if "reason" in line]
    assert told == [("bad_frame", 1003), ("bad_frame", 1009), ("too_slow", 4100), ("too_much_at_once", 4100)]


async def test_a_client_that_does_not_authorize_or_says_too_much(lines):
    app = App(id="1", key="app-key", secret=SECRET, authorized_seconds=5)
    async with door(settings(app)) as opened:
        dialled(opened).protocol.check_at(opened.node.context.now() + 6)
    app = App(id="1", key="app-key", secret=SECRET, max_messages=1, close_over_max_messages=True)
    async with a_client(app=app) as one:
        for _ in range(2):
            say(one, {"event": "pusher:ping"})
    told = [(line["reason"], line["code"]) for line in lines if "reason" in line]
    assert told == [("not_authorized", 4009), ("too_many_messages", 4100)]


@pytest.mark.parametrize(
    ("last", "code"), [(b"\x03\xe9", 1001), (b"", 1005), (b"\x0f\xa0" + b"reason", 4000), (None, 1006)]
)
async def test_the_end_of_a_connection_is_told_at_debug(lines, last, code):
    async with a_client() as one:
        if last is not None:
            one.read(masked(0x88, last, b"mask"))
        one.protocol.connection_lost(None)
    (line,) = lines
    assert (line["text"], line["level"], line["code"]) == ("connection ended", "debug", code)
    assert (line["app"], line["socket_id"], line["address"]) == ("1", SOCKET_ID, ADDRESS)
    assert 0 <= line["seconds"] < 60


# --- subscriptions and messages


MEMBER = '{"user_id":"7"}'


@pytest.mark.parametrize(
    ("channel", "data", "reason", "detail"),
    [
        ("private-x", {}, "bad_channel_signature", "auth is missing"),
        ("private-x", {"auth": "other:1f"}, "bad_channel_signature", "key of another application"),
        ("private-x", {"auth": f"app-key:{SECRET}"}, "bad_channel_signature", "signed with another secret"),
        ("presence-x", {"auth": auth("presence-x")}, "not_signed_in", "channel_data"),
        ("#server-to-user-7", {}, "not_signed_in", "Not signed in"),
        ("presence-x", {"auth": auth("presence-x", "1"), "channel_data": "1"}, "bad_channel_data", "user_id"),
        ("a b", {}, "bad_channel_name", "characters"),
        ("x" * 300, {}, "bad_channel_name", "longer than 200"),
    ],
)
async def test_a_refused_subscription(lines, channel, data, reason, detail):
    async with a_client() as one:
        subscribe(one, channel, **data)
        assert b"pusher:subscription_error" in one.written
    line = only(lines)
    assert (line["reason"], line["level"], line["app"]) == (reason, "info", "1")
    assert line["channel"] == (channel if len(channel) <= 200 else f"{'x' * 200}…")
    assert (line["socket_id"], line["address"]) == (SOCKET_ID, ADDRESS)
    assert detail in line["detail"]


async def test_a_subscription_above_a_limit(lines):
    async with door(settings(max_subscriptions=4)) as opened:
        one = dialled(opened)
        for name in "abcd":
            subscribe(one, name)
        opened.node.admission._socket_ids = iter(["3.4"])
        other = dialled(opened)
        say(one, {"event": "pusher:unsubscribe", "data": {"channel": "a"}})
        subscribe(one, "presence-x", auth=auth("presence-x", MEMBER), channel_data=MEMBER)
        subscribe(other, "e")
        subscribe(other, "f")
    told = [(line["reason"], line["channel"], line["level"]) for line in lines if "reason" in line]
    assert told == [("too_many_channels", "d", "info"), ("too_many_subscriptions", "f", "warning")]


async def test_a_presence_channel_that_is_full(lines):
    async with door(settings()) as opened:
        subscribe(dialled(opened), "presence-x", auth=auth("presence-x", MEMBER), channel_data=MEMBER)
        opened.node.admission._socket_ids = iter(["3.4"])
        member = '{"user_id":"8"}'
        signed = signatures.sign_channel(APP.key, SECRET, "3.4", "presence-x", member)
        subscribe(dialled(opened), "presence-x", auth=signed, channel_data=member)
    line = only(lines)
    assert (line["reason"], line["channel"], line["socket_id"]) == ("channel_full", "presence-x", "3.4")


async def test_a_refused_message_is_not_repeated_in_the_log(lines):
    async with a_client() as one:
        say(one, b"a secret body")
        say(one, {"event": "nope\r\n2027 error forged", "data": "a secret body"})
        say(one, {"event": "pusher:subscribe", "data": {"channel": 1, "auth": "a secret body"}})
        say(one, {"event": "pusher:signin", "data": {"auth": "a secret body", "user_data": "a secret body"}})
        say(one, {"event": "client-x", "channel": "private-x", "data": "a secret body"})
        subscribe(one, "private-x", auth=auth("private-x"))
        for _ in range(2):
            say(one, {"event": "client-x", "channel": "private-x", "data": "a secret body"})
    reasons = ["bad_message"] * 3 + ["bad_sign_in", "bad_client_event", "client_event_rate"]
    assert [line["reason"] for line in lines if "reason" in line] == reasons
    assert all(value.isprintable() for line in lines for value in line.values() if isinstance(value, str))
    assert "secret body" not in repr(lines)


# --- the HTTP API


def api(
    path: str = "/apps/1/events",
    body: bytes = b'{"name":"e","channel":"c","data":"a secret body"}',
    *,
    key: str = "app-key",
    secret: str = SECRET,
    ago: float = 0,
    version: str = "1.0",
    method: str = "POST",
    **more: str,
) -> bytes:
    params = {"auth_key": key, "auth_timestamp": str(int(time.time() - ago)), "auth_version": version} | more
    params["body_md5"] = hashlib.md5(body).hexdigest()
    params["auth_signature"] = signatures.sign(secret, signatures.request_text(method, path, params))
    query = "&".join(f"{name}={value}" for name, value in params.items())
    return (
        f"{method} {path}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


@pytest.mark.parametrize(
    ("make", "reason", "app"),
    [
        (lambda: api(secret="x"), "bad_request_signature", "1"),
        (lambda: api(key=SECRET), "unknown_auth_key", "1"),
        (lambda: api(ago=3600), "expired_timestamp", "1"),
        (lambda: api(version="2"), "bad_auth_parameters", "1"),
        (lambda: api("/apps/9/events"), "unknown_app", "9"),
        (lambda: api("/apps/9%0d%0a2027%20error/events", key="x"), "unknown_app", "9%0d%0a2027%20error"),
        (lambda: api("/apps/1/eventz"), "no_such_endpoint", "1"),
        (lambda: api("/apps/1/channels"), "wrong_method", "1"),
        (lambda: api(body=b"{"), "invalid_request", "1"),
        (
            lambda: api(body=b'{"name":"e","channel":"c","data":"%s"}' % (b"x" * 20_000)),
            "event_too_large",
            "1",
        ),
        (lambda: api(body=b"x" * 2000), "request_too_large", "1"),
        (
            lambda: api().replace(b"POST /", b"POST http://x/").replace(b"auth_key=app", b"auth_key=no"),
            "unknown_auth_key",
            "1",
        ),
    ],
)
async def test_a_refused_request_to_the_api(lines, make, reason, app):
    limit = 1000 if reason == "request_too_large" else 1_000_000
    async with door(settings(max_request_bytes=limit)) as opened:
        one = opened.come()
        one.read(make())
        await opened.calm()
    line = only(lines)
    assert one.written.startswith(b"HTTP/1.1 %d " % line["status"])
    assert (line["reason"], line["app"], line["address"], line["level"]) == (reason, app, ADDRESS, "info")
    assert "secret body" not in repr(line)
    assert "?" not in line["path"]


async def test_a_request_that_fails_later_is_told_too(lines):
    async with door(settings()) as opened:
        opened.come().read(api("/apps/1/channels", b"", method="GET", info="user_count"))
        for _ in range(5):
            await asyncio.sleep(0)
    assert only(lines)["reason"] == "invalid_request"


async def test_a_publish_that_reaches_nobody_is_told_at_debug(lines):
    async with door(settings()) as opened:
        subscribe(dialled(opened), "heard")
        one = opened.come()
        for channels in (["heard"], ["heard", "a", "b"], [f"c{number}" for number in range(30)]):
            one.read(api(body=json.dumps({"name": "e", "channels": channels, "data": "x"}).encode()))
        one.read(api("/apps/1/batch_events", b'{"batch":[{"name":"e","channel":"d","data":""}]}'))
        for _ in range(5):
            await asyncio.sleep(0)
    told = [line["channel"] for line in lines]
    assert told == ["a,b", f"{','.join(f'c{number}' for number in range(10))} and 20 more", "d"]
    line = lines[0]
    assert (line["text"], line["level"], line["app"], line["event"]) == (
        "published to nobody",
        "debug",
        "1",
        "e",
    )


async def test_above_debug_nobody_looks_for_subscribers(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "legato")
    async with door(settings()) as opened:
        looked: list[Any] = []
        monkeypatch.setattr(opened.node.registry, "counts", looked.append)
        one = opened.come()
        one.read(api())
        for _ in range(5):
            await asyncio.sleep(0)
        assert b"HTTP/1.1 200" in one.written
    assert (looked, caplog.records) == ([], [])


# --- browsers


def bearer(secret: str = JWT_SECRET, **claims: Any) -> dict[str, str]:
    return {"Authorization": "Bearer " + jwt.encode({"sub": 7, "exp": 2**32} | claims, secret)}


FORM = "socket_id=1.2&channel_name=private-ai-chat.8"


async def ask(opened: Door, path: str, headers: Mapping[str, str], body: str = FORM) -> None:
    head = [f"POST {path} HTTP/1.1", "Host: chat.example", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    opened.come().read("\r\n".join([*head, "", body]).encode())
    await opened.calm()


@pytest.mark.parametrize(
    ("headers", "reason", "detail"),
    [
        ({}, "no_token", None),
        ({"Authorization": "Bearer " + "x" * 20_000}, "no_token", None),
        (bearer(exp=5), "token_expired", None),
        (bearer("b" * 32), "token_signature", None),
        (bearer(exp=None), "token_claims", "it has no exp"),
        (bearer(nbf=2**33), "token_claims", "nbf is in the future"),
        (bearer(sub="a b"), "token_claims", "sub is no user id"),
        (
            {"Authorization": f"Bearer {JWT_SECRET.replace(' ', '')}"},
            "token_invalid",
            "it is no JSON Web Token",
        ),
        (bearer(), "channel_not_allowed", "Forbidden."),
    ],
)
async def test_a_refused_authorisation(lines, headers, reason, detail):
    path = "/broadcasting/auth" if reason == "channel_not_allowed" else "/broadcasting/user-auth"
    async with door(settings()) as opened:
        await ask(opened, f"{path}?token=eyJ", headers)
    line = only(lines)
    assert (line["reason"], line["path"], line.get("detail")) == (reason, path, detail)
    assert line["status"] == (403 if reason == "channel_not_allowed" else 401)
    assert line.get("channel") == ("private-ai-chat.8" if reason == "channel_not_allowed" else None)
    assert line["address"] == ADDRESS


@pytest.mark.parametrize(
    ("path", "body", "reason", "level"),
    [
        ("/broadcasting/auth", "socket_id=a+secret+body", "invalid_chat_request", "info"),
        ("/broadcasting/user-auth", "x" * 20_000, "body_too_large", "info"),
        ("/api/chat/send", '{"message":"a secret body"}', "unavailable", "warning"),
        ("/broadcasting/aut", FORM, "not_found", "debug"),
    ],
)
async def test_another_refused_request(lines, path, body, reason, level):
    async with door(settings()) as opened:
        await ask(opened, path, bearer(), body)
    line = only(lines)
    assert (line["reason"], line["level"], line["method"]) == (reason, level, "POST")
    assert "secret" not in repr(line)


async def test_a_server_without_a_key_for_tokens_says_so(lines):
    without = settings()
    without = Settings(server=without.server, metrics=without.metrics, apps=without.apps)
    async with door(without) as opened:
        await ask(opened, "/broadcasting/auth", bearer())
    line = only(lines)
    assert (line["reason"], line["level"]) == ("no_token_key", "warning")


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Origin": "https://other.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "https://pages.example"}, False),
        ({"Origin": "https://chat.example"}, False),
        ({"Origin": "https://public.name", "Sec-Fetch-Site": "same-origin"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("allowed", [("https://pages.example",), ()])
async def test_a_page_whose_origin_may_not_ask(lines, allowed, headers, told):
    async with door(settings(cors_origins=allowed)) as opened:
        await ask(opened, "/broadcasting/auth", {**bearer(), **headers})
    expected = told or (not allowed and headers.get("Origin") == "https://pages.example")
    found = [line for line in lines if line["reason"] == "cors_origin"]
    assert len(found) == expected
    assert all(line["origin"] == headers["Origin"] for line in found)


def test_what_somebody_has_written_is_not_repeated():
    error = InvalidRequest("history.0.role", "Invalid enum value 'a secret body'")
    assert api_refusals._detail(error, api_refusals._answer(error)) == "history.0.role: Invalid enum value"


def test_every_refusal_of_the_chat_has_a_reason():
    """Those that have none have a line of their own: the bus cannot be reached."""
    silent = {
        kind
        for kind in api_refusals._ANSWERS
        if kind not in api_refusals._REFUSALS and not issubclass(kind, BusError)
    }
    assert {kind.__name__ for kind in silent} == {"AuthError", "ChatRefusal", "ApiError"}
