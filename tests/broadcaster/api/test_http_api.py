"""The HTTP API, called by the official Python SDK and by hand-made requests."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import re
import time
from typing import Any
from urllib.parse import unquote_to_bytes

import pusher
import pytest
from pusher.errors import PusherBadRequest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Server
from legato.protocol import signatures
from legato.protocol.apps import App
from legato.protocol.settings import Redis
from tests.broadcaster.conftest import APP, client, local_settings
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer


def sdk(port: int, secret: str = APP.secret) -> pusher.Pusher:
    return pusher.Pusher(APP.id, APP.key, secret, host="127.0.0.1", port=port, ssl=False)


def signed(path: str, body: bytes, app: App = APP, method: str = "POST", **params: str) -> str:
    """The path with a valid signature in its query; `params` override its parameters."""
    query = {
        "auth_key": app.key,
        "auth_timestamp": str(int(time.time())),
        "auth_version": "1.0",
        "body_md5": hashlib.md5(body).hexdigest(),
    } | params
    text = signatures.request_text(method, path, query)
    query["auth_signature"] = signatures.sign(app.secret, text)
    return path + "?" + "&".join(f"{name}={value}" for name, value in query.items())


async def call(
    port: int, path: str, body: bytes = b"", method: str = "POST", headers: Any = None
) -> tuple[int, Any]:
    def work():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        assert response.headers["content-type"] == "application/json"
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    return await asyncio.to_thread(work)


async def post(port: int, path: str, body: Any) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await call(port, signed(path, raw), raw)


EVENTS = "/apps/1/events"
BATCH = "/apps/1/batch_events"


async def test_the_official_sdk_publishes(server):
    async with client(server.port) as ann:
        await ann.subscribe("a")
        await ann.subscribe("private-b")
        answer = await asyncio.to_thread(sdk(server.port).trigger, ["a", "private-b"], "my-event", {"é": 1})
        assert answer == {}
        for channel in ("a", "private-b"):
            event = await ann.receive()
            assert (event["event"], event["channel"]) == ("my-event", channel)
            assert json.loads(event["data"]) == {"é": 1}


async def test_the_official_sdk_publishes_a_batch_in_order(server):
    async with client(server.port) as ann:
        await ann.subscribe("a")
        batch = [{"channel": "a", "name": f"e{n}", "data": str(n)} for n in range(10)]
        assert await asyncio.to_thread(sdk(server.port).trigger_batch, batch) == {}
        assert [(await ann.receive())["event"] for _ in range(10)] == [f"e{n}" for n in range(10)]


async def test_a_wrong_secret_is_refused():
    async with running(local_settings()) as server:
        with pytest.raises(pusher.errors.PusherBadAuth):
            await asyncio.to_thread(sdk(server.port, "wrong").trigger, "a", "e", "x")


async def test_the_socket_of_the_request_is_excluded(server):
    async with client(server.port) as ann, client(server.port) as bob:
        await ann.subscribe("a")
        await bob.subscribe("a")
        event = {"name": "e", "data": "1", "channels": ["a"], "socket_id": ann.socket_id}
        assert await post(server.port, EVENTS, event) == (200, {})
        assert await post(server.port, EVENTS, event | {"data": "2", "socket_id": None}) == (200, {})
        assert (await bob.receive())["data"] == "1"
        assert (await ann.receive())["data"] == "2"


GOOD = [
    ({"channel": "a"}, {}),
    ({"channels": ["a"]}, {}),
    ({"channels": ["a", "a"], "channel": "b"}, {}),
    ({"channels": [f"c{n}" for n in range(100)]}, {}),
    ({"channel": "a", "info": "subscription_count"}, {"channels": {"a": {"subscription_count": 0}}}),
    ({"channel": "a", "data": "x" * 10_240}, {}),
    ({"channel": "a", "data": {"not": "a string"}}, {}),
    ({"channel": "a", "name": "App\\Events\\X", "tags": {}, "socket_id": "1.2"}, {}),
    ({"channel": "private-encrypted-a", "data": '{"nonce":"","ciphertext":""}'}, {}),
]


@pytest.mark.parametrize(("event", "answer"), GOOD)
async def test_events_that_are_accepted(event, answer):
    async with running(local_settings()) as server:
        assert await post(server.port, EVENTS, {"name": "e", "data": "x"} | event) == (200, answer)


async def test_data_that_is_not_a_string_is_encoded_compactly():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.subscribe("a")
        await post(server.port, EVENTS, {"name": "e", "data": {"a": [1, None]}, "channel": "a"})
        assert (await ann.receive())["data"] == '{"a":[1,null]}'


BAD = [
    (b"junk", 400),
    (b"", 400),
    (b"[]", 400),
    (b"\xff", 400),
    (b"[" * 100_000, 400),
    ({}, 400),
    (b'{"name":"e","channel":"a","data":1e999}', 400),
    (b'{"name":"e","channel":"a","data":"\xff"}', 400),
    ({"name": "e", "data": "x"}, 400),
    ({"name": "e", "data": "x", "channels": []}, 400),
    ({"name": "e", "data": "x", "channels": [1]}, 400),
    ({"name": "e", "data": "x", "channels": "a"}, 400),
    ({"name": "e", "data": "x", "channels": [f"c{n}" for n in range(101)]}, 400),
    ({"name": "e", "data": "x", "channel": "a b"}, 400),
    ({"name": "e", "data": "x", "channel": "x" * 201}, 400),
    ({"name": "e", "channel": "a"}, 400),
    ({"name": "", "data": "x", "channel": "a"}, 400),
    ({"name": "x" * 201, "data": "x", "channel": "a"}, 400),
    ({"name": "pusher:e", "data": "x", "channel": "a"}, 400),
    ({"name": "pusher_internal:e", "data": "x", "channel": "a"}, 400),
    ({"name": "e", "data": "x", "channel": "a", "socket_id": "1"}, 400),
    ({"name": "e", "data": "x", "channel": "a", "socket_id": "1.2\n"}, 400),
    ({"name": "e", "data": "x" * 10_241, "channel": "a"}, 413),
    ({"name": "e", "data": "é" * 5_121, "channel": "a"}, 413),
]


@pytest.mark.parametrize(("body", "status"), BAD)
async def test_bad_events_are_refused_with_a_reason(body, status):
    async with running(local_settings()) as server:
        got, answer = await post(server.port, EVENTS, body)
        assert (got, answer["code"]) == (status, status)
        assert answer["error"]


async def test_a_batch_is_sent_whole_or_not_at_all():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.subscribe("a")
        good = {"name": "good", "data": "x", "channel": "a"}
        assert (await post(server.port, BATCH, {"batch": [good, good | {"channel": "a b"}]}))[0] == 400
        assert (await post(server.port, BATCH, {"batch": [good] * 11}))[0] == 400
        assert (await post(server.port, BATCH, {"batch": []}))[0] == 400
        last = good | {"name": "last", "info": "user_count"}
        assert await post(server.port, BATCH, {"batch": [last]}) == (200, {"batch": [{}]})
        assert (await ann.receive())["event"] == "last"


async def test_requests_that_are_not_authentic():
    body = b'{"name":"e","data":"x","channel":"a"}'
    off = App(id="2", key="off", secret="s", enabled=False)
    async with running(local_settings(apps=(APP, off))) as server:
        cases = [
            (EVENTS, body, 401),
            (signed(EVENTS, body), body + b" ", 401),
            (signed(EVENTS, body, auth_timestamp="1"), body, 401),
            (signed(EVENTS, body, auth_version="2"), body, 401),
            (signed(EVENTS, body, app=App(id="1", key="app-key", secret="guess")), body, 401),
            (signed("/apps/2/events", body), body, 401),
            (signed("/apps/2/events", body, app=off), body, 403),
            (signed("/apps/9/events", body), body, 404),
            (signed("/apps/1/nothing", body), body, 404),
        ]
        for path, sent, status in cases:
            got, answer = await call(server.port, path, sent)
            assert (got, answer["code"]) == (status, status), path
            assert APP.secret not in json.dumps(answer)
        assert server.node.fanout.messages == 0


async def test_an_unsigned_request_does_not_reveal_which_applications_exist():
    body = json.dumps({"name": "e", "data": "x", "channel": "a"}).encode()
    there, other = App(id="2", key="k2", secret="s2"), App(id="1", key="k1", secret="s1")
    off = App(id="3", key="k3", secret="s3", enabled=False)
    guesses = (
        {"auth_key": "no"},
        {"auth_key": "k1"},
        {"auth_timestamp": "1"},
        {"auth_version": "2"},
    )
    async with running(local_settings(apps=(other, there, off))) as server:
        for guess in guesses:
            for method, tail in (("POST", "/events"), ("GET", "/channels"), ("GET", "/channels/a")):
                sent = body if method == "POST" else b""
                guessed = App(id="9", key="k1", secret="guess")
                answers = [
                    await call(
                        server.port,
                        signed(f"/apps/{app_id}{tail}", sent, method=method, app=guessed, **guess),
                        sent,
                        method=method,
                    )
                    for app_id in ("2", "9", "3")
                ]
                assert answers[0] == answers[1] == answers[2], guess
                assert answers[0][0] == 401


async def test_another_method_is_refused():
    async with running(local_settings()) as server:
        assert (await call(server.port, EVENTS, method="GET"))[0] == 405


async def test_a_body_over_the_limit_is_refused():
    settings = local_settings(server=Server(port=0, drain_seconds=0, max_request_bytes=1_000))
    async with running(settings) as server:
        assert (await post(server.port, EVENTS, b" " * 1_001))[0] == 413


async def test_a_prefix_may_be_signed_or_not():
    """PHP's `path` option is not part of what it signs (protocol section 10.1, step 5)."""
    body = b'{"name":"e","data":"x","channel":"a"}'
    async with running(local_settings(server=Server(port=0, path="/ws", drain_seconds=0))) as server:
        assert (await call(server.port, signed("/ws/apps/1/events", body), body))[0] == 200
        assert (await call(server.port, "/ws" + signed("/apps/1/events", body), body))[0] == 200
        assert (await call(server.port, "/ws/ws" + signed("/apps/1/events", body), body))[0] == 404


async def test_the_escaped_and_the_decoded_path_are_both_accepted():
    app = App(id="a-b", key="app-key", secret="app-secret")
    body = b'{"name":"e","data":"x","channel":"a"}'
    async with running(local_settings(app)) as server:
        decoded = signed("/apps/a-b/events", body)
        escaped = decoded.replace("/apps/a-b/", "/apps/a%2Db/")
        assert (await call(server.port, escaped, body))[0] == 200


async def test_a_client_that_disconnects_within_its_body_is_harmless():
    async with running(local_settings()) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nshort")
        await writer.drain()
        writer.transport.abort()
        assert await post(server.port, EVENTS, {"name": "e", "data": "x", "channel": "a"}) == (200, {})


async def test_an_unreachable_redis_is_a_503():
    with RedisServer(BINARIES["valkey"]) as redis:
        async with running(local_settings(redis=Redis(url=redis.url))) as server:
            redis.kill()
            status, answer = await post(server.port, EVENTS, {"name": "e", "data": "x", "channel": "a"})
            assert (status, answer["code"]) == (503, 503)
            redis.start()
            assert (await post(server.port, EVENTS, {"name": "e", "data": "x", "channel": "a"}))[0] == 200


async def test_the_sdk_reports_the_reason():
    async with running(local_settings()) as server:
        with pytest.raises(PusherBadRequest, match="may not start with pusher:"):
            await asyncio.to_thread(sdk(server.port).trigger, "a", "pusher:x", "data")


async def test_an_internal_error_is_json(monkeypatch, caplog):
    async with running(local_settings()) as server:
        monkeypatch.setattr(server.node.bus, "post", None)
        status, answer = await post(server.port, EVENTS, {"name": "e", "data": "x", "channel": "a"})
        monkeypatch.undo()
        assert (status, answer) == (500, {"error": "Server error", "code": 500})
    assert "could not be answered" in caplog.text


async def test_parameters_may_be_in_the_query_and_the_body_takes_precedence():
    async with running(local_settings()) as server, client(server.port) as ann:
        await ann.subscribe("a")
        await ann.subscribe("b")
        body = b'{"data":"x","name":"of the body"}'
        path = signed(EVENTS, body, name="of the query", channels="a,b")
        status, answer = await call(
            server.port, path.replace("channels=a,b", "channels[]=a&channels[]=b").replace(" ", "%20"), body
        )
        assert (status, answer) == (200, {})
        got = [await ann.receive() for _ in range(2)]
        assert {(event["channel"], event["event"], event["data"]) for event in got} == {
            ("a", "of the body", "x"),
            ("b", "of the body", "x"),
        }
        path = signed(EVENTS, b"", name="e", data="1", channel="a")
        assert await call(server.port, path) == (200, {})
        assert (await ann.receive())["data"] == "1"
        bad = signed(EVENTS, b"[]", name="e")
        assert (await call(server.port, bad, b"[]"))[0] == 400


@pytest.mark.parametrize("raw", ["%ff", "a%C3", "%ed%a0%80"])
@pytest.mark.parametrize("name", ["name", "info", "x", "auth_key", "socket_id"])
async def test_a_query_that_is_not_utf_8_is_refused(server, raw, name, caplog):
    """With a signature of its raw bytes, or without one."""
    text = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
    body = b'{"name": "e", "channel": "a", "data": ""}'
    path, _, query = signed(EVENTS, body, **{name: text}).partition("?")
    status, told = await call(server.port, f"{path}?{query.replace(text, raw)}", body)
    assert (status, told) == (400, {"error": "The query is not UTF-8", "code": 400})
    for path in (f"/apps/1/users/{raw}/terminate_connections", f"/apps/1/channels/{raw}"):
        status, told = await call(server.port, path, method="GET")
        assert (status, told["error"]) == (400, "The path is not UTF-8")
    assert "Traceback" not in caplog.text


HALVES = [
    ('"\\ud800"', "\ud800"),
    ('"a\\uDE00b \\ud83d\\ude00 \\u00e4"', "a\ude00b 😀 ä"),
    ('{"a":"\\ud83d"}', '{"a":"\\ud83d"}'),
    ('[1.5,"\\udfff",null]', '[1.5,"\\udfff",null]'),
]


@pytest.mark.parametrize(("data", "heard"), HALVES)
async def test_a_lone_surrogate_is_relayed_as_received(server, data, heard):
    """JSON.stringify produces it for a text cut within an emoji. Cached events have U+FFFD instead."""
    async with client(server.port) as ann:
        await ann.subscribe("a")
        await ann.subscribe("cache-a")
        assert (await ann.receive())["event"] == "pusher:cache_miss"
        single = f'{{"name":"e","channels":["a","cache-a"],"data":{data}}}'.encode()
        batch = f'{{"batch":[{{"name":"e","channel":"a","data":{data}}}]}}'.encode()
        assert (await post(server.port, EVENTS, single))[0] == 200
        assert (await post(server.port, "/apps/1/batch_events", batch))[0] == 200
        told = [await ann.receive() for _ in range(3)]
        assert [one["data"] for one in told] == [heard] * 3
        async with client(server.port) as bob:
            await bob.subscribe("cache-a")
            kept = (await bob.receive())["data"]
            assert kept == re.sub("[\ud800-\udfff]", "\ufffd", heard)


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"e","channel":"a","data":"\\ud800"',
        b'{"name":"e","channel":"a","data":["\\ud800",NaN]}',
        b'{"name":"e","channel":"a","data":["\\ud800",1e999]}',
        b'{"name":"e","channel":"a","data":"\\ud800\xff"}',
        b'{"name":"e","channel":"a","data":["\\ud800",' + b"9" * 5000 + b"]}",
        b'{"name":"e","channel":"\\ud800","data":""}',
        b'{"name":"","channel":"a","data":"\\ud800"}',
        b'{"name":"e","channel":"a","data":"\\ud800","socket_id":"\\ud800"}',
        b'{"name":"e","channel":"a","data":' + b"[" * 100_000 + b'"\\ud800"',
    ],
)
async def test_invalid_json_with_a_lone_surrogate_is_refused(server, body):
    assert (await post(server.port, EVENTS, body))[0] == 400


async def test_limits_are_per_application_and_errors_have_the_texts_of_sdks():
    app = App(
        id="1",
        key="app-key",
        secret="app-secret",
        max_events_per_batch=2,
        max_event_bytes=5,
        max_event_name_length=3,
        max_channel_name_length=300,
    )
    async with running(local_settings(app)) as server, client(server.port) as ann:
        port, long = server.port, "c" * 300
        await ann.subscribe(long)
        event = {"name": "e", "channel": long, "data": "12345"}
        assert await post(port, "/apps/1/batch_events", {"batch": [event] * 2}) == (200, {})
        assert [(await ann.receive())["data"] for _ in range(2)] == ["12345"] * 2
        refusals = [
            ("batch_events", {"batch": [event] * 3}, 400, "Batch too large (> 2)"),
            ("batch_events", {"batch": []}, 400, "Expected 1 to 2 events"),
            (
                "events",
                event | {"data": "123456"},
                413,
                "The data content of this event exceeds the allowed maximum (5 bytes): it has 6",
            ),
            ("events", event | {"name": "long"}, 400, "Event name too long (> 3 characters)"),
            (
                "events",
                event | {"channel": long + "c"},
                400,
                "The channel name is longer than 300 characters",
            ),
        ]
        for path, body, status, reason in refusals:
            assert await post(port, f"/apps/1/{path}", body) == (status, {"error": reason, "code": status})
        status, told = await call(port, signed(f"/apps/1/channels/{long}", b"", method="GET"), method="GET")
        assert (status, told["occupied"]) == (200, True)


@pytest.mark.parametrize(
    ("origins", "allowed"), [(("https://a.example.com",), "true"), (("*", "https://a.example.com"), None)]
)
async def test_credentials_are_only_for_listed_origins(origins, allowed):
    settings = local_settings(server=Server(port=0, drain_seconds=0, cors_origins=origins))
    async with running(settings) as server:

        def work() -> str | None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("POST", "/broadcasting/auth", b"", {"Origin": "https://a.example.com"})
            found = connection.getresponse().headers["access-control-allow-credentials"]
            connection.close()
            return found

        assert await asyncio.to_thread(work) == allowed
