"""Keys from a URL, published by a real HTTP server."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from legato.broadcaster.auth import jwks
from legato.broadcaster.auth.errors import AuthError, KeysUnavailable
from legato.broadcaster.auth.jwks import KeySet
from legato.broadcaster.auth.verifier import verifier
from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth
from legato.protocol.settings import SettingsError
from tests.broadcaster.api.test_chat import call
from tests.broadcaster.auth.test_auth import KEYS, bearer
from tests.broadcaster.conftest import local_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIFESPAN = 300.0


def key(kid: str = "k1", **fields: str) -> dict[str, str]:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(KEYS["RS256"].public_key())
    return json.loads(public) | {"kid": kid, "use": "sig"} | fields


def document(*kids: str) -> bytes:
    return json.dumps({"keys": [key(kid) for kid in kids]}).encode()


class Publisher:
    """Answers every request with ``answer`` once ``open`` is set."""

    def __init__(self) -> None:
        self.requests = 0
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""
        self.give(document("k1"))

    def give(self, body: bytes, status: str = "200 OK", headers: str = "") -> None:
        self.answer = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self.open.wait()
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    made = Publisher()
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    yield made
    made.open.set()
    server.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(publisher, clock) -> KeySet:
    return KeySet(publisher.url, LIFESPAN, clock)


async def test_a_token_is_verified_and_the_url_asked_once(publisher):
    tokens = verifier(Auth(jwks_url=publisher.url))
    for _ in range(3):
        assert (await tokens.verify(bearer({"sub": "7"}, KEYS["RS256"], "RS256", kid="k1")))["sub"] == "7"
    assert publisher.requests == 1
    strange = rsa.generate_private_key(65537, 2048)
    for wrong in (
        bearer({"sub": "7"}, strange, "RS256", kid="k1"),
        bearer({"sub": "7"}, KEYS["ES256"], "ES256", kid="k1"),  # not the algorithm of the key
        bearer({"sub": "7"}, KEYS["RS256"], "RS256", kid="k2"),
        bearer({"sub": "7"}, KEYS["RS256"], "RS256"),
    ):
        with pytest.raises(AuthError):
            await tokens.verify(wrong)


async def test_a_withdrawn_key_is_refused_after_the_refresh(publisher, keys, clock):
    publisher.give(document("k1", "k2"))
    assert (await keys.find("k1")).key_id == "k1"
    publisher.give(document("k2"))
    clock.now += LIFESPAN - 1
    assert await keys.find("k1")
    clock.now += 1
    with pytest.raises(ValueError, match="no key"):
        await keys.find("k1")
    assert await keys.find("k2")
    assert publisher.requests == 2


async def test_a_new_key_is_found_at_once_and_unknown_ids_cost_one_fetch_per_cool_down(
    publisher, keys, clock
):
    await keys.find("k1")
    publisher.give(document("k1", "k2"))
    clock.now += jwks.JWKS_COOL_DOWN_SECONDS
    assert await keys.find("k2")
    for number in range(20):
        with pytest.raises(ValueError, match="no key"):
            await keys.find(f"strange-{number}")
    assert publisher.requests == 2
    clock.now += jwks.JWKS_COOL_DOWN_SECONDS
    for number in range(20):
        with pytest.raises(ValueError, match="no key"):
            await keys.find(f"strange-{number}")
    assert publisher.requests == 3


async def test_all_who_wait_share_one_fetch_and_the_loop_goes_on(publisher, keys):
    publisher.open.clear()
    waiting = [asyncio.create_task(keys.find("k1")) for _ in range(50)]
    async with asyncio.timeout(30):
        while not publisher.requests:  # noqa: ASYNC110 - the publisher announces nothing
            await asyncio.sleep(0.005)
    waiting[0].cancel()  # one who leaves takes nothing from the others
    assert not any(task.done() for task in waiting[1:])
    publisher.open.set()
    assert {found.key_id for found in await asyncio.gather(*waiting[1:])} == {"k1"}
    assert publisher.requests == 1


async def test_a_url_that_hangs_is_given_up_once_for_all(publisher, keys, monkeypatch, caplog):
    monkeypatch.setattr(jwks, "JWKS_FETCH_SECONDS", 0.2)
    publisher.open.clear()
    began = time.monotonic()
    answers = await asyncio.gather(*(keys.find("k1") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(answer, KeysUnavailable) for answer in answers)
    assert time.monotonic() - began < 50 * 0.2  # not one after the other
    with pytest.raises(KeysUnavailable):  # at once: nobody waits again during the cool-down
        await keys.find("k1")
    assert publisher.requests == 1
    (line,) = caplog.messages
    assert "timed out" in line


async def test_expired_keys_stay_in_use_for_a_while_if_fetching_fails(publisher, keys, clock, caplog):
    await keys.find("k1")
    publisher.give(b"", "500 Oops")
    clock.now += LIFESPAN
    assert await keys.find("k1")
    assert publisher.requests == 2
    with pytest.raises(KeysUnavailable):  # it may be a new one
        await keys.find("k2")
    publisher.open.clear()
    clock.now += jwks.JWKS_COOL_DOWN_SECONDS
    async with asyncio.timeout(jwks.JWKS_FETCH_SECONDS / 2):  # the next attempt goes on meanwhile
        assert await keys.find("k1")
    publisher.open.set()
    clock.now += jwks.JWKS_STALE_SECONDS
    with pytest.raises(KeysUnavailable):
        await keys.find("k1")
    caplog.set_level("INFO", "legato.auth")
    publisher.give(document("k1"))
    clock.now += jwks.JWKS_COOL_DOWN_SECONDS
    assert await keys.find("k1")
    assert "keys can be fetched again" in caplog.text


async def test_one_warning_a_minute(publisher, keys, clock, caplog):
    publisher.give(b"", "500 Oops")
    for _ in range(6):
        with pytest.raises(KeysUnavailable):
            await keys.find("k1")
        clock.now += jwks.JWKS_COOL_DOWN_SECONDS
    assert publisher.requests == 6
    assert len(caplog.messages) == 1
    with pytest.raises(KeysUnavailable):
        await keys.find("k1")
    assert len(caplog.messages) == 2


NO_KEYS = [
    ((b"junk", "200 OK", ""), "not a key set"),
    ((b"[]", "200 OK", ""), "not a key set"),
    ((b"{}", "200 OK", ""), "not a key set"),
    ((b'{"keys": 5}', "200 OK", ""), "not a key set"),
    ((b'{"keys": [5]}', "200 OK", ""), "not a key set"),
    ((b"[" * 100_000, "200 OK", ""), "not a key set"),
    ((b"x" * (jwks.JWKS_MAX_BYTES + 1), "200 OK", ""), "larger than"),
    ((document("k1"), "404 Not Found", ""), "status 404"),
    ((document("k1"), "200 OK", "Content-Encoding: gzip\r\n"), "compressed"),
    ((document("k1"), "200 OK", "Content-Length: 9999999\r\n"), "cannot be read"),
]


@pytest.mark.parametrize(("answer", "reason"), NO_KEYS)
async def test_an_answer_without_keys(publisher, keys, caplog, answer, reason):
    publisher.give(*answer)
    with pytest.raises(KeysUnavailable):
        await keys.find("k1")
    (line,) = caplog.messages
    assert reason in line


async def test_a_redirect_is_not_followed(publisher, keys, caplog):
    @asynccontextmanager
    async def elsewhere() -> AsyncIterator[Publisher]:
        other = Publisher()
        server = await asyncio.start_server(other.handle, "127.0.0.1", 0)
        other.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield other
        server.close()

    async with elsewhere() as other:
        publisher.give(b"", "302 Found", f"Location: {other.url}\r\n")
        with pytest.raises(KeysUnavailable):
            await keys.find("k1")
        assert (publisher.requests, other.requests) == (1, 0)
    assert "status 302" in caplog.text


async def test_keys_for_encryption_and_of_unknown_kinds_are_left_out(publisher, keys):
    kinds = [key("enc", use="enc"), {"kty": "new", "kid": "new"}, key("good"), {**key(), "kid": ""}]
    publisher.give(json.dumps({"keys": kinds}).encode())
    assert await keys.find("good")
    for kid in ("enc", "new", ""):
        with pytest.raises(ValueError, match="no key"):
            await keys.find(kid)


async def test_a_symmetric_key_that_is_published_signs_nothing(publisher):
    secret = b"a secret of more than thirty-two bytes"
    shared = {"kty": "oct", "kid": "s", "alg": "HS256", "k": base64.urlsafe_b64encode(secret).decode()}
    publisher.give(json.dumps({"keys": [shared, key()]}).encode())
    with pytest.raises(AuthError):
        await verifier(Auth(jwks_url=publisher.url)).verify(bearer({"sub": "7"}, secret, kid="s"))


@pytest.mark.parametrize("url", ["notaurl", "ftp://a/", "http://", "http://[/", "http://a:x/", "http://a b/"])
def test_an_invalid_jwks_url_stops_the_start(url):
    with pytest.raises(SettingsError, match="expected http"):
        KeySet(url, LIFESPAN)


async def test_the_password_of_a_url_is_in_no_log_line(caplog):
    keys = KeySet("http://ann:hush@127.0.0.1:1/", LIFESPAN)
    with pytest.raises(KeysUnavailable):
        await keys.find("k1")
    (line,) = caplog.messages
    assert "127.0.0.1:1: cannot be read" in line
    assert "hush" not in line


async def test_requests_without_keys_get_503_and_when_to_try_again(publisher):
    publisher.give(b"", "500 Oops")
    headers = {"Authorization": bearer({"sub": "7"}, KEYS["RS256"], "RS256", kid="k1")}
    async with running(local_settings(auth=Auth(jwks_url=publisher.url))) as server:
        for method, path in (
            ("POST", "/broadcasting/auth"),
            ("GET", "/api/chat/x"),
            ("POST", "/api/chat/send"),
        ):
            status, answer = await call(server, method, path, None, headers)
            assert (status, answer) == (503, {"message": "Tokens cannot be verified at the moment."})
        assert publisher.requests == 1
        assert (await call(server, "POST", "/broadcasting/auth", None, {"Authorization": "Bearer x"}))[
            0
        ] == 401
