"""A node whose bus loses messages: what its clients, who know nothing of it, get all the same.

The log is written by the worker's own hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.composition import running
from legato.broadcaster.replies import healer as healing
from legato.protocol import parts, signatures, stream, wire
from legato.protocol.jobs import Job
from legato.protocol.settings import Redis
from legato.worker.replies.log import MessageLog, TokenLog
from legato.worker.replies.reply import Decision, Reply, encode_decision
from legato.worker.replies.transcript import NewPart, new_part
from tests.broadcaster.api.test_http_api import EVENTS, post
from tests.broadcaster.conftest import APP, Client, client, local_settings
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from legato.benchmarks.chaos.proxy import ProxyLink
    from legato.worker.replies.log import LogRecord

CHANNEL = "private-ai-chat.7"
USAGE = stream.Usage(3, 2)
HIDDEN = NewPart(parts.HIDDEN, b"")


class Writer:
    """A worker with one reply. ``said`` has what it has published."""

    def __init__(self, redis: Any, message_id: str = "m") -> None:
        self.redis = redis
        self.job = Job(message_id, "1", 7, "Hello", 1)
        self.log: MessageLog = TokenLog(redis, tries=9, retention=3600).open(self.job, "claim")
        self.said: list[tuple[str, Any]] = []

    async def begin(self) -> Writer:
        self.reply = Reply(self.job, await self.log.claim(), model="puppet")
        return self

    async def says(self, *texts: str) -> None:
        await self._append([self.reply.written.add_text(text) for text in texts])

    async def shows(self, *shown: parts.Part | None) -> None:
        """Parts other than text; None for one that readers do not see."""
        await self._append(
            [self.reply.written.add(HIDDEN if part is None else new_part(part)) for part in shown]
        )

    async def _append(self, records: list[LogRecord]) -> None:
        await self.log.append(records)
        self._note(*(record.frame for record in records if record.frame))

    async def ends(self, decision: Decision, *, saved: bool = True) -> None:
        await self.log.decide(encode_decision(decision))
        decision = decision if saved else decision.unsaved()
        frame, error = self.reply.terminal(decision)
        await self.log.finish(decision.state, frame, error)
        self._note(frame)

    def _note(self, *frames: bytes) -> None:
        self.said += [told(json.loads(frame)) for frame in frames]

    @contextlib.contextmanager
    def unheard(self):
        """Drop what is published."""
        bus, self.log._bus = self.log._bus, wire.bus_channel("1", CHANNEL) + ":nowhere"
        yield
        self.log._bus = bus


COMPLETE = Decision("end_turn", USAGE, "puppet")
ENDS = {
    "complete": (COMPLETE, True),
    "not persisted": (COMPLETE, False),
    "failed": (Decision(usage=USAGE, model="puppet", state="failed", code="timeout"), True),
    "cancelled": (Decision(model="puppet", state="cancelled"), True),
}


def told(message: dict[str, Any]) -> tuple[str, Any]:
    return message["event"], json.loads(message["data"])


@contextlib.asynccontextmanager
async def reader(server) -> AsyncIterator[Client]:
    async with client(server.port) as one:
        assert (await one.subscribe(CHANNEL))["event"] == "pusher_internal:subscription_succeeded"
        yield one


async def hears(one: Client, *expected: tuple[str, Any]) -> None:
    """Assert that exactly these messages arrive before the answer to a ping."""
    heard = [told(await one.receive()) for _ in expected]
    assert heard == list(expected)
    await one.send("pusher:ping")
    assert (await one.receive())["event"] == "pusher:pong"


@contextlib.asynccontextmanager
async def streaming(server, redis, *texts: str) -> AsyncIterator[tuple[Client, Writer]]:
    """A client that has been subscribed since before the reply began, and has received it so far."""
    async with reader(server) as one:
        await synced(server)
        writer = await Writer(redis).begin()
        await writer.says(*texts)
        await hears(one, *writer.said)
        yield one, writer


async def synced(server) -> None:
    """Wait until the node knows which replies stream."""
    await until(lambda: all(channel.synced for channel in server.node.healer._channels.values()))
    assert server.node.healer._channels


async def away(server, link: ProxyLink) -> None:
    gaps = server.node.bus.gaps
    link.cut()
    await until(lambda: server.node.bus.gaps > gaps)


@contextlib.contextmanager
def while_reading(server, happens) -> Iterator[list[int]]:
    """Call ``happens`` after each read of the log, before the node gets the result."""
    replies = server.node.healer._replies
    on_channel, reads = replies.on_channel, list[int]()

    async def outrun(key, message_id):
        reply = await on_channel(key, message_id)
        before = server.node.fanout.messages
        await happens()
        await until(lambda: server.node.fanout.messages > before)
        reads.append(reply.offset)
        return reply

    replies.on_channel = outrun
    yield reads
    del replies.on_channel


class TestBusLost:
    async def test_missed_tokens_arrive_once_and_in_order(self, server, link, redis):
        async with reader(server) as ann, reader(server) as bob:
            await synced(server)
            writer = await Writer(redis).begin()
            await writer.says("a", "b")
            await until(lambda: server.node.fanout.deliveries >= 4)
            await away(server, link)
            await writer.says("c", "d")
            link.heal()
            await until(lambda: server.node.healer.tokens == 2)
            await writer.says("e")
            await writer.ends(COMPLETE)
            for one in (ann, bob):
                await hears(one, *writer.said)
        healer = server.node.healer
        assert (healer.tokens, healer.endings, healer.failed) == (2, 0, 0)
        assert server.node.recovery.channels == 1
        await until(lambda: not healer._channels)
        assert healer._room.used == 0

    @pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
    async def test_a_lost_terminal_event_is_restored_as_published(self, server, link, redis, end):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            await writer.says("a")
            await until(lambda: server.node.fanout.deliveries)
            await away(server, link)
            await writer.says("b")
            await writer.ends(end[0], saved=end[1])
            link.heal()
            await hears(ann, *writer.said)
        assert (server.node.healer.tokens, server.node.healer.endings) == (1, 1)

    async def test_a_reply_that_began_and_ended_in_the_gap_is_found(self, server, link, redis):
        before = await Writer(redis, "before").begin()
        await before.says("x")
        await before.ends(COMPLETE)
        async with reader(server) as ann:
            await synced(server)
            heard = await Writer(redis, "heard").begin()
            await heard.says("x")
            await heard.ends(COMPLETE)
            await hears(ann, *heard.said)
            await away(server, link)
            writer = await Writer(redis).begin()
            await writer.says("a", "b")
            await writer.ends(ENDS["failed"][0])
            link.heal()
            await hears(ann, *writer.said)
            await away(server, link)
            link.heal()
            await until(lambda: server.node.recovery.channels == 2 and not server.node.recovery._running)
            await hears(ann)

    async def test_a_lingering_channel_is_healed_for_the_next_subscriber(self, server, redis):
        writer = await Writer(redis).begin()
        async with reader(server) as ann:
            await synced(server)
            await writer.says("a")
            await ann.receive()
        await until(lambda: not server.node.healer._channels)
        async with reader(server) as bob:
            await synced(server)
            assert told(await bob.receive())[1]["text"] == "a"
            await writer.says("b")
            with writer.unheard():
                await writer.says("c")
            await writer.says("d")
            await hears(bob, *writer.said[1:])

    async def test_a_reply_that_began_in_the_gap_continues_live(self, server, link, redis):
        async with reader(server) as ann:
            await synced(server)
            await away(server, link)
            writer = await Writer(redis).begin()
            await writer.says("a", "b")
            link.heal()
            await until(lambda: server.node.healer.tokens == 2)
            await writer.says("c")
            await hears(ann, *writer.said)

    async def test_a_failed_read_of_the_log_is_retried(self, server, link, redis, monkeypatch):
        replies, refused = server.node.replies, []

        def refusing(name: str, times: int = 2) -> None:
            ask, until_then = getattr(replies, name), refused.count(name) + times

            async def refuse(*arguments: Any) -> Any:
                if refused.count(name) < until_then:
                    refused.append(name)
                    raise BusError("Redis does not answer")
                return await ask(*arguments)

            monkeypatch.setattr(replies, name, refuse)

        refusing("around")
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            await writer.says("a")
            await until(lambda: server.node.fanout.deliveries)
            refusing("around")
            refusing("missing")
            await away(server, link)
            await writer.says("b")
            await writer.ends(COMPLETE)
            link.heal()
            await hears(ann, *writer.said)
        assert refused == ["around"] * 4 + ["missing"] * 2

    async def test_a_reply_that_begins_in_the_gap_on_a_new_channel_is_complete(
        self, server, link, redis, monkeypatch
    ):
        """Redis answers which replies stream only after the bus delivers the reply again."""
        replies, answers, asked = server.node.replies, asyncio.Event(), []
        around = replies.around

        async def late(keys: Any) -> Any:
            asked.append(keys)
            if not answers.is_set():
                raise BusError("Redis does not answer")
            return await around(keys)

        monkeypatch.setattr(replies, "around", late)
        async with reader(server) as ann:
            await until(lambda: asked)
            await away(server, link)
            writer = await Writer(redis).begin()
            await writer.says("a", "b")
            link.heal()
            await until(lambda: server.node.recovery.channels == 1)
            await writer.says("c")
            await hears(ann, *writer.said)
            answers.set()
            await synced(server)
            await writer.says("d")
            after = [told(await ann.receive())]
            if after[0][0] == "stream.snapshot":  # the one of its subscription, which waited for Redis
                assert (after[0][1]["text"], after[0][1]["nextIndex"]) == ("abc", 3)
                after.append(told(await ann.receive()))
            assert after[-1] == writer.said[3]


class TestHole:
    """A message is missing although the connection is up."""

    async def test_a_gap_is_read_from_the_log_and_later_tokens_wait(self, server, redis):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            with writer.unheard():
                await writer.says("a", "b")
            await writer.says("c")
            await writer.ends(COMPLETE)
            await hears(ann, *writer.said)
        assert server.node.healer.tokens >= 2

    async def test_a_terminal_event_waits_for_missing_tokens(self, server, redis):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            await writer.says("a")
            with writer.unheard():
                await writer.says("b")
            await writer.ends(COMPLETE)
            await hears(ann, *writer.said)
        assert (server.node.healer.tokens, server.node.healer.endings) == (1, 0)

    async def test_a_lost_terminal_event_is_found_by_the_sweep(self, server, redis, monkeypatch):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            await writer.says("a")
            await until(lambda: server.node.fanout.deliveries)
            with writer.unheard():
                await writer.says("b")
                await writer.ends(COMPLETE)
            monkeypatch.setattr(healing, "SILENT_REPLY_CHECK_SECONDS", 0.01)
            now = server.node.healer._now
            monkeypatch.setattr(server.node.healer, "_now", lambda: now() + 61)
            sweep = asyncio.create_task(server.node.healer.sweep())
            await hears(ann, *writer.said)
            sweep.cancel()

    @pytest.mark.parametrize("state", ["complete", "failed"])
    async def test_without_the_log_a_partial_reply_is_not_completed(self, server, redis, state, caplog):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            await writer.says("a")
            with writer.unheard():
                await writer.says("b")
            await redis.xdel(wire.log_key("1", CHANNEL, "m"), wire.log_entry_id(1))
            await writer.says("c")
            await writer.ends(ENDS[state][0])
            await until(lambda: server.node.healer.failed == 1)
            other = await Writer(redis, "other").begin()
            await other.says("x")
            end = [] if state == "complete" else [writer.said[3]]
            await hears(ann, writer.said[0], *end, *other.said)
        assert "the log lacks the missing tokens" in caplog.text

    async def test_an_unreadable_log_is_given_up(self, server, redis, caplog):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            with writer.unheard():
                await writer.says("a")
            await redis.hset(wire.message_key("1", CHANNEL, "m"), "user", "junk")
            await writer.says("b")
            await until(lambda: server.node.healer.failed == 1)
            await hears(ann)
        assert "cannot be read" in caplog.text

    async def test_an_invalid_final_marker_is_an_internal_failure(self, server, redis):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            with writer.unheard():
                await writer.says("a")
                await writer.log.decide(b"junk")
                await writer.ends(Decision(state="failed", code="internal"))
            await server.node.healer.resync([Key("1", CHANNEL)])
            await hears(ann, *writer.said)


class TestSnapshots:
    """A late subscriber gets exactly what the channel has delivered, nothing twice."""

    async def test_a_snapshot_ends_where_the_channel_continues(self, server, redis):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            await writer.says("a", "b")
            await until(lambda: server.node.fanout.deliveries)
            with writer.unheard():
                await writer.says("c", "d")
            async with reader(server) as bob:
                snapshot = told(await bob.receive())
                assert snapshot[0] == "stream.snapshot"
                assert (snapshot[1]["text"], snapshot[1]["nextIndex"]) == ("ab", 2)
                await writer.says("e")
                await writer.ends(COMPLETE)
                await hears(bob, *writer.said[2:])
            await hears(ann, *writer.said)

    async def test_the_first_subscriber_gets_snapshots_of_all_replies(self, server, link, redis):
        writer = await Writer(redis).begin()
        await writer.says("a", "b")
        async with reader(server) as ann:
            assert told(await ann.receive())[1]["nextIndex"] == 2
            await away(server, link)
            await writer.says("c")
            link.heal()
            await hears(ann, writer.said[2])
            await writer.ends(COMPLETE)
            await hears(ann, writer.said[3])

    async def test_tokens_delivered_during_the_read_are_added_to_the_snapshot(self, server, redis):
        async with streaming(server, redis, "a", "b") as (_, writer):
            with while_reading(server, lambda: writer.says("c", "d")) as reads:
                async with reader(server) as bob:
                    live = [told(await bob.receive()) for _ in "cd"]
                    assert live == writer.said[2:]
                    event, snapshot = told(await bob.receive())
                    assert (event, snapshot["status"]) == ("stream.snapshot", "streaming")
                    assert (snapshot["text"], snapshot["nextIndex"]) == ("abcd", 4)
                    await writer.says("e")
                    await hears(bob, writer.said[4])
            assert reads == [2]

    @pytest.mark.parametrize("end", ENDS)
    async def test_a_reply_that_ends_during_the_read_is_complete(self, server, redis, end):
        async with streaming(server, redis, "a", "b") as (ann, writer):
            decision, saved = ENDS[end]

            async def end_it() -> None:
                await writer.says("c")
                await writer.ends(decision, saved=saved)
                await hears(ann, *writer.said[2:])

            with while_reading(server, end_it):
                async with reader(server) as bob:
                    assert [told(await bob.receive()) for _ in "c."] == writer.said[2:]
                    _, snapshot = told(await bob.receive())
                    assert (snapshot["text"], snapshot["nextIndex"]) == ("abc", 3)
                    assert snapshot["status"] == (end if end in stream.ENDS else "failed")

    @pytest.mark.parametrize("heard", [True, False])
    async def test_a_reply_that_ends_before_redis_answers_is_complete(
        self, server, redis, monkeypatch, heard
    ):
        """Also if its end is lost and healed."""
        monkeypatch.setattr(healing, "SNAPSHOT_PAUSES", (0.01,) * 10_000)
        monkeypatch.setattr(healing, "SNAPSHOT_ATTEMPTS", 10_000)
        async with streaming(server, redis, "a", "b") as (ann, writer):
            replies, asked = server.node.healer._replies, list[Any]()
            around = replies.around

            async def refused(keys):
                asked.append(keys)
                raise BusError("Redis does not answer")

            replies.around = refused
            async with reader(server) as bob:
                await until(lambda: asked)
                with contextlib.nullcontext() if heard else writer.unheard():
                    await writer.says("c")
                    await writer.ends(COMPLETE)
                if not heard:
                    channel = server.node.healer._channels[Key("1", CHANNEL)]
                    server.node.healer._heal(Key("1", CHANNEL), channel, *channel.resync(["m"], {}, 0.0))
                await hears(ann, *writer.said[2:])
                assert [told(await bob.receive()) for _ in "c."] == writer.said[2:]
                del replies.around
                assert replies.around == around
                _, snapshot = told(await bob.receive())
                assert (snapshot["text"], snapshot["nextIndex"]) == ("abc", 3)
                assert snapshot["status"] == "complete"

    async def test_a_reply_that_ends_during_the_registration_is_complete(self, server, redis, monkeypatch):
        async with streaming(server, redis, "a", "b") as (ann, writer):
            join, waiting = server.node.registry.join, list[Any]()
            monkeypatch.setattr(server.node.registry, "join", lambda *call: waiting.append(call))
            async with client(server.port) as bob:
                auth = signatures.sign_channel(APP.key, APP.secret, bob.socket_id, CHANNEL)
                await bob.send("pusher:subscribe", {"channel": CHANNEL, "auth": auth})
                await until(lambda: waiting)
                await writer.says("c")
                await writer.ends(COMPLETE)
                await hears(ann, *writer.said[2:])
                join(*waiting[0])
                assert (await bob.receive())["event"] == "pusher_internal:subscription_succeeded"
                assert [told(await bob.receive()) for _ in "c."] == writer.said[2:]
                _, snapshot = told(await bob.receive())
                assert (snapshot["text"], snapshot["status"]) == ("abc", "complete")

    async def test_a_subscriber_that_leaves_while_waiting_leaves_nothing_behind(self, server):
        async with reader(server) as ann:
            await synced(server)
            async with reader(server):
                pass
            await until(lambda: server.node.hub.count(Key("1", CHANNEL)) == 1)
            await until(lambda: not server.node.healer._channels[Key("1", CHANNEL)].observers)
            await hears(ann)

    async def test_with_too_many_tokens_the_log_is_read_again(self, server, redis, monkeypatch):
        monkeypatch.setattr("legato.broadcaster.replies.snapshot.MAX_OBSERVED_BYTES", 1)
        async with streaming(server, redis, "a") as (_, writer):
            texts = iter([("b", "c"), ("d",)])
            with while_reading(server, lambda: writer.says(*next(texts))) as reads:
                async with reader(server) as bob:
                    assert [told(await bob.receive()) for _ in "bcd"] == writer.said[1:]
                    _, snapshot = told(await bob.receive())
                    assert (snapshot["text"], snapshot["nextIndex"]) == ("abcd", 4)
            assert reads == [1, 3]

    async def test_a_reply_that_is_healed_from_the_start_has_no_snapshot(self, server, redis):
        async with reader(server) as ann:
            await synced(server)
            writer = await Writer(redis).begin()
            with writer.unheard():
                await writer.says("a")
            async with reader(server) as bob:
                await until(lambda: not server.node.background)  # he is welcomed
                await writer.says("b")
                await hears(bob, *writer.said)
            await hears(ann, *writer.said)


class LateBus:
    """Delays the messages of a node's bus until :meth:`bring`. Redis otherwise answers."""

    def __init__(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        bus = server.node.bus
        self._waiting: list[Callable[[], None]] = []
        self.confirmed = 0
        self._deliver, self._confirm = bus._on_message, bus._on_confirmed
        monkeypatch.setattr(
            bus, "_on_message", lambda *frame: self._waiting.append(lambda: self._deliver(*frame))
        )
        monkeypatch.setattr(bus, "_on_confirmed", self._keep_confirmation)
        self._monkeypatch = monkeypatch
        self._bus = bus

    def _keep_confirmation(self, key: Key) -> None:
        self.confirmed += 1
        self._waiting.append(lambda: self._confirm(key))

    def __len__(self) -> int:
        return len(self._waiting)

    def bring(self) -> None:
        """Deliver all delayed messages, and further ones at once."""
        self._monkeypatch.setattr(self._bus, "_on_message", self._deliver)
        self._monkeypatch.setattr(self._bus, "_on_confirmed", self._confirm)
        for one in self._waiting:
            one()


async def appended(one: Client) -> tuple[str, list[int]]:
    """The text of a naive client, which appends tokens and replaces by snapshots; and its indexes."""
    text, indexes = "", []
    while True:
        event, data = told(await one.receive())
        if event == "token.received":
            text += data["token"]
            indexes.append(data["tokenIndex"])
        elif event == "stream.snapshot":
            text = data["text"]
        elif event == "stream.completed":
            return text, indexes


class TestTokensOnTheirWay:
    """At the time of a subscription, the log has tokens that the bus has not delivered yet."""

    @pytest.fixture
    def waiting(self, server, monkeypatch) -> asyncio.Event:
        """Redis does not answer which replies stream until the event is set."""
        gate, around = asyncio.Event(), server.node.healer._replies.around

        async def later(keys: Any) -> Any:
            await gate.wait()
            return await around(keys)

        monkeypatch.setattr(server.node.healer._replies, "around", later)
        return gate

    @pytest.mark.parametrize("brought", [0, 2], ids=["all of them", "those behind the first"])
    async def test_no_token_is_doubled_or_lost_for_a_client_that_appends(
        self, server, redis, monkeypatch, waiting, brought
    ):
        async with reader(server) as ann:
            writer = await Writer(redis).begin()
            if brought:
                await writer.says(*"ab")
            await until(lambda: server.node.fanout.messages == brought)
            late = LateBus(server, monkeypatch)
            await writer.says("c", "d", "e")
            await until(lambda: len(late) == 3)
            waiting.set()
            async with reader(server) as bob:
                # Either the node waits for the bus, or it has told all that it will.
                await until(lambda: late.confirmed or not server.node.background)
                late.bring()
                await writer.says("f")
                await writer.ends(COMPLETE)
                text, indexes = await appended(ann)
                whole = "ab"[:brought] + "cdef"
                assert (text, indexes) == (whole, list(range(len(whole))))
                text, indexes = await appended(bob)
                assert (text, indexes) == (whole, indexes[:1] and list(range(indexes[0], len(whole))))

    async def test_a_lost_bus_connection_leaves_no_subscriber_waiting(
        self, server, redis, monkeypatch, waiting, link
    ):
        async with reader(server) as ann:
            late = LateBus(server, monkeypatch)
            writer = await Writer(redis).begin()
            await writer.says("a", "b")
            await until(lambda: len(late) == 2)
            waiting.set()
            await until(lambda: late.confirmed)
            late._waiting.clear()
            monkeypatch.undo()
            await away(server, link)
            event, snapshot = told(await ann.receive())
            assert (event, snapshot["text"], snapshot["nextIndex"]) == ("stream.snapshot", "ab", 2)
            link.heal()
            await writer.says("c")
            await writer.ends(COMPLETE)
            assert await appended(ann) == ("c", [2])


class TestCachedEvents:
    """Gaps on a cache channel."""

    async def publish(self, port: int, data: str, **more: Any) -> None:
        body = {"name": "e", "data": data, "channel": "cache-x"} | more
        assert await post(port, EVENTS, body) == (200, {})

    @contextlib.asynccontextmanager
    async def reader(self, server) -> AsyncIterator[Client]:
        async with client(server.port) as one:
            await one.subscribe("cache-x")
            yield one

    async def heard(self, one: Client, *expected: str) -> None:
        assert [(await one.receive())["data"] for _ in expected] == list(expected)
        await one.send("pusher:ping")
        assert (await one.receive())["event"] == "pusher:pong"

    async def recovered(self, server, times: int) -> None:
        recovery = server.node.recovery
        await until(lambda: recovery.channels == times and not recovery._running)

    async def test_the_last_missed_event_is_delivered_once(self, server, link, valkey_url):
        async with (
            self.reader(server) as ann,
            self.reader(server) as bob,
            running(local_settings(redis=Redis(url=valkey_url))) as other,
        ):
            assert (await ann.receive())["event"] == "pusher:cache_miss"
            assert (await bob.receive())["event"] == "pusher:cache_miss"
            await self.publish(other.port, "1")
            await self.heard(ann, "1")
            await away(server, link)
            await self.publish(other.port, "2")
            await self.publish(other.port, "3")
            link.heal()
            await self.recovered(server, 1)
            await self.heard(ann, "3")
            await away(server, link)
            link.heal()
            await self.recovered(server, 2)
            await self.publish(other.port, "4")
            await self.heard(ann, "4")
            await self.heard(bob, "1", "3", "4")
        assert server.node.cached.read == 1
        await until(lambda: not server.node.cached._versions)

    async def test_an_event_sent_to_a_subscriber_is_not_sent_again(self, server, link, valkey_url):
        async with running(local_settings(redis=Redis(url=valkey_url))) as other:
            await self.publish(other.port, "1")
            async with self.reader(server) as ann:
                await self.heard(ann, "1")
                await away(server, link)
                link.heal()
                await self.recovered(server, 1)
                await self.heard(ann)

    async def test_a_late_older_event_is_not_delivered_after_the_newer_one(self, server):
        async with self.reader(server) as ann:
            assert (await ann.receive())["event"] == "pusher:cache_miss"
            key = Key("1", "cache-x")
            version = await server.node.registry.remember(key, "e", "2", 60)
            await server.node.cached.read_again([key])
            for late in (version - 1, version, version + 1):
                frame = json.dumps({"event": "e", "channel": "cache-x", "data": str(late - version)}).encode()
                envelope = wire.Envelope(frame, command=wire.CACHED, detail=str(late))
                await server.node.bus.publish([(key, envelope)])
            await self.heard(ann, "2", "1")
