"""Sending with fair admission: tenants come from tokens, and what waits for its turn counts as queued."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat
from legato.protocol import wire
from legato.protocol.jobs import decode_job
from legato.protocol.settings import Redis
from legato.worker import redis_clients as clients
from legato.worker.config import Worker
from legato.worker.jobs.fair_queue import FairQueue
from legato.worker.jobs.shares import Shares
from tests.broadcaster.api.test_chat import JOBS, SECRET, call, jobs, redis, send, token
from tests.broadcaster.conftest import local_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["redis"]

HELLO = {"message": "Hello"}


@asynccontextmanager
async def serving(url: str, **chat: Any) -> AsyncIterator[Any]:
    settings = local_settings(
        redis=Redis(url=url), auth=Auth(jwt_secret=SECRET), chat=Chat(tenant_claim="org", **chat)
    )
    async with running(settings) as server:
        yield server


@asynccontextmanager
async def worker(url: str, **settings: Any) -> AsyncIterator[FairQueue]:
    redis, reader = clients.connect(url), clients.connect_reader(url)
    shares = Shares.of(Worker(fair=True, **settings))
    queue = FairQueue(redis, reader, queue="ai-streaming", consumer="us", lease=30, shares=shares)
    await queue.prepare()
    yield queue
    await redis.aclose()
    await reader.aclose()


@pytest.mark.parametrize(
    ("claims", "tenant"),
    [({"org": "gold"}, "gold"), ({"org": 7}, "7"), ({"org": None}, ""), ({}, ""), ({"team": "x"}, "")],
)
async def test_the_tenant_is_a_claim_of_the_token(redis, valkey_url, claims, tenant):
    async with serving(valkey_url) as server:
        assert (await send(server, HELLO | {"tenant": "forged"}, token(7, **claims)))[0] == 200
    (job,) = await jobs(redis)
    assert job.tenant == tenant


@pytest.mark.parametrize("claim", ["a|b", "", "x" * 129, ["a"], True, 1.5])
async def test_a_claim_that_names_no_tenant_is_refused(redis, valkey_url, claim):
    async with serving(valkey_url) as server:
        status, answer = await send(server, HELLO, token(7, org=claim))
    assert (status, await redis.exists(JOBS)) == (401, 0)
    assert answer["message"].startswith("The claim org of the token: expected a number or a text")


async def test_without_the_setting_a_job_is_as_it_was(redis, valkey_url):
    settings = local_settings(redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET))
    async with running(settings) as server:
        assert (await send(server, HELLO, token(7, org="gold")))[0] == 200
    ((_, fields),) = await redis.xrange(JOBS)
    assert b"tenant" not in fields[b"job"]


async def test_jobs_that_wait_count_as_queued_and_their_messages_as_open(redis, valkey_url):
    async with (
        serving(valkey_url, max_queued=3, max_open_per_user=2) as server,
        worker(valkey_url, max_per_tenant=1) as queue,
    ):
        for user in (7, 7, 8):
            assert (await send(server, HELLO, token(user)))[0] == 200
        assert len(await queue.poll(9)) == 1
        assert (await send(server, HELLO, token(7)))[0] == 429
        assert (await send(server, HELLO, token(9)))[0] == 503
        assert await queue.poll(9) == []


async def test_an_idempotent_request_is_queued_once_wherever_its_job_is(redis, valkey_url):
    async with serving(valkey_url) as server, worker(valkey_url) as queue:
        headers = token(7) | {"Idempotency-Key": "k"}
        first = await send(server, HELLO, headers)
        await queue.collect()
        assert await send(server, HELLO, headers) == first
        (entry,) = await queue.poll(9)
        assert await send(server, HELLO, headers) == first
        await queue.acknowledge(entry.id)
        assert await send(server, HELLO, headers) == first
        assert await queue.poll(9) == []
        assert decode_job(entry.body or b"").message_id == first[1]["message_id"]


async def test_a_message_that_waits_can_be_cancelled(redis, valkey_url):
    async with serving(valkey_url) as server, worker(valkey_url) as queue:
        _, answer = await send(server, HELLO)
        await queue.collect()
        path = f"/api/chat/{answer['message_id']}"
        assert await call(server, "POST", f"{path}/cancel") == (200, {"cancelled": True})
        key = wire.message_key("1", "private-ai-chat.7", answer["message_id"])
        assert await redis.hmget(key, ["state", "cancel"]) == [b"queued", b"1"]
        assert len(await queue.poll(9)) == 1
