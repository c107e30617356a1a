"""What a browser may ask for besides an answer: nothing, unless the settings list it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat, Server
from legato.protocol import signatures, wire
from legato.protocol.jobs import OPTIONS, AttachedFile, Job, ThinkingBudget
from legato.protocol.settings import Redis
from tests.broadcaster.api.test_chat import SECRET, call, jobs, redis, send, token
from tests.broadcaster.conftest import APP, client, local_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.broadcaster.conftest import Client

__all__ = ["redis"]

TEAM = "private-team.red"
AUTH = Auth(jwt_secret=SECRET, channels=("private-ai-chat.{sub}", "private-team.{team}"))
URL = {"type": "image", "url": "https://example.com/a"}


def file(size: int) -> dict[str, str]:
    data = base64.b64encode(b"x" * size).decode()
    return {"type": "image", "media_type": "image/png", "data": data}


ASKED: dict[str, Any] = {
    "agent": "support",
    "model": "small",
    "system": "Be kind.",
    "max_tokens": 100,
    "thinking": {"budget_tokens": 2000},
    "channel": TEAM,
    "metadata": {"plan": "pro"},
    "dialect": "laravel-ai",
    "attachments": [URL, file(10)],
}
ALL = Chat(
    allow=tuple(ASKED),
    agents=("support", "sales"),
    models=("small",),
    channels=("private-team.*", "presence-room"),
    max_message_characters=10,
    max_attachments=3,
    attachment_hosts=("example.com", "*.example.org", "http://local:8000"),
    max_attachment_bytes=10,
)


@pytest.fixture
def chat() -> Chat:
    return ALL


@pytest.fixture
async def server(valkey_url, chat) -> AsyncIterator[Any]:
    settings = local_settings(redis=Redis(url=valkey_url), auth=AUTH, chat=chat)
    async with running(settings) as started:
        yield started


def red(sub: Any = 7) -> dict[str, str]:
    """The token of a member of the red team."""
    return token(sub, team="red")


async def refusal(server, **options: Any) -> tuple[str, str]:
    """Field and reason of a 422."""
    status, answer = await send(server, {"message": "Hello"} | options, red())
    ((field, (reason,)),) = answer["errors"].items()
    assert (status, answer["message"]) == (422, reason)
    return field, reason


def test_the_options_here_are_all_there_are():
    assert set(ASKED) == set(OPTIONS)


class TestByDefault:
    @pytest.fixture
    def chat(self) -> Chat:
        return Chat()

    @pytest.mark.parametrize("name", ASKED)
    async def test_no_option_is_taken_and_the_answer_names_the_setting(self, server, redis, name):
        reason = f"Expected no {name}: the setting chat.allow does not list it"
        none = {"thinking": [False], "system": [""]}.get(name, [])
        for value in (ASKED[name], 1.5, *none):
            assert await refusal(server, **{name: value}) == (name, reason)
        assert await jobs(redis) == []

    async def test_an_option_that_is_empty_is_none(self, server, redis):
        body = {"message": "Hello", "metadata": {}, "attachments": []} | dict.fromkeys(
            ("agent", "model", "system", "max_tokens", "thinking", "channel")
        )
        assert (await send(server, body))[0] == 200
        (job,) = await jobs(redis)
        assert job == Job(job.message_id, "1", 7, "Hello", job.queued_at)

    async def test_unknown_keys_are_ignored_as_ever(self, server, redis):
        assert (await send(server, {"message": "Hello", "temperature": 1}))[0] == 200
        assert len(await jobs(redis)) == 1


async def test_what_is_allowed_reaches_the_worker(server, redis):
    status, answer = await send(server, {"message": "Hello"} | ASKED, red())
    assert (status, list(answer)) == (200, ["message_id"])
    (job,) = await jobs(redis)
    assert (job.agent, job.model, job.system, job.max_tokens) == ("support", "small", "Be kind.", 100)
    assert (job.thinking, job.metadata) == (ThinkingBudget(2000), {"plan": "pro"})
    assert job.channel == TEAM
    assert job.attachments == (
        AttachedFile("image", url="https://example.com/a"),
        AttachedFile("image", "image/png", data=file(10)["data"]),
    )
    assert await redis.hget(wire.message_key("1", TEAM, job.message_id), "state") == b"queued"


async def test_no_thinking_and_no_system_prompt_are_options_too(server, redis):
    assert (await send(server, {"message": "Hello", "thinking": False, "system": ""}))[0] == 200
    (job,) = await jobs(redis)
    assert (job.thinking, job.system) == (False, "")


class TestOnlyAModel:
    @pytest.fixture
    def chat(self) -> Chat:
        return Chat(allow=("model",))

    async def test_without_a_list_any_value_is_taken_and_other_options_are_not(self, server, redis):
        assert (await send(server, {"message": "Hello", "model": "any-model"}))[0] == 200
        assert (await refusal(server, agent="a"))[0] == "agent"
        assert [job.model for job in await jobs(redis)] == ["any-model"]


REFUSED = [
    ({"agent": "admin"}, "agent", "chat.agents"),
    ({"model": "large"}, "model", "chat.models"),
    ({"model": 1}, "model", "Expected `str"),
    ({"system": "x" * 11}, "system", "at most 10 characters, not 11"),
    ({"attachments": [URL] * 4}, "attachments", "at most 3, not 4"),
    ({"attachments": [URL, file(11)]}, "attachments.1.data", "at most 10 bytes, not 11"),
    (
        {"attachments": [URL, {"type": "image", "url": "https://a.test/b"}]},
        "attachments.1.url",
        "attachment_hosts",
    ),
    ({"channel": "public"}, "channel", "private or presence"),
]


@pytest.mark.parametrize(("options", "field", "reason"), REFUSED)
async def test_what_is_beyond_the_settings_is_refused(server, redis, options, field, reason):
    name, text = await refusal(server, **options)
    assert name == field
    assert reason in text
    assert await jobs(redis) == []


@pytest.mark.parametrize(
    "channel", ["private-ai-chat.8", "private-team.blue", "private-team.", "private-team.redd", "private-red"]
)
async def test_a_reply_goes_only_where_the_user_may_listen(server, redis, channel):
    for headers in (red(), token()):
        status, answer = await send(server, {"message": "Hello", "channel": channel}, headers)
        assert (status, "auth.channels" in answer["message"]) == (403, True)
    assert await jobs(redis) == []
    assert [key async for key in redis.scan_iter("legato:msg:*")] == []


HOSTS = [
    ("https://example.com", True),
    ("http://EXAMPLE.com:81/a?b", True),
    ("https://cdn.example.org/a", True),
    ("http://local:8000/a", True),
    ("http://local/a", False),
    ("https://example.org/a", False),
    ("https://example.com.evil.test/a", False),
    ("https://example.com@evil.test/a", False),
    ("https://user:example.com@evil.test/a", False),
    ("https://user@example.com/a", False),
    ("https://evil.test?example.com", False),
    ("https://evil.test#@example.com/", False),
    ("http://169.254.169.254/latest/meta-data", False),
    ("http://[::1]/a", False),
]


@pytest.mark.parametrize(("url", "taken"), HOSTS)
async def test_an_attachment_comes_only_from_a_listed_host(server, url, taken):
    body = {"message": "Hello", "attachments": [{"type": "image", "url": url}]}
    assert (await send(server, body))[0] == (200 if taken else 422)


class TestAttachments:
    """With nothing but ``chat.allow``."""

    @pytest.fixture
    def chat(self) -> Chat:
        return Chat(allow=("attachments",))

    async def test_a_file_is_taken_and_a_url_is_not(self, server, redis):
        assert (await send(server, {"message": "Hello", "attachments": [file(524_288)]}))[0] == 200
        assert (await refusal(server, attachments=[file(524_289)]))[0] == "attachments.0.data"
        assert (await refusal(server, attachments=[URL]))[0] == "attachments.0.url"
        assert (await refusal(server, attachments=[file(1)] * 6))[0] == "attachments"
        assert len(await jobs(redis)) == 1


class TestAnyHost:
    @pytest.fixture
    def chat(self) -> Chat:
        return Chat(allow=("attachments",), attachment_hosts=("*",), max_attachment_bytes=0)

    async def test_every_url_is_taken_and_no_file(self, server):
        assert (await send(server, {"message": "Hello", "attachments": [URL]}))[0] == 200
        assert (await refusal(server, attachments=[file(1)]))[0] == "attachments.0.data"


async def test_the_idempotency_key_covers_the_options(server, redis):
    headers = red() | {"Idempotency-Key": "k"}
    first = await send(server, {"message": "Hello"} | ASKED, headers)
    assert await send(server, {"message": "Hello"} | ASKED, headers) == first
    assert (await send(server, {"message": "Hello"} | ASKED | {"max_tokens": 5}, headers))[0] == 409
    assert len(await jobs(redis)) == 1


async def write_reply(redis, channel: str, user: Any, state: str = "streaming") -> None:
    """A reply of two tokens, as a worker writes it."""
    for index, text in enumerate("ab"):
        key = wire.log_key("1", channel, "m")
        await redis.xadd(key, {wire.LOG_TEXT: text}, id=wire.log_entry_id(index))
    mapping = {"user": msgspec.json.encode(user), "state": state, "attempt": 1, "next": 2}
    await redis.hset(wire.message_key("1", channel, "m"), mapping=mapping)


@pytest.mark.parametrize("user", [7, "7"])
async def test_the_user_of_a_message_reads_and_cancels_it_on_its_channel(server, redis, user):
    await write_reply(redis, TEAM, user)
    status, answer = await call(server, "GET", f"/api/chat/m?channel={TEAM}&after=0")
    assert (status, answer["text"], answer["tokens"]) == (200, "ab", ["b"])
    assert await call(server, "POST", f"/api/chat/m/cancel?channel={TEAM}") == (200, {"cancelled": True})
    assert await redis.hget(wire.message_key("1", TEAM, "m"), "cancel") == b"1"
    assert await redis.get(wire.cancel_flags("m")[0]) == b"1"


async def test_nobody_else_does_not_even_a_member_of_the_channel(server, redis):
    await write_reply(redis, TEAM, 7)
    await redis.hset(wire.message_key("1", TEAM, "nobodys"), "state", "streaming")
    for path, headers in (
        (f"m?channel={TEAM}", red(8)),
        ("m", red()),
        (f"nobodys?channel={TEAM}", red()),
        (f"gone?channel={TEAM}", red()),
        ("m?channel=private-team.blue", red()),
    ):
        name, _, query = path.partition("?")
        assert (await call(server, "GET", f"/api/chat/{path}", headers=headers))[0] == 404
        assert (await call(server, "POST", f"/api/chat/{name}/cancel?{query}", headers=headers))[0] == 404
    assert not await redis.hexists(wire.message_key("1", TEAM, "m"), "cancel")
    assert not await redis.exists(*wire.cancel_flags("m"))


async def test_anothers_own_channel_is_not_open_to_a_user_who_names_it(server, redis):
    await write_reply(redis, "private-ai-chat.8", 8)
    assert (await call(server, "GET", "/api/chat/m?channel=private-ai-chat.8"))[0] == 404
    assert (await call(server, "GET", "/api/chat/m?channel=private-ai-chat.8", headers=token(8)))[0] == 200
    assert (await call(server, "GET", "/api/chat/m", headers=token(8)))[0] == 200


@pytest.mark.parametrize("channel", ["", "public", "private-a%7Db", "private-encrypted-a", "x" * 300])
async def test_what_is_no_channel_of_replies_is_a_422(server, channel):
    for method, path in (("GET", "/api/chat/m"), ("POST", "/api/chat/m/cancel")):
        status, answer = await call(server, method, f"{path}?channel={channel}")
        assert (status, list(answer["errors"])) == (422, ["channel"])


async def subscribe(ann: Client, channel: str) -> None:
    """Subscribe; to a presence channel as user 7."""
    member = {"channel_data": '{"user_id":7}'} if channel.startswith("presence-") else {}
    auth = signatures.sign_channel(APP.key, APP.secret, ann.socket_id, channel, *member.values())
    await ann.send("pusher:subscribe", {"channel": channel, "auth": auth} | member)
    assert (await ann.receive())["event"] == "pusher_internal:subscription_succeeded"


@pytest.mark.parametrize("channel", [TEAM, "presence-room"])
async def test_a_late_subscriber_of_a_listed_channel_gets_a_snapshot(server, redis, channel):
    await write_reply(redis, channel, 7)
    await redis.sadd(wire.active_key("1", channel), "m")
    async with client(server.port) as ann:
        await subscribe(ann, channel)
        snapshot = await ann.receive()
    assert (snapshot["event"], snapshot["channel"]) == ("stream.snapshot", channel)
    assert json.loads(snapshot["data"])["text"] == "ab"


@pytest.mark.parametrize("channel", ["private-teams", "presence-room2", "private-other"])
async def test_a_channel_that_is_not_listed_has_none(server, redis, channel):
    await write_reply(redis, channel, 7)
    await redis.sadd(wire.active_key("1", channel), "m")
    async with client(server.port) as ann:
        await subscribe(ann, channel)
        await ann.send("pusher:ping")
        assert (await ann.receive())["event"] == "pusher:pong"


async def test_an_attachment_that_the_body_cannot_carry_is_a_413(valkey_url):
    settings = local_settings(
        server=Server(port=0, drain_seconds=0, max_request_bytes=1_000),
        redis=Redis(url=valkey_url),
        auth=AUTH,
        chat=Chat(allow=("attachments",), max_attachment_bytes=750),
    )
    async with running(settings) as server:
        assert (await send(server, {"message": "x", "attachments": [file(600)]}))[0] == 200
        assert (await send(server, {"message": "x", "attachments": [file(750)]}))[0] == 413
