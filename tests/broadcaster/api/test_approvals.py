"""Approving and refusing tool calls over HTTP; the reply is written and parked as a worker does."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.auth.rules import ClaimRule
from legato.broadcaster.bus.base import BusError
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat, Server
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.replies.approvals import Approvals, DecidedOtherwise, MessageEnded, NoSuchCall
from legato.protocol import approvals, parts, stream, wire
from legato.protocol.approvals import Approval
from legato.protocol.redis import parked
from legato.protocol.settings import Redis, SettingsError
from legato.worker.replies.transcript import new_part
from tests.broadcaster.api.test_chat import SECRET, call, token
from tests.broadcaster.conftest import local_settings
from tests.broadcaster.replies.test_healing import COMPLETE, Writer
from tests.conftest import BINARIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUEUE = "ai-streaming"
CHANNEL = "private-ai-chat.7"
KEY = Key("1", CHANNEL)
NAME = wire.parked_name("1", CHANNEL, "m")
APPROVALS = wire.approvals_key("1", CHANNEL, "m")
MESSAGE = wire.message_key("1", CHANNEL, "m")
DEADLINE = 2_000_000_000_000
MANAGER = token("boss", role="manager")


@pytest.fixture
async def redis(valkey_url) -> AsyncIterator[Any]:
    async with redis_client(valkey_url) as connected:
        yield connected


@pytest.fixture
async def server(valkey_url) -> AsyncIterator[Any]:
    settings = local_settings(
        redis=Redis(url=valkey_url),
        auth=Auth(jwt_secret=SECRET),
        chat=Chat(approvers=("role=manager", "roles=admin")),
    )
    async with running(settings) as started:
        yield started


async def asks(redis: Any, *calls: str) -> Writer:
    """A reply that streams, with calls that need an approval."""
    writer = await Writer(redis).begin()
    await writer.says("Shall I?")
    for one in calls:
        part = parts.ApprovalRequested(one, "pay", 2_000_000_000)
        await writer._append([writer.reply.written.add(new_part(part, call=one))])
    return writer


async def waits(redis: Any, *calls: str) -> Writer:
    """The same, parked."""
    writer = await asks(redis, *calls)
    await parked.park(redis, QUEUE, NAME, b'{"job":1}', DEADLINE)
    assert await writer.log.park(QUEUE)
    return writer


async def decide(server, body: Any, path: str = "m/tools/c1", headers: Any = None) -> tuple[int, Any]:
    return await call(server, "POST", f"/api/chat/{path}", body, headers)


async def decided(redis: Any, one: str = "c1") -> Any:
    """The stored decision; '' while there is none, None for an unknown call."""
    value = await redis.hget(APPROVALS, one)
    return json.loads(value) if value else None if value is None else ""


async def queued(redis: Any) -> list[bytes]:
    return [fields[b"job"] for _, fields in await redis.xrange(wire.jobs_key(QUEUE))]


async def due_at(redis: Any) -> float | None:
    return await redis.zscore(wire.waiting_key(QUEUE), NAME)


class TestDeciding:
    @pytest.mark.parametrize("body", [{"approve": True}, {"approve": False, "note": "too \ud83d\ude00 much"}])
    async def test_the_owner_decides_and_the_job_is_queued_again(self, server, redis, body):
        await waits(redis, "c1")
        assert await decide(server, body) == (200, {"decided": True})
        stored = await decided(redis)
        assert stored.pop("at") > 1_700_000_000
        note = body.get("note", "").encode("utf-16", "surrogatepass").decode("utf-16")
        assert stored == {"approve": body["approve"], "note": note}
        assert await queued(redis) == [b'{"job":1}']
        assert await due_at(redis) is None
        assert not await redis.exists(wire.parked_key(QUEUE))

    async def test_a_reply_on_another_channel_is_decided_with_that_channel(self, server, redis):
        team = ("1", "private-team.red", "m")
        await redis.hset(wire.message_key(*team), mapping={"user": "7", "state": "streaming"})
        await redis.hset(wire.approvals_key(*team), "c1", "")
        path, yes = "m/tools/c1?channel=private-team.red", {"approve": True}
        for elsewhere, headers in (
            ("m/tools/c1", None),
            (path, token(8)),
            (f"{path}&user=8", MANAGER),
            ("m/tools/c1?channel=private-team.blue", None),
        ):
            assert (await decide(server, yes, elsewhere, headers))[0] == 404
        assert (await decide(server, yes, "m/tools/c1?channel=public"))[0] == 422
        assert await redis.hget(wire.approvals_key(*team), "c1") == b""
        assert await decide(server, yes, path) == (200, {"decided": True})
        assert await decide(server, yes, f"{path}&user=7", MANAGER) == (200, {"decided": True})

    async def test_a_job_waits_until_the_last_call_is_decided(self, server, redis):
        await waits(redis, "c1", "c2")
        assert (await decide(server, {"approve": True}))[0] == 200
        assert (await queued(redis), await due_at(redis)) == ([], DEADLINE)
        assert (await decide(server, {"approve": False}, "m/tools/c2"))[0] == 200
        assert await queued(redis) == [b'{"job":1}']

    async def test_a_reply_that_still_streams_goes_on_by_itself(self, server, redis):
        writer = await asks(redis, "c1")
        assert (await decide(server, {"approve": True}))[0] == 200
        assert (await decided(redis))["approve"] is True
        assert not await writer.log.park(QUEUE)
        assert await queued(redis) == []

    async def test_the_same_decision_again_is_accepted_and_another_is_a_409(self, server, redis):
        await waits(redis, "c1")
        assert (await decide(server, {"approve": True, "note": "x"}))[0] == 200
        first = await decided(redis)
        assert await decide(server, {"approve": True, "note": "x"}) == (200, {"decided": True})
        for other in ({"approve": False, "note": "x"}, {"approve": True, "note": "y"}, {"approve": True}):
            assert await decide(server, other) == (
                409,
                {"message": "This call was decided otherwise before."},
            )
        assert await decided(redis) == first
        assert await queued(redis) == [b'{"job":1}']

    async def test_a_decision_that_was_interrupted_is_completed_by_the_next_one(self, server, redis):
        await waits(redis, "c1")
        head, rest = approvals.stored(Approval(True), 5)
        await redis.hset(APPROVALS, "c1", head + rest)
        assert (await decide(server, {"approve": True}))[0] == 200
        assert await queued(redis) == [b'{"job":1}']
        assert (await decided(redis))["at"] == 5

    async def test_what_the_worker_has_decided_stands(self, server, redis):
        await waits(redis, "c1")
        await redis.hset(APPROVALS, "c1", '{"approve":false,"note":"","at":5,"expired":true}')
        assert (await decide(server, {"approve": True}))[0] == 409

    async def test_of_many_decisions_at_once_one_stands(self, server, redis):
        await waits(redis, "c1")
        answers = await asyncio.gather(*(decide(server, {"approve": n % 2 == 0}) for n in range(6)))
        assert sorted(status for status, _ in answers) == [200] * 3 + [409] * 3
        assert await queued(redis) == [b'{"job":1}']

    async def test_when_the_node_dies_before_it_resumes_the_job_it_is_due_soon(
        self, server, redis, monkeypatch
    ):
        await waits(redis, "c1")

        async def dies(*_: Any) -> bool:
            raise BusError("gone")

        monkeypatch.setattr(parked, "resume", dies)
        assert (await decide(server, {"approve": True}))[0] == 503
        stored = await decided(redis)
        assert stored["approve"] is True
        assert stored["at"] + 9 <= await due_at(redis) / 1000 <= stored["at"] + 12
        assert await queued(redis) == []

    async def test_before_the_job_is_hurried_nothing_is_stored(self, server, redis, monkeypatch):
        await waits(redis, "c1")

        async def dies(*_: Any) -> bool:
            raise BusError("gone")

        monkeypatch.setattr(parked, "hurry", dies)
        assert (await decide(server, {"approve": True}))[0] == 503
        assert await decided(redis) == ""

    async def test_requests_are_counted_by_their_route(self, server, redis):
        await waits(redis, "c1")
        await decide(server, {"approve": True})
        await decide(server, {"approve": False})
        counted = server.node.requests
        assert (counted["chat_decide", 200], counted["chat_decide", 409]) == (1, 1)

    async def test_pages_of_other_origins_may_decide_if_they_are_allowed(self, valkey_url):
        settings = local_settings(
            server=Server(port=0, drain_seconds=0, cors_origins=("https://chat.example.com",)),
            redis=Redis(url=valkey_url),
            auth=Auth(jwt_secret=SECRET),
        )
        async with running(settings) as server:
            asked = {"Access-Control-Request-Method": "POST", "Origin": "https://chat.example.com"}
            status, _, headers = await asyncio.to_thread(ask, server, "OPTIONS", asked)
            assert (status, headers["access-control-allow-origin"]) == (200, "https://chat.example.com")
            status, _, headers = await asyncio.to_thread(ask, server, "POST", {"Origin": "https://evil.com"})
            assert (status, headers["access-control-allow-origin"]) == (401, None)


class TestRefusals:
    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}])
    async def test_without_a_valid_token_nothing_is_decided(self, server, redis, headers):
        await waits(redis, "c1")
        assert (await decide(server, {"approve": True}, headers=headers))[0] == 401
        assert await decided(redis) == ""

    BAD = (
        (b"junk", "$"),
        ({}, "approve"),
        ({"approve": 1}, "approve"),
        ({"approve": "yes"}, "approve"),
        ({"approve": True, "note": "x" * 1001}, "note"),
        ({"approve": True, "note": None}, "note"),
    )

    @pytest.mark.parametrize(("body", "field"), BAD)
    async def test_a_bad_body_is_a_422_that_names_the_field(self, server, redis, body, field):
        await waits(redis, "c1")
        status, answer = await decide(server, body)
        assert (status, list(answer["errors"])) == (422, [field])
        assert await decided(redis) == ""

    async def test_a_body_that_is_too_large_is_a_413(self, server, redis):
        await waits(redis, "c1")
        assert (await decide(server, b" " * 20_000))[0] == 413

    PATHS = ("m/tools/c2", "other/tools/c1", "m!/tools/c1", "m/tools/" + "x" * 129, "m/tools/a%20b")

    @pytest.mark.parametrize("path", PATHS)
    async def test_an_unknown_message_or_call_is_a_404(self, server, redis, path):
        await waits(redis, "c1")
        assert (await decide(server, {"approve": True}, path))[0] == 404
        assert await redis.hgetall(APPROVALS) == {b"c1": b""}
        assert await redis.hlen(APPROVALS) == 1

    async def test_to_another_user_the_message_does_not_exist(self, server, redis):
        await waits(redis, "c1")
        for path in ("m/tools/c1", "m/tools/c1?user=7"):
            status, answer = await decide(server, {"approve": True}, path, token("ann", role="clerk"))
            assert (status, "No such" in answer["message"]) == (404, True)
        assert await decided(redis) == ""

    @pytest.mark.parametrize("state", sorted(stream.ENDS))
    async def test_a_message_that_has_ended_is_a_409(self, server, redis, state):
        await asks(redis, "c1")
        await redis.hset(MESSAGE, "state", state)
        await redis.delete(APPROVALS)
        assert await decide(server, {"approve": True}) == (409, {"message": "This message has ended."})
        assert not await redis.exists(APPROVALS)

    async def test_after_a_real_end_it_is_a_409_too(self, server, redis):
        writer = await asks(redis, "c1")
        await writer.ends(COMPLETE)
        assert (await decide(server, {"approve": True}))[0] == 409

    async def test_only_post_is_served(self, server):
        status, _, _ = await asyncio.to_thread(ask, server, "GET", token())
        assert status == 405

    async def test_without_redis_chat_says_that_it_is_off(self):
        async with running(local_settings(auth=Auth(jwt_secret=SECRET))) as server:
            status, answer = await decide(server, {"approve": True})
        assert (status, answer["message"]) == (503, "Chat is off: this server has no Redis.")


def ask(server, method: str, headers: dict[str, str]) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, "/api/chat/m/tools/c1", headers=headers)
    response = connection.getresponse()
    answer = response.status, response.read(), response.headers
    connection.close()
    return answer


class TestApprovers:
    @pytest.mark.parametrize("claims", [{"role": "manager"}, {"roles": ["clerk", "admin"]}])
    async def test_who_satisfies_a_rule_decides_for_any_user(self, server, redis, claims):
        await waits(redis, "c1")
        boss = token("boss", **claims)
        assert (await decide(server, {"approve": True}, "m/tools/c1", boss))[
            0
        ] == 404  # there is no such reply of theirs
        assert (await decide(server, {"approve": True}, "m/tools/c1?user=7", boss))[0] == 200
        assert await queued(redis) == [b'{"job":1}']

    @pytest.mark.parametrize("user", ["", "8", "a%20b", "x" * 129, "7%00"])
    async def test_for_another_or_an_impossible_user_it_is_a_404(self, server, redis, user):
        await waits(redis, "c1")
        assert (await decide(server, {"approve": True}, f"m/tools/c1?user={user}", MANAGER))[0] == 404
        assert await decided(redis) == ""

    async def test_users_may_name_themselves(self, server, redis):
        await waits(redis, "c1")
        assert (await decide(server, {"approve": True}, "m/tools/c1?user=7"))[0] == 200

    async def test_without_rules_nobody_decides_for_others(self, valkey_url, redis):
        settings = local_settings(redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET))
        async with running(settings) as server:
            await waits(redis, "c1")
            assert (await decide(server, {"approve": True}, "m/tools/c1?user=7", MANAGER))[0] == 404

    @pytest.mark.parametrize("rule", ["", "role", "=x", "role=", "role= ", "a-b=c", "role=" + "x" * 129])
    async def test_a_wrong_rule_stops_the_start_and_names_the_setting(self, valkey_url, rule):
        settings = local_settings(
            redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET), chat=Chat(approvers=(rule,))
        )
        with pytest.raises(SettingsError, match=r"^chat\.approvers: .*: expected claim=value$"):
            async with running(settings):
                pass

    CLAIMS = (
        ({"role": "manager"}, True),
        ({"role": ["clerk", "manager"]}, True),
        ({"role": "managers"}, False),
        ({"role": "Manager"}, False),
        ({"role": ""}, False),
        ({"role": None}, False),
        ({"role": True}, False),
        ({"role": {"manager": True}}, False),
        ({"role": [["manager"], {"manager": 1}]}, False),
        ({"Role": "manager"}, False),
        ({}, False),
    )

    @pytest.mark.parametrize(("claims", "matches"), CLAIMS)
    def test_a_rule_matches_the_whole_claim_or_one_of_a_list(self, claims, matches):
        assert ClaimRule("role=manager", "chat.approvers").matches(claims) is matches

    def test_a_rule_may_have_a_number_and_any_text(self):
        assert ClaimRule("level=3", "s").matches({"level": 3})
        assert not ClaimRule("level=1", "s").matches({"level": True})
        assert ClaimRule("team=a=b c", "s").matches({"team": "a=b c"})


class TestCancel:
    async def test_cancelling_a_reply_that_waits_queues_its_job_again(self, server, redis):
        writer = await waits(redis, "c1")
        for _ in range(2):
            assert (await call(server, "POST", "/api/chat/m/cancel"))[0] == 200
        assert await queued(redis) == [b'{"job":1}']
        assert (await writer.log.claim_again("claim-2")).verdict == "cancelled"

    async def test_cancelling_a_reply_that_streams_queues_nothing(self, server, redis):
        """Also if it has waited before, and is about to wait again."""
        await asks(redis, "c1")
        await redis.hset(MESSAGE, "queue", QUEUE)
        await parked.park(redis, QUEUE, NAME, b"{}", DEADLINE)
        assert (await call(server, "POST", "/api/chat/m/cancel"))[0] == 200
        assert (await queued(redis), await due_at(redis)) == ([], DEADLINE)

    async def test_a_reply_that_waits_says_so(self, server, redis):
        await waits(redis, "c1")
        _, answer = await call(server, "GET", "/api/chat/m")
        assert (answer["status"], answer["offset"]) == ("waiting", 2)
        assert answer["parts"][0]["event"] == "tool.approval_requested"


@pytest.fixture(params=[*BINARIES, "cluster"])
async def any_redis(request) -> AsyncIterator[Any]:
    if request.param == "cluster":
        url = request.getfixturevalue("redis_cluster").url
    else:
        server = request.getfixturevalue(f"_{request.param}")
        server.flush()
        url = server.url
    async with redis_client(url) as connected:
        yield connected


async def test_on_any_redis_calls_are_decided_and_jobs_resumed(any_redis):
    writer = await waits(any_redis, "c1", "c2")
    deciding = Approvals(any_redis)
    with pytest.raises(NoSuchCall):
        await deciding.decide(KEY, "m", "c3", Approval(True), 5_000)
    await deciding.decide(KEY, "m", "c1", Approval(True), 5_000)
    with pytest.raises(DecidedOtherwise):
        await deciding.decide(KEY, "m", "c1", Approval(False), 6_000)
    assert await queued(any_redis) == []
    await deciding.decide(KEY, "m", "c2", Approval(False), 7_000)
    assert await queued(any_redis) == [b'{"job":1}']
    await deciding.stop_waiting(KEY, "m")  # it does not wait any more
    assert len(await queued(any_redis)) == 1
    await writer.log.claim_again("claim-2")
    await writer.ends(COMPLETE)
    with pytest.raises(MessageEnded):
        await deciding.decide(KEY, "m", "c1", Approval(True), 8_000)
    await deciding.stop_waiting(KEY, "unknown")
