"""Server-sent events, and the text for Laravel's hooks: what a page gets, and when it is told to go."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import msgspec
import pytest

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.composition import running
from legato.broadcaster.config import Metrics
from legato.broadcaster.door_limits import LOG_READ_ENTRIES
from legato.broadcaster.doors import answers
from legato.broadcaster.doors.answers import parts_of
from legato.broadcaster.replies.logs import LogRange
from legato.protocol import wire
from legato.protocol.stream import Decision
from tests.broadcaster.doors.conftest import ask, asking, bearer, open_settings
from tests.broadcaster.doors.writing import cancelled, written
from tests.broadcaster.observability.test_metrics import scrape
from tests.broadcaster.replies.test_healing import CHANNEL, COMPLETE, Writer
from tests.waiting import until

EVENTS = "/api/chat/m/events"
CANCELLED = Decision(model="puppet", state="cancelled")
FAILED = Decision(model="puppet", state="failed", code="timeout")


def ids(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"^id: (\d+)$", text, re.MULTILINE)]


async def test_events_come_as_they_are_written_and_go_on_where_they_were(server, redis):
    writer = await Writer(redis).begin()
    await writer.says("Hel")
    async with asking(server, "GET", EVENTS) as first:
        assert first.status == 200
        assert first.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert first.headers["cache-control"] == "no-cache, no-transform"
        assert first.headers["x-accel-buffering"] == "no"
        assert (await first.until(b"Hel")).startswith(b"retry: 1000\n\n")
        await writer.says("lo")
        await first.until(b'"lo"')
    await until(lambda: len(server.node.answers) == 0)
    await writer.says("!")
    async with asking(server, "GET", EVENTS, headers={**bearer(), "last-event-id": "2"}) as second:
        await second.until(b'"!"')
        await writer.ends(COMPLETE)
        await second.rest()
    assert not second.broken
    assert ids(first.text + second.text) == [0, 1, 2, 3, 4]
    assert "event: stream.completed" in second.text
    again = await ask(server, "GET", EVENTS, headers={**bearer(), "last-event-id": "4"})
    assert (again.status, again.body) == (204, b"")
    late = await ask(server, "GET", f"{EVENTS}?after=2")
    assert late.text.split("\n\n")[1:] == second.text.split("\n\n")[1:]


async def test_a_page_without_headers_reads_with_a_token_for_this_reply(server, redis):
    writer = await Writer(redis).begin()
    await writer.ends(COMPLETE)
    granted = (await ask(server, "POST", "/api/chat/m/token")).json()
    assert set(granted) == {"token", "expires_at"}
    url = f"?token={granted['token']}"
    assert (await ask(server, "GET", EVENTS + url, headers={})).status == 200
    assert (await ask(server, "GET", "/api/chat/m2/events" + url, headers={})).status == 401
    assert (await ask(server, "GET", EVENTS + url + "x", headers={})).status == 401
    assert (await ask(server, "GET", EVENTS, headers={})).status == 401
    assert (await ask(server, "POST", "/api/chat/m/cancel" + url, headers={})).status == 401
    assert (await ask(server, "POST", "/api/chat/none/token")).status == 404


async def test_what_cannot_be_read_is_refused_for_good(server, redis):
    assert (await ask(server, "GET", EVENTS)).status == 404
    writer = await Writer(redis).begin()
    await writer.says("a")
    assert (await ask(server, "GET", EVENTS, headers=bearer(8))).status == 404
    await writer.ends(COMPLETE)
    await redis.delete(wire.log_key("1", CHANNEL, "m"))
    assert (await ask(server, "GET", EVENTS)).status == 410
    assert (await ask(server, "GET", "/api/chat/m/updates?mode=x")).status == 422
    assert len(server.node.answers) == server.node.hub.count(("1", CHANNEL)) == 0


async def test_a_user_may_not_read_without_bound(valkey_url, redis):
    settings = msgspec.structs.replace(
        open_settings(valkey_url, max_readers_per_user=1), metrics=Metrics(port=0)
    )
    async with running(settings) as server:
        await Writer(redis).begin()
        async with asking(server, "GET", EVENTS) as first:
            await first.until(b"retry")
            second = await ask(server, "GET", EVENTS)
            assert (await scrape(server.metrics_port))["legato_door_answers"] == 1
        assert (second.status, second.headers["retry-after"]) == (429, "5")
        await until(lambda: len(server.node.answers) == 0)
        async with asking(server, "GET", EVENTS) as third:
            assert third.status == 200


async def test_of_many_that_ask_at_once_as_many_read_as_may(valkey_url, redis):
    async with running(open_settings(valkey_url, max_readers_per_user=2)) as server:
        writer = await Writer(redis).begin()
        asked = [asyncio.create_task(ask(server, "GET", EVENTS)) for _ in range(9)]
        await until(lambda: sum(one.done() for one in asked) == 7)
        await writer.ends(COMPLETE)
        assert sorted([(await one).status for one in asked]) == [200] * 2 + [429] * 7
        for unknown in range(3):
            assert (await ask(server, "GET", f"/api/chat/unknown-{unknown}/events")).status == 404
        assert (server.node.answers._taken, server.node.answers._places) == (0, {})


async def test_a_node_that_stops_ends_events_cleanly_and_breaks_text_off(valkey_url, redis):
    async with running(open_settings(valkey_url)) as server:
        writer = await Writer(redis).begin()
        await writer.says("a")
        async with (
            asking(server, "GET", EVENTS) as events,
            asking(server, "GET", "/api/chat/m/updates") as text,
        ):
            await events.until(b'"a"')
            await text.until(b"data: a")
            server.uvicorn.should_exit = True
            await events.rest()
            await text.rest()
    assert not events.broken
    assert text.broken
    assert ids(events.text) == [0, 1]


async def test_updates_are_the_bare_text(server, redis):
    writer = await Writer(redis).begin()
    await writer.says("Hel", "lo")
    await writer.ends(COMPLETE)
    delta = await ask(server, "GET", "/api/chat/m/updates")
    assert delta.text == "".join(f"event: update\ndata: {part}\n\n" for part in ("Hel", "lo", "</stream>"))
    whole = await ask(server, "GET", "/api/chat/m/updates?mode=replace")
    assert whole.text == "".join(f"event: update\ndata: {part}\n\n" for part in ("Hello", "</stream>"))


async def posted(server, redis, path, body):
    """A request that starts a reply, and the reply's writer."""
    request = asking(server, "POST", path, body)
    answer = await request.__aenter__()
    return request, answer, await written(redis)


async def test_text_is_posted_and_comes_as_it_is_written(server, redis):
    request, answer, writer = await posted(server, redis, "/api/chat/text", {"message": "Hello"})
    assert answer.headers["x-message-id"] == writer.job.message_id
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    await writer.says("Grüß ")
    await answer.until("Grüß".encode())
    await writer.says("Gott")
    await writer.ends(COMPLETE)
    assert (await answer.rest()).decode() == "Grüß Gott"
    assert not answer.broken
    await request.__aexit__(None, None, None)
    refused = await ask(server, "POST", "/api/chat/text", {"message": " "})
    assert (refused.status, refused.headers["content-type"]) == (422, "text/plain; charset=utf-8")


async def test_text_that_fails_is_broken_off(server, redis):
    request, answer, writer = await posted(server, redis, "/api/chat/text", {"message": "Hello"})
    await writer.says("a")
    await writer.ends(FAILED)
    await answer.rest()
    await request.__aexit__(None, None, None)
    assert (answer.body, answer.broken) == (b"a", True)


async def test_who_leaves_the_text_cancels_its_reply(server, redis):
    request, answer, writer = await posted(server, redis, "/api/chat/text", {"message": "Hello"})
    message_id = writer.job.message_id
    await writer.says("a")
    await answer.until(b"a")
    await request.__aexit__(None, None, None)

    await until(lambda: cancelled(redis, message_id))


async def test_who_leaves_events_cancels_nothing(server, redis):
    writer = await Writer(redis).begin()
    await writer.says("a")
    async with asking(server, "GET", EVENTS) as answer:
        await answer.until(b'"a"')
    await until(lambda: len(server.node.answers) == 0)
    await asyncio.sleep(0)
    assert len(server.node.background) == 0
    assert await redis.hget(wire.message_key("1", CHANNEL, "m"), "cancel") is None


async def test_a_slow_reader_holds_nothing_but_its_write_buffer(server, redis):
    """It stops reading: the log is not read on for it. Then it reads all."""
    writer = await Writer(redis).begin()
    async with asking(server, "GET", EVENTS) as answer:
        answer.writer.transport.pause_reading()
        for _ in range(40):
            await writer.says(*("x" * 60_000 for _ in range(4)))
        await writer.ends(CANCELLED)
        (open_one,) = server.node.answers._open
        offset = open_one._reader.offset
        assert offset < 160
        answer.writer.transport.resume_reading()
        await answer.rest()
    assert ids(answer.text) == list(range(162))


def reading(count: int, decision: Any = COMPLETE) -> LogRange:
    pieces = [f"p{number}" for number in range(count)]
    return LogRange(7, pieces, 7 + count, "complete", 1, b"", decision)


@pytest.mark.parametrize("count", [0, 1, LOG_READ_ENTRIES, LOG_READ_ENTRIES + 1, 3 * LOG_READ_ENTRIES])
def test_a_long_reading_is_written_in_parts(count):
    whole = reading(count)
    parts = list(parts_of(whole))
    assert [piece for part in parts for piece in part.pieces] == whole.pieces
    assert all(one.next == other.first for one, other in itertools.pairwise(parts))
    assert [part.decision for part in parts] == [None] * (len(parts) - 1) + [COMPLETE]
    assert len(parts) == max(1, -(-count // LOG_READ_ENTRIES))
    assert all(len(part.pieces) <= LOG_READ_ENTRIES for part in parts)


@pytest.mark.parametrize("path", ["/api/streams/m?offset=-1&live=sse", EVENTS])
async def test_who_joins_late_and_does_not_read_is_not_sent_the_whole_log(server, redis, monkeypatch, path):
    """The next part waits until the peer has read the one before."""
    sizes, body = [], answers._body
    monkeypatch.setattr(
        answers, "_body", lambda data, **more: (sizes.append(len(data)), body(data, **more))[1]
    )
    writer = await Writer(redis).begin()
    for _ in range(5):
        await writer.says(*("x" * 1000 for _ in range(LOG_READ_ENTRIES)))
    await writer.ends(COMPLETE)
    async with asking(server, "GET", path) as answer:
        await answer.rest()
    assert answer.text.count("x" * 1000) == 5 * LOG_READ_ENTRIES
    assert max(sizes) < 1.5 * LOG_READ_ENTRIES * 1000


async def test_a_command_for_the_connections_of_a_channel_is_none_for_its_readers(server, redis):
    writer = await Writer(redis).begin()
    async with asking(server, "GET", EVENTS) as answer:
        await answer.until(b"retry")
        await server.node.bus.publish([(Key("1", CHANNEL), wire.Envelope(b"", command=wire.TERMINATE))])
        await writer.says("a")
        await answer.until(b'"a"')
    assert len(server.node.clients.open) == 0
