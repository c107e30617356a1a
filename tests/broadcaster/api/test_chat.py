"""The chat endpoints against a real Redis; the worker's side is written by hand here."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import jwt
import pusher
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from legato.broadcaster.composition import running
from legato.broadcaster.config import LOCAL_HOSTS, Auth, Chat, Dev, Server
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.replies import healer as healing
from legato.protocol import signatures, stream, wire
from legato.protocol.jobs import Job, decode_job
from legato.protocol.settings import Redis, SettingsError
from tests.broadcaster.api.test_http_api import signed
from tests.broadcaster.conftest import APP, client, local_settings
from tests.conftest import BINARIES
from tests.redis_servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "a secret of more than thirty-two bytes"
JOBS = wire.jobs_key("ai-streaming")


def token(sub: Any = 7, **claims: Any) -> dict[str, str]:
    return {"Authorization": "Bearer " + jwt.encode({"sub": sub, "exp": 2**32} | claims, SECRET)}


@pytest.fixture
async def redis(valkey_url) -> AsyncIterator[Any]:
    async with redis_client(valkey_url) as connected:
        yield connected


@pytest.fixture
async def server(valkey_url) -> AsyncIterator[Any]:
    settings = local_settings(redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET))
    async with running(settings) as started:
        yield started


async def call(server, method: str, path: str, body: Any = None, headers: Any = None) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()

    def work():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, path, raw, token() if headers is None else headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, json.loads(answer)

    return await asyncio.to_thread(work)


async def send(server, body: Any, headers: Any = None) -> tuple[int, Any]:
    return await call(server, "POST", "/api/chat/send", body, headers)


async def jobs(redis) -> list[Job]:
    return [decode_job(fields[b"job"]) for _, fields in await redis.xrange(JOBS)]


async def test_sending_queues_a_job_and_answers_its_id(server, redis):
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    status, answer = await send(server, {"message": "Hello", "history": history, "session_id": "s-1"})
    assert status == 200
    (job,) = await jobs(redis)
    assert answer == {"message_id": job.message_id}
    assert (job.user_id, job.message, job.app_id, job.session_id) == (7, "Hello", "1", "s-1")
    assert [(turn.role, turn.content) for turn in job.history] == [("user", "a"), ("assistant", "b")]
    assert job.queued_at > 1_700_000_000_000
    key = wire.message_key("1", "private-ai-chat.7", job.message_id)
    assert await redis.hgetall(key) == {b"user": b"7", b"state": b"queued"}
    assert 86_000 < await redis.ttl(key) <= 86_400


async def test_a_lone_surrogate_in_a_message_is_accepted(server, redis):
    history = [{"role": "user", "content": "\ude00 nice"}]
    for body in ({"message": "\ude00 nice"}, {"message": "more", "history": history}):
        assert (await send(server, body))[0] == 200
    first, second = await jobs(redis)
    assert first.message == second.history[0].content == "\ufffd nice"


async def test_a_conversation_goes_to_the_worker_by_its_id(server, redis):
    assert (await send(server, {"message": "Hello", "conversation_id": "c-1"}))[0] == 200
    (job,) = await jobs(redis)
    assert (job.conversation_id, job.history) == ("c-1", ())


@pytest.mark.parametrize(("sub", "user"), [("7", 7), (7, 7), ("ann", "ann"), ("007", "007")])
async def test_the_user_is_the_tokens_sub(server, redis, sub, user):
    assert (await send(server, {"message": "Hello"}, token(sub)))[0] == 200
    assert [job.user_id for job in await jobs(redis)] == [user]


BAD_BODIES = [
    (b"junk", "$"),
    (b"", "$"),
    ([], "$"),
    ({}, "message"),
    ({"message": "x" * 100_001}, "message"),
    ({"message": "x", "history": [{"role": "system", "content": "x"}]}, "history.0.role"),
    ({"message": "x", "history": [{"role": "user", "content": "x"}] * 1001}, "history"),
    ({"message": "x", "history": [{"role": "user", "content": "x"}], "conversation_id": "c"}, "history"),
    ({"message": "x", "conversation_id": ""}, "conversation_id"),
]


@pytest.mark.parametrize(("body", "field"), BAD_BODIES)
async def test_a_bad_body_is_a_422_that_names_the_field(server, redis, body, field):
    status, answer = await send(server, body)
    assert status == 422
    assert list(answer["errors"]) == [field]
    assert answer["errors"][field] == [answer["message"]]
    assert await jobs(redis) == []


async def test_a_body_over_the_limit_is_a_413(valkey_url):
    settings = local_settings(
        server=Server(port=0, drain_seconds=0, max_request_bytes=1_000),
        redis=Redis(url=valkey_url),
        auth=Auth(jwt_secret=SECRET),
    )
    async with running(settings) as server:
        assert (await send(server, b" " * 2_000))[0] == 413


async def test_without_a_valid_token_nothing_is_queued_or_read(server, redis):
    for path, method in [("/api/chat/send", "POST"), ("/api/chat/x/cancel", "POST"), ("/api/chat/x", "GET")]:
        for headers in ({}, {"Authorization": "Bearer x"}, token("a b")):
            assert await call(server, method, path, b"{}", headers) == (401, {"message": "Unauthenticated."})
    assert [key async for key in redis.scan_iter("legato:jobs:*")] == []
    assert [key async for key in redis.scan_iter("*stream_cancel*")] == []


class TestLimits:
    """Limits of open messages per user, and of the queue."""

    OPEN = wire.open_key("1", "private-ai-chat.7")

    @pytest.fixture
    async def server(self, valkey_url) -> AsyncIterator[Any]:
        settings = local_settings(
            redis=Redis(url=valkey_url),
            auth=Auth(jwt_secret=SECRET),
            chat=Chat(max_open_per_user=2, max_queued=4),
        )
        async with running(settings) as started:
            yield started

    async def refusal(self, server, **headers: str) -> tuple[int, int]:
        """Status and ``Retry-After`` of a refused message."""
        answer = await fetch(server.port, "/api/chat/send", b'{"message": "Hello"}', **token() | headers)
        assert json.loads(answer.body)["message"].startswith("Too many")
        return answer.status, int(answer.headers["retry-after"])

    async def test_open_messages_are_limited_per_user(self, server, redis):
        ids = [(await send(server, {"message": "Hello"}))[1]["message_id"] for _ in range(2)]
        assert await self.refusal(server) == (429, 5)
        assert (await send(server, {"message": "Hello"}, token(8)))[0] == 200
        await redis.zrem(self.OPEN, ids[0])  # as the worker does when it has ended
        assert (await send(server, {"message": "Hello"}))[0] == 200
        assert len(await jobs(redis)) == 4

    async def test_open_messages_that_never_end_expire(self, server, redis):
        for _ in range(2):
            await send(server, {"message": "Hello"})
        assert 86_000 < await redis.ttl(self.OPEN) <= 86_400
        for message_id in await redis.zrange(self.OPEN, 0, -1):
            await redis.zadd(self.OPEN, {message_id: 1})
        assert (await send(server, {"message": "Hello"}))[0] == 200

    async def test_a_full_queue_refuses_messages(self, server, redis):
        for sub in (8, 8, 9, 9):
            assert (await send(server, {"message": "Hello"}, token(sub)))[0] == 200
        assert await self.refusal(server) == (503, 10)
        assert (len(await jobs(redis)), await redis.exists(self.OPEN)) == (4, 0)

    async def test_a_refused_idempotency_key_stays_free_and_a_taken_one_is_answered(self, server, redis):
        taken = [
            await send(server, {"message": "Hello"}, token() | {"Idempotency-Key": name}) for name in "ab"
        ]
        again = await send(server, {"message": "Hello"}, token() | {"Idempotency-Key": "b"})
        assert again == taken[1]
        assert await self.refusal(server, **{"Idempotency-Key": "c"}) == (429, 5)
        assert await self.refusal(server, **{"Idempotency-Key": "c"}) == (429, 5)
        await redis.zrem(self.OPEN, taken[0][1]["message_id"])
        assert (await send(server, {"message": "Hello"}, token() | {"Idempotency-Key": "c"}))[0] == 200
        assert len(await jobs(redis)) == 3

    async def test_messages_refused_by_a_full_queue_do_not_count(self, server, redis):
        """A message that the queue has refused does not count, with or without a key."""
        for sub in (8, 8, 9, 9):
            await send(server, {"message": "Hello"}, token(sub))
        for headers in ({}, {}, {}, {"Idempotency-Key": "a"}, {"Idempotency-Key": "a"}):
            assert await self.refusal(server, **headers) == (503, 10)
        assert [key async for key in redis.scan_iter("legato:*ai-chat.7*")] == []
        await redis.delete(JOBS)
        for headers in ({}, {"Idempotency-Key": "a"}):
            assert (await send(server, {"message": "Hello"}, token() | headers))[0] == 200
        assert await self.refusal(server) == (429, 5)

    async def test_a_repetition_that_overtakes_a_refusal_stays_the_only_one(self, server, redis, monkeypatch):
        """Request 1 is refused; before its key is free again, 2 is queued; 3 has to find the message of 2."""
        headers = token() | {"Idempotency-Key": "k"}
        first = [(await send(server, {"message": "Hello"}))[1]["message_id"] for _ in range(2)]
        replies = server.node.replies
        refuse = replies.refuse
        overtaken = []

        async def late(*arguments: Any) -> None:
            await redis.zrem(self.OPEN, first.pop())
            overtaken.append(await send(server, {"message": "Hello"}, headers))
            await refuse(*arguments)

        monkeypatch.setattr(replies, "refuse", late)
        assert (await send(server, {"message": "Hello"}, headers))[0] == 429
        third = await send(server, {"message": "Hello"}, headers)
        assert overtaken == [third]
        assert third[0] == 200
        assert len(await jobs(redis)) == 3

    async def test_a_claimed_message_is_not_counted_as_open_again(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        _, answer = await send(server, {"message": "Hello"}, headers)
        (job,) = await jobs(redis)
        await redis.hset(
            wire.message_key("1", "private-ai-chat.7", answer["message_id"]), mapping={"state": "complete"}
        )
        await redis.delete(self.OPEN)
        assert not await server.node.replies.submit_once(job, again=False)
        assert await redis.exists(self.OPEN) == 0

    async def test_a_refused_request_leaves_its_key_to_another_body(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        first = [(await send(server, {"message": "Hello"}))[1]["message_id"] for _ in range(2)]
        assert (await send(server, {"message": "Hello"}, headers))[0] == 429
        await redis.zrem(self.OPEN, first.pop())
        assert (await send(server, {"message": "Something else"}, headers))[0] == 200
        assert (await send(server, {"message": "Hello"}, headers))[0] == 409

    async def test_a_repeated_request_is_also_subject_to_the_queue_limit(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        _, answer = await send(server, {"message": "Hello"}, headers)
        await redis.delete(wire.queued_mark("ai-streaming", answer["message_id"]), JOBS)
        for sub in (8, 8, 9, 9):
            await send(server, {"message": "Hello"}, token(sub))
        assert await self.refusal(server, **{"Idempotency-Key": "k"}) == (503, 10)
        assert len(await jobs(redis)) == 4

    async def test_a_message_whose_fate_is_unknown_counts_for_a_minute_only(self, server, redis, monkeypatch):
        async def lost(*_arguments: Any) -> Any:
            raise RedisConnectionError("cut off")

        monkeypatch.setattr(server.node.replies, "_enqueue", lost)
        for _ in range(2):
            assert (await send(server, {"message": "Hello"}))[0] == 503
        assert (await send(server, {"message": "Hello"}))[0] == 429
        forgotten = [at for _, at in await redis.zrange(self.OPEN, 0, -1, withscores=True)]
        assert all(0 < at - time.time() <= 61 for at in forgotten)

    async def test_a_message_that_ended_at_once_is_not_counted_again(self, server, redis, monkeypatch):
        """The worker may finish before the broadcaster records that the job is queued."""
        replies = server.node.replies
        enqueue = replies._enqueue

        async def done_at_once(keys: Any, arguments: Any) -> Any:
            answer = await enqueue(keys, arguments)
            await redis.delete(self.OPEN)
            return answer

        monkeypatch.setattr(replies, "_enqueue", done_at_once)
        for _ in range(3):
            assert (await send(server, {"message": "Hello"}))[0] == 200
        assert await redis.exists(self.OPEN) == 0

    async def test_a_message_claimed_by_a_worker_is_not_undone(self, server, redis):
        _, answer = await send(server, {"message": "Hello"})
        key = wire.message_key("1", "private-ai-chat.7", answer["message_id"])
        (job,) = await jobs(redis)
        await redis.hset(key, mapping={"attempt": 1, "state": "streaming"})
        await server.node.replies._settle(job, queued=False)
        assert await redis.hget(key, "state") == b"streaming"

    async def test_both_can_be_switched_off(self, valkey_url):
        settings = local_settings(
            redis=Redis(url=valkey_url),
            auth=Auth(jwt_secret=SECRET),
            chat=Chat(max_open_per_user=0, max_queued=0),
        )
        async with running(settings) as server:
            answers = [await send(server, {"message": "Hello"}) for _ in range(12)]
        assert {status for status, _ in answers} == {200}


async def test_messages_refused_by_a_full_redis_do_not_count():
    """Redis refuses the job but accepts commands that need no memory: the count has to be undone."""
    with RedisServer(BINARIES["valkey"]) as redis_server:
        settings = local_settings(redis=Redis(url=redis_server.url), auth=Auth(jwt_secret=SECRET))
        async with running(settings) as server, redis_client(redis_server.url) as redis:
            assert (await send(server, {"message": "Hello"}))[0] == 200  # its scripts are loaded
            await redis.config_set("maxmemory", 1)
            for number in range(12):
                headers = token() | ({"Idempotency-Key": "k"} if number % 2 else {})
                assert (await send(server, {"message": "Hello"}, headers))[0] == 503
            await redis.config_set("maxmemory", 0)
            assert await redis.zcard(TestLimits.OPEN) == 1
            assert [key async for key in redis.scan_iter("legato:idempotency:*")] == []
            for _ in range(9):
                assert (await send(server, {"message": "Hello"}))[0] == 200
            assert (await send(server, {"message": "Hello"}))[0] == 429


async def test_on_a_cluster_what_is_refused_does_not_count(redis_cluster):
    settings = local_settings(
        redis=Redis(url=redis_cluster.url), auth=Auth(jwt_secret=SECRET), chat=Chat(max_queued=1)
    )
    async with running(settings) as server:
        assert (await send(server, {"message": "Hello"}, token(8)))[0] == 200
        headers = token() | {"Idempotency-Key": "k"}
        statuses = [(await send(server, {"message": "Hello"}, headers))[0] for _ in range(12)]
        assert statuses == [503] * 12
        async with redis_client(redis_cluster.url) as redis:
            assert await redis.exists(TestLimits.OPEN) == 0


class TestIdempotency:
    async def test_the_same_key_and_body_give_the_same_id_and_one_job(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        answers = [await send(server, {"message": "Hello"}, headers) for _ in range(3)]
        assert len({answer["message_id"] for _, answer in answers}) == 1
        assert len(await jobs(redis)) == 1

    async def test_another_body_is_a_conflict(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        await send(server, {"message": "Hello"}, headers)
        assert (await send(server, {"message": "Other"}, headers))[0] == 409
        assert len(await jobs(redis)) == 1

    async def test_another_user_has_keys_of_their_own(self, server, redis):
        for sub in (7, 8):
            assert (await send(server, {"message": "Hello"}, token(sub) | {"Idempotency-Key": "k"}))[0] == 200
        assert len(await jobs(redis)) == 2

    @pytest.mark.parametrize("key", ["", "x" * 256])
    async def test_a_key_has_bounds(self, server, key):
        status, answer = await send(server, {"message": "Hello"}, token() | {"Idempotency-Key": key})
        assert (status, list(answer["errors"])) == (422, ["Idempotency-Key"])

    async def test_a_repeated_request_completes_an_interrupted_one(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        await redis.set(JOBS, "not a stream")
        assert (await send(server, {"message": "Hello"}, headers))[0] == 503
        await redis.delete(JOBS)
        answers = [await send(server, {"message": "Hello"}, headers) for _ in range(3)]
        assert {status for status, _ in answers} == {200}
        (job,) = await jobs(redis)
        assert {answer["message_id"] for _, answer in answers} == {job.message_id}
        assert (await call(server, "GET", f"/api/chat/{job.message_id}"))[1]["status"] == "queued"

    async def test_two_at_once_queue_one_job(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        answers = await asyncio.gather(*(send(server, {"message": "Hello"}, headers) for _ in range(8)))
        (job,) = await jobs(redis)
        assert {answer["message_id"] for _, answer in answers} == {job.message_id}

    async def test_repeating_does_not_bring_a_finished_message_back(self, server, redis):
        headers = token() | {"Idempotency-Key": "k"}
        _, answer = await send(server, {"message": "Hello"}, headers)
        key = wire.message_key("1", "private-ai-chat.7", answer["message_id"])
        await redis.hset(key, "state", "complete")
        await send(server, {"message": "Hello"}, headers)
        assert await redis.hget(key, "state") == b"complete"
        await redis.delete(key)
        await send(server, {"message": "Hello"}, headers)
        assert not await redis.exists(key)
        assert len(await jobs(redis)) == 1


class TestCancel:
    async def test_the_owner_sets_the_flag_and_may_do_so_twice(self, server, redis):
        _, answer = await send(server, {"message": "Hello"})
        message_id = answer["message_id"]
        for _ in range(2):
            assert await call(server, "POST", f"/api/chat/{message_id}/cancel") == (200, {"cancelled": True})
        flag = wire.cancel_flags(message_id)[0]
        assert await redis.get(flag) == b"1"
        assert 290 < await redis.ttl(flag) <= 300
        assert await redis.hget(wire.message_key("1", "private-ai-chat.7", message_id), "cancel") == b"1"

    async def test_a_stranger_finds_nothing(self, server, redis):
        _, answer = await send(server, {"message": "Hello"})
        message_id = answer["message_id"]
        assert (await call(server, "POST", f"/api/chat/{message_id}/cancel", headers=token(8)))[0] == 404
        assert (await call(server, "GET", f"/api/chat/{message_id}", headers=token(8)))[0] == 404
        assert await redis.get(wire.cancel_flags(message_id)[0]) is None

    @pytest.mark.parametrize("message_id", ["nope", "a%7Db", "x" * 65])
    async def test_an_unknown_id_is_not_found(self, server, message_id):
        assert (await call(server, "POST", f"/api/chat/{message_id}/cancel"))[0] == 404
        assert (await call(server, "GET", f"/api/chat/{message_id}"))[0] == 404


async def write_log(
    redis, message_id: str, texts: list[str], state: str = "streaming", **fields: Any
) -> None:
    """Write a log as a worker does."""
    channel = "private-ai-chat.7"
    for index, text in enumerate(texts):
        await redis.xadd(
            wire.log_key("1", channel, message_id), {wire.LOG_TEXT: text}, id=wire.log_entry_id(index)
        )
    mapping = {"user": "7", "state": state, "attempt": 1, "next": len(texts)} | fields
    await redis.hset(wire.message_key("1", channel, message_id), mapping=mapping)


class TestRead:
    async def test_a_queued_message_has_no_text_yet(self, server):
        _, answer = await send(server, {"message": "Hello"})
        assert await call(server, "GET", f"/api/chat/{answer['message_id']}") == (
            200,
            {"text": "", "tokens": [], "nextIndex": 0, "attempt": 0, "status": "queued"},
        )

    @pytest.mark.parametrize(
        ("after", "tokens"), [("", ["a", "b", "c"]), ("?after=0", ["b", "c"]), ("?after=9", [])]
    )
    async def test_the_tokens_behind_an_index(self, server, redis, after, tokens):
        await write_log(redis, "m", ["a", "b", "c"])
        assert await call(server, "GET", f"/api/chat/m{after}") == (
            200,
            {"text": "abc", "tokens": tokens, "nextIndex": 3, "attempt": 1, "status": "streaming"},
        )

    async def test_the_final_marker_is_not_a_token(self, server, redis):
        await write_log(redis, "m", ["a"], "complete")
        log = wire.log_key("1", "private-ai-chat.7", "m")
        await redis.xadd(log, {wire.LOG_FINAL: "{}"}, id=wire.LOG_FINAL_ID)
        assert (await call(server, "GET", "/api/chat/m"))[1]["tokens"] == ["a"]

    async def test_a_failed_reply_says_why(self, server, redis):
        await write_log(redis, "m", ["a"], "failed", error=stream.FAILED_TEXT)
        _, answer = await call(server, "GET", "/api/chat/m")
        assert (answer["status"], answer["error"]) == ("failed", stream.FAILED_TEXT)

    async def test_a_partial_log_is_never_returned_as_complete(self, server, redis):
        await write_log(redis, "m", ["a", "b"])
        await redis.xdel(wire.log_key("1", "private-ai-chat.7", "m"), wire.log_entry_id(0))
        assert (await call(server, "GET", "/api/chat/m"))[0] == 410

    @pytest.mark.parametrize("after", ["x", "-2", "1e3", "9" * 10])
    async def test_a_bad_index_is_a_422(self, server, after):
        status, answer = await call(server, "GET", f"/api/chat/m?after={after}")
        assert (status, list(answer["errors"])) == (422, ["after"])


async def subscribe_to_chat(ann) -> None:
    assert (await ann.subscribe("private-ai-chat.7"))["event"] == "pusher_internal:subscription_succeeded"


async def test_a_client_that_subscribes_while_a_reply_streams_gets_a_snapshot(server, redis):
    await write_log(redis, "m", ["a", "b"])
    await write_log(redis, "done", ["x"], "complete")
    await redis.sadd(wire.active_key("1", "private-ai-chat.7"), "m", "done", "gone")
    for _ in range(2):
        async with client(server.port) as ann:
            await subscribe_to_chat(ann)
            snapshot = await ann.receive()
            assert snapshot["event"] == "stream.snapshot"
            assert json.loads(snapshot["data"]) == {
                "messageId": "m",
                "text": "ab",
                "nextIndex": 2,
                "status": "streaming",
            }
            await ann.send("pusher:ping")
            assert (await ann.receive())["event"] == "pusher:pong"


async def test_other_channels_have_no_snapshots(server, redis):
    await write_log(redis, "m", ["a"])
    await redis.sadd(wire.active_key("1", "private-other"), "m")
    async with client(server.port) as ann:
        await ann.subscribe("private-other")
        await ann.send("pusher:ping")
        assert (await ann.receive())["event"] == "pusher:pong"


async def test_a_failed_snapshot_closes_no_connection(server, redis, caplog, monkeypatch):
    monkeypatch.setattr(healing, "SNAPSHOT_PAUSES", (0.01,))
    await redis.set(wire.active_key("1", "private-ai-chat.7"), "not a set")
    async with client(server.port) as ann:
        await subscribe_to_chat(ann)
        async with asyncio.timeout(30):
            while "no snapshot" not in caplog.text:  # noqa: ASYNC110 - the log is the only sign
                await asyncio.sleep(0.01)
        await ann.send("pusher:ping")
        assert (await ann.receive())["event"] == "pusher:pong"


async def test_without_redis_chat_says_that_it_is_off():
    async with running(local_settings(auth=Auth(jwt_secret=SECRET))) as server:
        status, answer = await send(server, {"message": "Hello"})
        assert (status, "no Redis" in answer["message"]) == (503, True)


async def test_with_redis_gone_chat_is_unavailable_and_comes_back():
    with RedisServer(BINARIES["valkey"]) as redis_server:
        settings = local_settings(redis=Redis(url=redis_server.url), auth=Auth(jwt_secret=SECRET))
        async with running(settings) as server:
            redis_server.kill()
            # Where Redis is, and what is wrong with it, is not for users.
            unavailable = (503, {"message": "Redis does not answer"})
            assert await send(server, {"message": "Hello"}) == unavailable
            redis_server.start()
            assert (await send(server, {"message": "Hello"}))[0] == 200


class TestChannelAuth:
    async def auth(self, server, body: bytes, headers: Any = None) -> tuple[int, Any]:
        return await call(server, "POST", "/broadcasting/auth", body, headers)

    async def test_the_users_own_channel_is_signed(self, server):
        async with client(server.port) as ann:
            form = f"socket_id={ann.socket_id}&channel_name=private-ai-chat.7".encode()
            status, answer = await self.auth(server, form)
            assert status == 200
            assert answer == {
                "auth": signatures.sign_channel(APP.key, APP.secret, ann.socket_id, "private-ai-chat.7")
            }
            await ann.send("pusher:subscribe", {"channel": "private-ai-chat.7"} | answer)
            assert (await ann.receive())["event"] == "pusher_internal:subscription_succeeded"

    @pytest.mark.parametrize(
        "channel",
        [
            "private-ai-chat.8",
            "private-ai-chat.70",
            "private-ai-chat.",
            "private-x",
            "",
            "xprivate-ai-chat.7",
        ],
    )
    async def test_no_other_channel_is_signed(self, server, channel):
        status, answer = await self.auth(server, f"socket_id=1.2&channel_name={channel}".encode())
        assert (status, answer) == (403, {"message": "Forbidden."})

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"channel_name=private-ai-chat.7",
            b"socket_id=1&channel_name=private-ai-chat.7",
            b"socket_id=1.2:private-ai-chat.8&channel_name=private-ai-chat.7",
            b"\xff",
            b"&".join([b"a=1"] * 100),
        ],
    )
    async def test_a_bad_form_is_a_422(self, server, body):
        assert (await self.auth(server, body))[0] == 422

    MULTIPART = (
        b'--b\r\nContent-Disposition: form-data; name="socket_id"\r\n\r\n1.2\r\n'
        b'--b\r\nContent-Disposition: form-data; name="channel_name"\r\n\r\nprivate-ai-chat.7\r\n--b--\r\n'
    )
    JSON = b'{"socket_id":"1.2","channel_name":"private-ai-chat.7","more":{"a":["\\ud83d"]}}'
    URLENCODED = b"socket_id=1.2&channel_name=private-ai-chat.7"

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("multipart/form-data; boundary=b", MULTIPART),
            ("Multipart/Form-Data; boundary=b", MULTIPART),
            ("application/json", JSON),
            ("application/json; charset=utf-8", JSON),
            ("application/vnd.api+json", JSON),
            ("text/plain;charset=UTF-8", JSON),
            ("", b" " + JSON),
            ("", URLENCODED),
            ("application/x-www-form-urlencoded; charset=UTF-8", URLENCODED),
        ],
    )
    @pytest.mark.parametrize("path", ["/broadcasting/auth", "/broadcasting/user-auth"])
    async def test_a_form_is_read_as_clients_send_it(self, server, path, kind, body):
        status, answer = await call(server, "POST", path, body, token() | {"Content-Type": kind})
        assert status == 200
        if path == "/broadcasting/auth":
            signed = signatures.sign_channel(APP.key, APP.secret, "1.2", "private-ai-chat.7")
            assert answer == {"auth": signed}
        else:
            assert json.loads(answer["user_data"]) == {"id": "7"}

    @pytest.mark.parametrize(
        ("kind", "body", "reason"),
        [
            ("multipart/form-data", MULTIPART, "not a multipart form: Missing boundary"),
            ("multipart/form-data; boundary=c", MULTIPART, "not a multipart form"),
            (
                "multipart/form-data; boundary=b",
                MULTIPART.replace(b'name="socket_id"', b'name="socket_id"; filename="x"'),
                "not a multipart form: Too many files",
            ),
            (
                "multipart/form-data; boundary=b",
                b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 33 + b"--b--\r\n",
                "not a multipart form: Too many fields",
            ),
            ("multipart/form-data; boundary=b", MULTIPART[:80], "its end is missing"),
            ("application/json", URLENCODED, "not a JSON object"),
            ("application/json", b"[" * 10_000, "not a JSON object"),
            ("application/json", b'["1.2"]', "not a JSON object"),
            ("application/json", b'{"socket_id":1.2}', "Expected two numbers"),
            ("application/x-www-form-urlencoded", JSON[:-1], "not a JSON object"),
            ("application/xml", b"<a/>", "Expected two numbers"),
        ],
    )
    async def test_wrong_content_is_a_422_that_says_so(self, server, kind, body, reason):
        headers = token() | {"Content-Type": kind}
        status, answer = await call(server, "POST", "/broadcasting/auth", body, headers)
        assert (status, reason in answer["message"]) == (422, True), answer

    async def test_any_form_is_bounded(self, server):
        for kind in ("multipart/form-data; boundary=b", "application/json"):
            headers = token() | {"Content-Type": kind}
            assert (await call(server, "POST", "/broadcasting/auth", b"{" * 20_000, headers))[0] == 413

    async def test_no_token_no_signature(self, server):
        assert (await self.auth(server, b"socket_id=1.2&channel_name=private-ai-chat.7", {}))[0] == 401

    async def test_a_large_form_is_refused(self, server):
        assert (await self.auth(server, b"x" * 20_000))[0] == 413


class TestMoreThanPrivateChannels:
    """The other authorisation endpoints: presence and encrypted channels, and users."""

    MASTER_KEY = base64.b64encode(b"k" * 32).decode()

    @pytest.fixture
    async def server(self) -> AsyncIterator[Any]:
        auth = Auth(
            jwt_secret=SECRET,
            channels=("presence-room.{team}", "private-encrypted-{sub}"),
            user_info=("name", "team"),
            encryption_master_key=self.MASTER_KEY,
        )
        async with running(local_settings(auth=auth)) as started:
            yield started

    async def auth(self, server, path: str, headers: Any, **form: str) -> tuple[int, Any]:
        body = urlencode(form).encode()
        return await call(server, "POST", f"/broadcasting/{path}", body, headers)

    @pytest.mark.parametrize("sub", [7, "ann"])
    async def test_a_presence_channel_is_joined_as_the_user_with_the_claims_to_be_told(self, server, sub):
        headers = token(sub, team="red", name="Ann", email="ann@example.com")
        async with client(server.port) as ann:
            form = {"socket_id": ann.socket_id, "channel_name": "presence-room.red"}
            status, answer = await self.auth(server, "auth", headers, **form)
            assert status == 200
            assert json.loads(answer["channel_data"]) == {
                "user_id": sub,
                "user_info": {"name": "Ann", "team": "red"},
            }
            await ann.send("pusher:subscribe", {"channel": "presence-room.red"} | answer)
            roster = json.loads((await ann.receive())["data"])["presence"]
            assert roster["hash"] == {str(sub): {"name": "Ann", "team": "red"}}

    async def test_a_user_signs_in(self, server):
        async with client(server.port) as ann:
            status, answer = await self.auth(
                server, "user-auth", token(7, name="Ann"), socket_id=ann.socket_id
            )
            assert status == 200
            assert json.loads(answer["user_data"]) == {"id": "7", "user_info": {"name": "Ann"}}
            await ann.send("pusher:signin", answer)
            assert (await ann.receive())["event"] == "pusher:signin_success"

    async def test_an_encrypted_channel_gets_its_secret(self, server):
        form = {"socket_id": "1.2", "channel_name": "private-encrypted-7"}
        status, answer = await self.auth(server, "auth", token(7), **form)
        sdk = pusher.Pusher("1", APP.key, APP.secret, encryption_master_key_base64=self.MASTER_KEY)
        expected = sdk.authenticate("private-encrypted-7", "1.2")
        expected["shared_secret"] = expected["shared_secret"].decode()  # bytes, in this SDK
        assert (status, answer) == (200, expected)

    async def test_without_a_master_key_it_gets_none(self):
        auth = Auth(jwt_secret=SECRET, channels=("private-encrypted-{sub}",))
        async with running(local_settings(auth=auth)) as server:
            form = {"socket_id": "1.2", "channel_name": "private-encrypted-7"}
            status, answer = await self.auth(server, "auth", token(7), **form)
            assert status == 403
            assert "encryption_master_key" in answer["message"]

    @pytest.mark.parametrize("path", ["auth", "user-auth"])
    async def test_claims_that_exceed_the_limits_are_refused(self, server, path):
        form = {"socket_id": "1.2", "channel_name": "presence-room.red"}
        large = token(7, team="red", name="x" * 2000)
        status, answer = await self.auth(server, path, large, **form)
        assert (status, "user_info" in answer["message"]) == (403, True)
        long = token(7, team="r" * 300)
        assert (await self.auth(server, path, long, **form))[0] == (403 if path == "auth" else 200)
        form["channel_name"] = f"presence-room.{'r' * 300}"
        assert (await self.auth(server, path, long, **form))[0] == (403 if path == "auth" else 200)
        assert (await self.auth(server, path, {}, **form))[0] == 401
        form["channel_name"] = "presence-room.red"
        assert (await self.auth(server, path, token("no user", team="red"), **form))[0] == 401
        assert (await self.auth(server, path, token(7)))[0] == 422

    async def test_an_invalid_master_key_stops_the_start(self):
        for key in ("x", "AAAA", base64.b64encode(b"k" * 31).decode()):
            with pytest.raises(SettingsError, match="32 bytes in base64"):
                async with running(local_settings(auth=Auth(jwt_secret=SECRET, encryption_master_key=key))):
                    pass


class TestDevelopment:
    async def test_tokens_and_the_page_exist_in_development_only(self, server, tmp_path):
        for path in ("/dev/token?sub=7", "/dev/config", "/index.html"):
            assert (await call(server, "GET", path))[0] == 404
        (tmp_path / "index.html").write_text("<p>hello")
        dev = Dev(enabled=True, page=str(tmp_path), provider="scripted")
        settings = local_settings(auth=Auth(jwt_secret=SECRET), dev=dev)
        async with running(settings) as development:
            status, answer = await call(development, "GET", "/dev/token?sub=7")
            assert status == 200
            claims = jwt.decode(answer["token"], SECRET, ["HS256"])
            assert claims["sub"] == "7"
            assert (await call(development, "GET", "/dev/token?sub=a%20b"))[0] == 422
            assert (await call(development, "GET", "/dev/config"))[1] == {
                "key": "app-key",
                "provider": "scripted",
                "model": None,
            }
            page = await fetch(development.port, "/")
            assert page.body == b"<p>hello"
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert (await fetch(development.port, "/../../etc/passwd")).status == 404

    @pytest.mark.parametrize(
        ("status", "headers"),
        [
            *(
                (200, {"Host": host})
                for host in ("localhost:8080", "127.0.0.1", "[::1]:1", "a.localhost", "192.0.2.7:8")
            ),
            (200, {"Host": "localhost", "Origin": "http://localhost"}),
            (200, {"Host": "localhost", "Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-site"}),
            (200, {"Host": "localhost", "Sec-Fetch-Site": "same-origin"}),
            (200, {"Host": "192.0.2.7:8", "Origin": "http://192.0.2.7:8"}),
            (200, {"Host": "mine.test", "Origin": "https://mine.test"}),
            (200, {"Host": "localhost", "Origin": "https://friend.test"}),
            (403, {"Host": "evil.test:8080"}),
            (403, {"Host": "localhost.evil.test"}),
            (403, {"Host": "evil.test:8080", "Origin": "http://evil.test:8080"}),
            (403, {"Host": "localhost", "Origin": "http://evil.test"}),
            (403, {"Host": "localhost", "Origin": "null"}),
            (403, {"Host": "192.0.2.7:8", "Origin": "http://192.0.2.8:8"}),
            (403, {"Host": "localhost", "Sec-Fetch-Site": "cross-site"}),
        ],
    )
    async def test_only_its_own_pages_and_programs_get_tokens(self, status, headers):
        settings = local_settings(
            server=Server(port=0, drain_seconds=0, cors_origins=("https://friend.test",)),
            auth=Auth(jwt_secret=SECRET),
            dev=Dev(enabled=True, hosts=(*LOCAL_HOSTS, "mine.test")),
        )
        async with running(settings) as development:
            for path in ("/dev/token?sub=7", "/dev/config"):
                assert (await call(development, "GET", path, None, headers))[0] == status

    async def test_cors_for_all_origins_gives_no_tokens_to_other_pages(self):
        settings = local_settings(
            server=Server(port=0, drain_seconds=0, cors_origins=("*",)),
            auth=Auth(jwt_secret=SECRET),
            dev=Dev(enabled=True),
        )
        async with running(settings) as development:
            headers = {"Origin": "https://evil.test"}
            assert (await call(development, "GET", "/dev/token?sub=7", None, headers))[0] == 403

    async def test_the_root_path(self, server):
        assert (await fetch(server.port, "/")).body == b"OK"
        assert json.loads((await fetch(server.port, "/up")).body) == {"health": "OK"}


class Page:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()


async def fetch(port: int, path: str, body: bytes | None = None, /, **headers: str) -> Page:
    def work():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET" if body is None else "POST", path, body, headers)
        page = Page(connection.getresponse())
        connection.close()
        return page

    return await asyncio.to_thread(work)


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ((), None),
        (("https://other.test",), None),
        (("https://app.test",), "https://app.test"),
        (("https://APP.test:443/",), "https://app.test"),
        (("https://*.test",), "https://app.test"),
        (("*",), "*"),
    ],
)
async def test_other_origins_need_to_be_allowed(origins, allowed):
    async with running(
        local_settings(server=Server(port=0, drain_seconds=0, cors_origins=origins))
    ) as server:
        page = await fetch(server.port, "/up", Origin="https://app.test")
        assert page.headers["access-control-allow-origin"] == allowed


async def test_a_prefix_is_part_of_every_path(tmp_path):
    (tmp_path / "index.html").write_text("<p>hello")
    settings = local_settings(
        server=Server(port=0, drain_seconds=0, path="/ws"),
        auth=Auth(jwt_secret=SECRET),
        dev=Dev(enabled=True, page=str(tmp_path)),
    )
    async with running(settings) as server:
        assert (await fetch(server.port, "/ws/up")).status == 200
        assert (await fetch(server.port, "/ws/")).body == b"<p>hello"
        assert (await fetch(server.port, "/up")).status == 404


async def test_an_internal_error_is_a_plain_500(server, monkeypatch, caplog):
    monkeypatch.setattr(server.node.replies, "submit", None)
    assert await send(server, {"message": "Hello"}) == (500, {"message": "Server error."})
    assert "TypeError" in caplog.text


async def test_the_log_tells_a_refusal_of_redis_from_no_answer(caplog):
    """Redis is full. Only the log has the reason; users get a general message."""
    with RedisServer(BINARIES["valkey"]) as redis_server:
        settings = local_settings(redis=Redis(url=redis_server.url), auth=Auth(jwt_secret=SECRET))
        headers = token(exp=int(time.time()) + 600)
        async with running(settings) as server, redis_client(redis_server.url) as redis:
            await redis.config_set("maxmemory", "1")
            status, told = await send(server, {"message": "Hello"}, headers)
            assert (status, told["message"]) == (503, "Redis does not accept it")
            assert "chat_send is answered with 503: Redis refuses: " in caplog.text
            body = json.dumps({"name": "e", "channel": "cache-a", "data": "x"}).encode()
            status, told = await call(server, "POST", signed("/apps/1/events", body), body, {})
            assert status == 503
            assert told["error"].startswith("Redis refuses: ")
            assert "maxmemory" in told["error"]
            await redis.config_set("maxmemory", "0")
            assert (await send(server, {"message": "Hello"}, headers))[0] == 200
