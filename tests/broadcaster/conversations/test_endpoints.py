"""The endpoints of conversations, and what the user's other pages hear, over a real Redis and database."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.api.conversations import NO_CONVERSATION, NO_DATABASE
from legato.broadcaster.bus.base import BusError
from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat, Server
from legato.broadcaster.redis_client import redis_client
from legato.protocol import wire
from legato.protocol.conversations import MAX_CREATED_BYTES
from legato.protocol.settings import Redis, SettingsError
from legato.worker.replies.log import TokenLog
from legato.worker.replies.reply import Decision
from legato.worker.store.conversations import Store
from tests.broadcaster.api.test_chat import SECRET, call, jobs, send, token
from tests.broadcaster.conftest import Client, client, local_settings
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHANNEL = "private-ai-chat.7"
ONE = "/api/conversations/c1"


@pytest.fixture
async def redis(valkey_url) -> AsyncIterator[Any]:
    async with redis_client(valkey_url) as connected:
        yield connected


@pytest.fixture
async def filled(database: str, _prepared: Path, tmp_path: Path) -> AsyncIterator[Store]:
    """The database with one conversation of user 7."""
    shutil.copyfile(_prepared, tmp_path / "turns.db")
    store = Store(database)
    await store.prepare()
    await say(store, "m1")
    yield store
    await store.aclose()


@pytest.fixture
async def server(valkey_url, database, filled) -> AsyncIterator[Any]:
    settings = local_settings(
        redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET), chat=Chat(database_url=database)
    )
    async with running(settings) as started:
        yield started


async def say(store: Store, message_id: str, conversation: str = "c1", **fields: Any) -> None:
    job = make_job(f"ask {message_id}", message_id, conversation_id=conversation, **fields)
    await store.save(job, f"answer {message_id}", Decision("end_turn"))


@contextlib.asynccontextmanager
async def page(server) -> AsyncIterator[Client]:
    """A page of user 7 that listens to the user's channel."""
    async with client(server.port) as opened:
        assert (await opened.subscribe(CHANNEL))["event"] == "pusher_internal:subscription_succeeded"
        yield opened


async def heard(opened: Client) -> tuple[str, Any]:
    event = await opened.receive()
    assert event["channel"] == CHANNEL
    return event["event"], json.loads(event["data"])


async def hears_nothing(opened: Client, redis) -> None:
    """Up to now: the next that the page hears is what is published here."""
    frame = json.dumps({"event": "next", "channel": CHANNEL, "data": "{}"}).encode()
    envelope = wire.encode_envelope(wire.Envelope(frame))
    await redis.execute_command("SPUBLISH", wire.bus_channel("1", CHANNEL), envelope)
    assert (await heard(opened))[0] == "next"


def by(opened: Client) -> dict[str, str]:
    """The headers of a request by this page."""
    return token() | {"X-Socket-ID": opened.socket_id}


class TestReading:
    async def test_conversations_are_listed_with_title_and_times(self, server, filled):
        await say(filled, "m2", "c2")
        status, answer = await call(server, "GET", "/api/conversations")
        assert status == 200
        assert [(found["id"], found["title"]) for found in answer["conversations"]] == [
            ("c2", "ask m2"),
            ("c1", "ask m1"),
        ]
        assert answer["next"] is None
        assert all(found[name].endswith("Z") for found in answer["conversations"] for name in TIMES)

    async def test_pages_follow_each_other_by_their_cursor(self, server, filled):
        for number in range(2, 5):
            await say(filled, f"m{number}", f"c{number}")
        found, path = [], "/api/conversations?limit=3"
        while path:
            _, answer = await call(server, "GET", path)
            found.append([each["id"] for each in answer["conversations"]])
            path = answer["next"] and f"/api/conversations?limit=3&before={answer['next']}"
        assert found == [["c4", "c3", "c2"], ["c1"]]

    async def test_a_conversation_has_its_turns(self, server, filled):
        await say(filled, "m2")
        status, answer = await call(server, "GET", f"{ONE}?limit=3")
        assert (status, answer["id"], answer["title"]) == (200, "c1", "ask m1")
        assert [(turn["message_id"], turn["role"], turn["parent_id"]) for turn in answer["turns"]] == [
            ("m2", "assistant", "m2"),
            ("m2", "user", "m1"),
            ("m1", "assistant", "m1"),
        ]
        assert answer["turns"][1].keys() == {
            *("message_id", "role", "parent_id", "content", "status", "created_at")
        }
        assert answer["turns"][0]["usage"] == {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}
        assert answer["turns"][0]["stop_reason"] == "end_turn"
        _, rest = await call(server, "GET", f"{ONE}?before={answer['next']}")
        assert [turn["content"] for turn in rest["turns"]] == ["ask m1"]
        assert rest["next"] is None

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=-1", "limit"),
            ("limit=x", "limit"),
            ("limit=²", "limit"),
            ("limit=1000000000000", "limit"),
            ("before=x", "before"),
            ("before=", "before"),
            ("before=" + "W" * 200, "before"),
        ],
    )
    @pytest.mark.parametrize("path", ["/api/conversations", ONE])
    async def test_a_bad_query_is_a_422_that_names_the_field(self, server, path, query, field):
        status, answer = await call(server, "GET", f"{path}?{query.replace('²', '%C2%B2')}")
        assert (status, list(answer["errors"])) == (422, [field])

    @pytest.mark.parametrize("query", ["x" * 201, "x+" * 9])
    async def test_a_search_for_too_much_is_a_422(self, server, query):
        status, answer = await call(server, "GET", f"/api/conversations?q={query}")
        assert (status, list(answer["errors"])) == (422, ["q"])

    async def test_requests_are_counted_by_their_route(self, server):
        await call(server, "GET", "/api/conversations")
        await call(server, "GET", ONE)
        await call(server, "PATCH", ONE, {"title": ""})
        await call(server, "DELETE", ONE)
        counted = server.node.requests
        assert counted["conversations_list", 200] == counted["conversation_read", 200] == 1
        assert counted["conversation_rename", 422] == counted["conversation_delete", 200] == 1


class TestOpenMessages:
    """What waits or runs is shown with what is stored."""

    async def test_a_turn_is_there_from_the_moment_it_is_sent(self, server, redis, filled):
        asked = {"message": "And now?", "conversation_id": "c1"}
        first = (await send(server, asked))[1]["message_id"]
        again = {"regenerate": True, "conversation_id": "c1", "parent_id": "m1"}
        second = (await send(server, again))[1]["message_id"]
        await send(server, asked, token("ann"))
        for status in ("queued", "streaming"):
            _, answer = await call(server, "GET", f"{ONE}?limit=2")
            assert [
                tuple(turn[name] for name in ("message_id", "role", "parent_id", "content", "status"))
                for turn in answer["turns"][:3]
            ] == [
                (second, "assistant", "m1", "", "queued"),
                (first, "assistant", first, "", status),
                (first, "user", "m1", "And now?", "complete"),
            ]
            assert [turn["message_id"] for turn in answer["turns"][3:]] == ["m1", "m1"]
            (job, *_) = await jobs(redis)
            log = TokenLog(redis, tries=2, retention=60).open(job, "a")
            await log.claim()
        await filled.save(job, "Done.", Decision("end_turn"))
        assert [turn["content"] for turn in (await turns(server, "?limit=2"))] == ["", "Done.", "And now?"]
        await log.finish("complete", b"{}")
        assert [turn["message_id"] for turn in await turns(server)] == [second, first, first, "m1", "m1"]
        assert not await redis.hexists(wire.message_key("1", CHANNEL, first), "sent")

    async def test_a_conversation_is_there_before_anything_of_it_is_stored(self, server, redis, filled):
        await send(server, {"message": "Wie ist es in Ålesund?", "conversation_id": "c2"})
        await call(server, "DELETE", ONE)
        await send(server, {"message": "Hello?", "conversation_id": "c1"})
        for _ in ("queued", "prepared by a worker"):
            _, answer = await call(server, "GET", "/api/conversations?q=%C3%85LESUND")
            (found,) = answer["conversations"]
            assert (found["id"], found["title"]) == ("c2", "Wie ist es in Ålesund?")
            _, answer = await call(server, "GET", "/api/conversations")
            assert [each["id"] for each in answer["conversations"]] == ["c2"]
            _, answer = await call(server, "GET", "/api/conversations/c2")
            assert (answer["title"], answer["next"]) == ("Wie ist es in Ålesund?", None)
            assert [turn["role"] for turn in answer["turns"]] == ["assistant", "user"]
            assert (await call(server, "GET", "/api/conversations/c2", None, token("ann")))[0] == 404
            assert (await call(server, "GET", ONE))[0] == 404
            (job, _) = await jobs(redis)
            await filled.with_history(job)

    async def test_jobs_of_other_programs_are_shown_once_they_run(self, server, redis):
        job = make_job("Hello", "x1", app_id="1", conversation_id="c1", parent_id="")
        await TokenLog(redis, tries=2, retention=60).open(job, "a").claim()
        assert (await turns(server))[:2] == [
            {
                "message_id": "x1",
                "role": "assistant",
                "parent_id": "x1",
                "content": "",
                "status": "streaming",
                "created_at": "2023-11-14T22:13:20.000Z",
            },
            {
                "message_id": "x1",
                "role": "user",
                "parent_id": "",
                "content": "Hello",
                "status": "complete",
                "created_at": "2023-11-14T22:13:20.000Z",
            },
        ]


async def turns(server, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await call(server, "GET", f"{ONE}{query}"))[1]["turns"]
    return found


TIMES = ("created_at", "updated_at")

REQUESTS = (
    ("GET", "/api/conversations", None),
    ("GET", ONE, None),
    ("PATCH", ONE, {"title": "Oslo"}),
    ("DELETE", ONE, None),
)


class TestRefusals:
    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}])
    async def test_without_a_valid_token_nothing_is_read_or_changed(
        self, server, method, path, body, headers
    ):
        assert await call(server, method, path, body, headers) == (401, {"message": "Unauthenticated."})
        assert (await call(server, "GET", ONE))[1]["title"] == "ask m1"

    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS[1:])
    async def test_to_another_user_the_conversation_does_not_exist(self, server, method, path, body):
        for headers, where in (
            (token("ann"), path),
            (token(), "/api/conversations/c2"),
            (token(), f"{path}%21"),
        ):
            assert await call(server, method, where, body, headers) == (404, {"message": NO_CONVERSATION})
        _, hers = await call(server, "GET", "/api/conversations", None, token("ann"))
        assert hers == {"conversations": [], "next": None}
        assert len((await call(server, "GET", ONE))[1]["turns"]) == 2

    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
    async def test_without_a_database_the_answer_says_so(self, valkey_url, method, path, body):
        settings = local_settings(redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET))
        async with running(settings) as server:
            assert await call(server, method, path, body) == (503, {"message": NO_DATABASE})
            assert (await call(server, method, path, body, {}))[0] == 401

    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
    async def test_with_the_database_gone_the_answer_does_not_tell_its_address(
        self, tmp_path, valkey_url, method, path, body
    ):
        chat = Chat(database_url=f"sqlite:///{tmp_path}/none.db")
        settings = local_settings(redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET), chat=chat)
        async with running(settings) as server:
            status, answer = await call(server, method, path, body)
            assert (status, answer) == (503, {"message": "The database of conversations does not answer."})
            assert (await send(server, {"message": "Hello", "conversation_id": "c1"}))[0] == 200

    async def test_a_title_that_is_too_long_to_be_one_is_a_413(self, server):
        assert (await call(server, "PATCH", ONE, b" " * 5000))[0] == 413

    @pytest.mark.parametrize("body", [b"junk", {}, {"title": " "}, {"title": "x" * 201}])
    async def test_a_bad_title_is_a_422(self, server, body):
        assert (await call(server, "PATCH", ONE, body))[0] == 422
        assert (await call(server, "GET", ONE))[1]["title"] == "ask m1"

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    async def test_other_methods_are_not_served(self, server, method):
        assert (await call(server, method, ONE, {}))[0] == 405

    async def test_a_wrong_url_stops_the_start_with_one_line(self):
        with pytest.raises(SettingsError, match=r"^chat\.database_url: expected sqlite:///FILE"):
            async with running(local_settings(chat=Chat(database_url="secret"))):
                pass
        assert "secret" not in repr(Chat(database_url="secret"))

    @pytest.mark.usefixtures("filled")
    async def test_without_redis_conversations_are_there_all_the_same(self, database):
        settings = local_settings(auth=Auth(jwt_secret=SECRET), chat=Chat(database_url=database))
        async with running(settings) as server:
            assert (await call(server, "GET", ONE))[0] == 200
            assert (await call(server, "PATCH", ONE, {"title": "Oslo"}))[0] == 200
            assert (await call(server, "DELETE", ONE))[0] == 200
            assert (await call(server, "GET", ONE))[0] == 404


class TestChanges:
    async def test_another_title_is_heard_by_the_other_pages(self, server, redis):
        async with page(server) as one, page(server) as other:
            status, answer = await call(server, "PATCH", ONE, {"title": " Oslo\n "}, by(one))
            assert (status, answer["id"], answer["title"]) == (200, "c1", "Oslo")
            event, data = await heard(other)
            await hears_nothing(one, redis)
        assert event == "conversation.changed"
        assert data == {"conversationId": "c1", "updatedAt": answer["updated_at"], "title": "Oslo"}
        assert (await call(server, "GET", ONE))[1]["title"] == "Oslo"

    async def test_a_deleted_conversation_is_gone_on_all_pages(self, server, redis):
        async with page(server) as one, page(server) as other:
            assert await call(server, "DELETE", ONE, None, by(one)) == (200, {"deleted": True})
            event, data = await heard(other)
            await hears_nothing(one, redis)
        assert event == "conversation.changed"
        assert data.pop("updatedAt").endswith("Z")
        assert data == {"conversationId": "c1", "deleted": True}
        for method, path, body in REQUESTS[1:]:
            assert (await call(server, method, path, body))[0] == 404

    async def test_a_page_that_does_not_say_which_it_is_hears_of_its_own_changes(self, server):
        async with page(server) as one:
            await call(server, "PATCH", ONE, {"title": "Oslo"})
            assert (await heard(one))[0] == "conversation.changed"

    async def test_what_runs_in_a_deleted_conversation_is_cancelled(self, server, redis):
        ids = {}
        for name in ("c1", "c2", None):
            conversation = {"conversation_id": name} if name else {}
            ids[name] = (await send(server, {"message": "Hello"} | conversation))[1]["message_id"]
        assert (await call(server, "DELETE", ONE))[0] == 200
        cancelled = {
            name: await redis.hget(wire.message_key("1", CHANNEL, message_id), "cancel")
            for name, message_id in ids.items()
        }
        assert cancelled == {"c1": b"1", "c2": None, None: None}
        assert await redis.exists(wire.cancel_flags(ids["c1"])[0])

    async def test_a_conversation_is_deleted_though_redis_fails(self, server, monkeypatch, caplog):
        async def fails(*_: Any) -> None:
            raise BusError("gone")

        monkeypatch.setattr(server.node.replies, "cancel_conversation", fails)
        assert await call(server, "DELETE", ONE) == (200, {"deleted": True})
        assert "are not cancelled: gone" in caplog.text
        assert (await call(server, "GET", ONE))[0] == 404

    @pytest.mark.parametrize("socket_id", ["", "x", "1", "1.2;", "1.2\t3", "undefined"])
    async def test_a_bad_socket_id_changes_nothing(self, server, redis, socket_id):
        headers = token() | {"X-Socket-ID": socket_id}
        asked = (
            *REQUESTS[2:],
            ("POST", "/api/chat/send", {"message": "Hello", "conversation_id": "c1"}),
        )
        for method, path, body in asked:
            status, answer = await call(server, method, path, body, headers)
            assert (status, list(answer["errors"])) == (422, ["X-Socket-ID"])
        assert await jobs(redis) == []
        assert (await call(server, "GET", ONE))[1]["title"] == "ask m1"


class TestMessages:
    async def test_a_message_is_heard_by_the_other_pages(self, server, redis):
        sent = {"message": "And now?", "conversation_id": "c1", "parent_id": "m1"}
        async with page(server) as one, page(server) as other:
            status, answer = await send(server, sent, by(one))
            assert status == 200
            event, data = await heard(other)
            await hears_nothing(one, redis)
        assert event == "message.created"
        assert data == {
            "conversationId": "c1",
            "messageId": answer["message_id"],
            "parentId": "m1",
            "message": "And now?",
        }
        (job,) = await jobs(redis)
        assert (job.parent_id, job.regenerate, job.message) == ("m1", False, "And now?")

    async def test_an_answer_once_more_is_heard_without_a_text(self, server, redis):
        async with page(server) as other:
            asked = {"regenerate": True, "conversation_id": "c1", "parent_id": "m1"}
            assert (await send(server, asked))[0] == 200
            _, data = await heard(other)
        assert {"parentId": "m1", "regenerate": True}.items() <= data.items()
        assert "message" not in data
        (job,) = await jobs(redis)
        assert (job.parent_id, job.regenerate, job.message) == ("m1", True, "")

    async def test_a_long_text_is_left_out(self, server):
        async with page(server) as other:
            await send(server, {"message": "x" * (MAX_CREATED_BYTES + 1), "conversation_id": "c1"})
            _, data = await heard(other)
        assert (data["truncated"], "message" in data, "parentId" in data) == (True, False, False)

    async def test_a_message_without_a_conversation_is_not_heard(self, server, redis):
        async with page(server) as other:
            assert (await send(server, {"message": "Hello", "session_id": "s"}))[0] == 200
            await hears_nothing(other, redis)

    async def test_a_repeated_request_is_heard_once(self, server, redis):
        sent, headers = {"message": "Hello", "conversation_id": "c1"}, token() | {"Idempotency-Key": "k"}
        async with page(server) as other:
            answers = [await send(server, sent, headers) for _ in range(3)]
            assert (await heard(other))[1]["messageId"] == answers[0][1]["message_id"]
            await hears_nothing(other, redis)

    async def test_a_refused_message_is_not_heard(self, server, redis):
        async with page(server) as other:
            for body in ({"message": "", "conversation_id": "c1"}, {"message": "x", "parent_id": "m1"}):
                assert (await send(server, body))[0] == 422
            await hears_nothing(other, redis)

    async def test_it_is_heard_where_the_users_pages_are(self, valkey_url):
        """Also when the reply goes elsewhere."""
        settings = local_settings(
            redis=Redis(url=valkey_url),
            auth=Auth(jwt_secret=SECRET, channels=("private-team.{sub}",)),
            chat=Chat(allow=("channel",)),
        )
        async with running(settings) as node, page(node) as other:
            sent = {"message": "Hello", "conversation_id": "c1", "channel": "private-team.7"}
            assert (await send(node, sent))[0] == 200
            assert (await heard(other))[0] == "message.created"


@pytest.mark.usefixtures("filled")
async def test_on_a_cluster_what_runs_in_a_deleted_conversation_is_cancelled(redis_cluster, database):
    settings = local_settings(
        redis=Redis(url=redis_cluster.url), auth=Auth(jwt_secret=SECRET), chat=Chat(database_url=database)
    )
    async with running(settings) as server, redis_client(redis_cluster.url) as redis, page(server) as one:
        sent = {"message": "Hello", "conversation_id": "c1"}
        message_id = (await send(server, sent, by(one)))[1]["message_id"]
        assert (await call(server, "DELETE", ONE))[0] == 200
        assert (await heard(one))[0] == "conversation.changed"
        assert await redis.hget(wire.message_key("1", CHANNEL, message_id), "cancel") == b"1"


async def test_pages_of_other_origins_may_change_conversations_if_they_are_allowed():
    origin = "https://chat.example.com"
    settings = local_settings(
        server=Server(port=0, drain_seconds=0, cors_origins=(origin,)), auth=Auth(jwt_secret=SECRET)
    )
    async with running(settings) as server:

        def ask(method: str, asker: str) -> tuple[int, str | None]:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            headers = {
                "Origin": asker,
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization, x-socket-id",
            }
            connection.request("OPTIONS", ONE, None, headers)
            response = connection.getresponse()
            response.read()
            connection.close()
            return response.status, response.headers["access-control-allow-methods"]

        for method in ("PATCH", "DELETE"):
            status, methods = await asyncio.to_thread(ask, method, origin)
            assert status == 200
            assert method in (methods or "")
            assert (await asyncio.to_thread(ask, method, "https://evil.test"))[0] == 400
        assert (await asyncio.to_thread(ask, "PUT", origin))[0] == 400
