"""Durable Streams: what there is, what comes next, and where each answer says it ends."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from legato.protocol import parts
from tests.broadcaster.doors.conftest import ask, asking, bearer
from tests.broadcaster.replies.test_healing import COMPLETE, Writer
from tests.waiting import until

PATH = "/api/streams/m"


def at(count):
    return f"{count:016d}"


async def poll(server, count):
    return await ask(server, "GET", f"{PATH}?offset={at(count)}&live=long-poll")


def kinds(answer):
    return [message["type"] for message in answer.json()]


async def test_a_stream_is_read_as_far_as_it_is_and_polled_from_there(server, redis, monkeypatch):
    writer = await Writer(redis).begin()
    await writer.says("Hel")
    first = await ask(server, "GET", f"{PATH}?offset=-1")
    assert kinds(first) == ["started", "text"]
    assert first.headers["stream-next-offset"] == at(2)
    assert first.headers["stream-up-to-date"] == "true"
    assert "stream-closed" not in first.headers
    assert first.headers["x-content-type-options"] == "nosniff"

    async with asking(server, "HEAD", PATH) as head:
        assert (head.status, head.headers["stream-next-offset"]) == (200, at(2))

    polling = asking(server, "GET", f"{PATH}?offset={at(2)}&live=long-poll")
    reading = server.node.answers

    async def write():
        await until(lambda: len(reading) == 1)
        await writer.says("lo")

    task = asyncio.create_task(write())
    async with polling as news:
        await news.rest()
    await task
    assert kinds(news) == ["text"]
    assert int(news.headers["stream-cursor"]) > 0
    await writer.ends(COMPLETE)
    last = await poll(server, 3)
    assert (kinds(last), last.headers["stream-closed"]) == (["completed"], "true")
    over = await poll(server, 4)
    assert (over.status, over.headers["stream-closed"]) == (204, "true")
    assert (await ask(server, "GET", f"{PATH}?offset={at(4)}")).json() == []
    now = await ask(server, "GET", f"{PATH}?offset=now")
    assert (now.json(), now.headers["cache-control"]) == ([], "no-store")


async def test_a_poll_without_news_ends_in_time(server, redis, monkeypatch):
    monkeypatch.setattr("legato.broadcaster.doors.streams.LONG_POLL_SECONDS", 0.05)
    writer = await Writer(redis).begin()
    await writer.says("a")
    waited = await poll(server, 2)
    assert (waited.status, waited.headers["stream-next-offset"]) == (204, at(2))
    assert len(server.node.answers) == 0


async def test_events_end_with_the_stream(server, redis):
    writer = await Writer(redis).begin()
    await writer.says("Hel")
    async with asking(server, "GET", f"{PATH}?offset={at(1)}&live=sse") as answer:
        await answer.until(b'"Hel"')
        await writer.shows(None, parts.ReasoningReceived("hm"))
        await answer.until(b'"hm"')
        await writer.ends(COMPLETE)
        await answer.rest()
    events = re.findall(r"event: (\w+)\ndata:(.*)\n\n", answer.text)
    assert [name for name, _ in events][:2] == ["control", "data"]
    messages = [one for name, data in events if name == "data" for one in json.loads(data)]
    assert [one["type"] for one in messages] == ["text", "reasoning", "completed"]
    assert json.loads(events[-1][1]) == {
        "streamNextOffset": at(4), "streamClosed": True, "upToDate": True
    }  # fmt: skip
    closed = await ask(server, "GET", f"{PATH}?offset={at(4)}&live=sse")
    assert '"streamClosed":true' in closed.text


async def test_an_offset_of_a_node_that_is_ahead_is_taken(server, redis):
    writer = await Writer(redis).begin()
    await writer.says("a")
    async with asking(server, "GET", f"{PATH}?offset=-1&live=sse") as beside:
        await beside.until(b'"a"')
        with writer.unheard():  # so this node's reading stays behind
            await writer.says("b", "c")
        async with asking(server, "GET", f"{PATH}?offset={at(3)}&live=sse") as answer:
            assert answer.status == 200
            await answer.until(b'"c"')
            assert b'"b"' not in answer.body
        beyond = await ask(server, "GET", f"{PATH}?offset={at(5)}")
        assert (beyond.status, "offset" in beyond.text) == (400, True)


async def test_events_last_a_while_and_end_cleanly(server, redis, monkeypatch):
    monkeypatch.setattr("legato.broadcaster.doors.streams.STREAM_SECONDS", 0.05)
    await Writer(redis).begin()
    answer = await ask(server, "GET", f"{PATH}?offset=-1&live=sse")
    assert not answer.broken
    assert answer.text.startswith("event: control\ndata:{")


async def test_what_the_client_has_is_not_sent_again(server, redis):
    writer = await Writer(redis).begin()
    await writer.says("Hel")
    tag = (await ask(server, "GET", PATH)).headers["etag"]
    headers = {**bearer(), "if-none-match": tag}
    assert (await ask(server, "GET", PATH, headers=headers)).status == 304
    await writer.ends(COMPLETE)
    assert (await ask(server, "GET", PATH, headers=headers)).status == 200


@pytest.mark.parametrize(
    "query", ["?offset=x", "?live=sse", f"?offset={at(9)}", "?offset=-1&live=x", "?format=x"]
)
async def test_what_cannot_be_asked_is_a_400(server, redis, query):
    await Writer(redis).begin()
    refused = await ask(server, "GET", PATH + query)
    assert (refused.status, refused.headers["x-content-type-options"]) == (400, "nosniff")
    assert len(server.node.hub) == 0


async def test_a_stream_is_read_only_and_by_its_owner(server, redis):
    await Writer(redis).begin()
    refused = await ask(server, "POST", PATH)
    assert (refused.status, refused.headers["allow"]) == (405, "get, head, options")
    assert (await ask(server, "OPTIONS", PATH)).status == 204
    assert (await ask(server, "GET", PATH, headers=bearer(8))).status == 404
    assert (await ask(server, "GET", PATH, headers={})).status == 401
    granted = (await ask(server, "POST", "/api/chat/m/token")).json()["token"]
    assert (await ask(server, "GET", f"{PATH}?token={granted}", headers={})).status == 200


@pytest.mark.parametrize(("name", "first"), [("ui", "start"), ("agui", "RUN_STARTED")])
async def test_a_stream_in_the_words_of_another_door(server, redis, name, first):
    writer = await Writer(redis).begin()
    await writer.says("Hel")
    await writer.ends(COMPLETE)
    whole = await ask(server, "GET", f"{PATH}?format={name}")
    assert kinds(whole)[0] == first
    count = len(whole.json())
    rest = await ask(server, "GET", f"{PATH}?format={name}&offset={at(2)}")
    assert rest.json() == whole.json()[2:]
    assert rest.headers["stream-next-offset"] == at(count)
