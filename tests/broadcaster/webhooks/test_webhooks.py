"""Webhooks end to end: real requests to a receiver that may be good, slow, wrong or dead."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import logging
import socket
import sys
import time

import pytest
import uvloop
from pusher import Pusher

from legato.broadcaster.config import load
from legato.broadcaster.webhooks.dispatcher import Webhooks
from legato.protocol.apps import App, Webhook
from legato.protocol.channels import Key
from legato.protocol.delivery import RetryPolicy
from legato.protocol.holdback import Gone
from legato.protocol.settings import SettingsError
from tests.broadcaster.webhooks.webhook_receiver import OK, Receiver, status
from tests.waiting import until

FAST = RetryPolicy(collect=0.01, first_retry=0.02, longest_retry=0.05, give_up=30, probe=0.01)
HOLD = 0.1
CHANNEL = "presence-x"


@pytest.fixture
async def receiver():
    receiver = Receiver()
    async with receiver.listening():
        yield receiver


def app(*hooks: Webhook, app_id: str = "1") -> App:
    return App(id=app_id, key="app-key", secret="app-secret", webhooks=hooks)


@contextlib.asynccontextmanager
async def sending(*apps: App, policy: RetryPolicy = FAST, hold_seconds: float = HOLD):
    webhooks = Webhooks(apps, policy=policy, hold_seconds=hold_seconds)
    await webhooks.start()
    try:
        yield webhooks
    finally:
        await webhooks.close(0)


@pytest.fixture
async def webhooks(receiver):
    """Of an application with one webhook that wants everything."""
    async with sending(app(Webhook(url=receiver.url))) as started:
        yield started


def everything(webhooks: Webhooks) -> None:
    """One of each event, in the order that a node calls in."""
    webhooks.channel_occupied("1", CHANNEL)
    webhooks.member_added("1", CHANNEL, "7")
    webhooks.cache_miss("1", CHANNEL)
    webhooks.subscription_count("1", CHANNEL, 1)
    webhooks.client_event("1", CHANNEL, "client-a", b'{"a":"\xc3\xa4"}', "1.2", "7")
    webhooks.member_removed("1", CHANNEL, "7", disconnect=False)
    webhooks.channel_vacated("1", CHANNEL, disconnect=False)


EVERYTHING = [
    {"name": "channel_occupied", "channel": CHANNEL},
    {"name": "member_added", "channel": CHANNEL, "user_id": "7"},
    {"name": "cache_miss", "channel": CHANNEL},
    {"name": "subscription_count", "channel": CHANNEL, "subscription_count": 1},
    {
        "name": "client_event",
        "channel": CHANNEL,
        "event": "client-a",
        "data": '{"a":"\u00e4"}',
        "socket_id": "1.2",
        "user_id": "7",
    },
    {"name": "member_removed", "channel": CHANNEL, "user_id": "7"},
    {"name": "channel_vacated", "channel": CHANNEL},
]


# --- what is sent


@pytest.mark.parametrize("batch", [True, False])
async def test_every_event_in_order_as_the_official_python_sdk_wants_it(receiver, batch):
    async with sending(app(Webhook(url=receiver.url, batch=batch))) as webhooks:
        everything(webhooks)
        await until(lambda: len(receiver.events) == 7)
        await until(lambda: webhooks.sent == 7)
        assert (webhooks.failed, webhooks.dropped, webhooks.waiting) == (0, 0, 0)
    assert receiver.events == EVERYTHING
    assert len(receiver.received) == (1 if batch else 7)
    sdk = Pusher(app_id="1", key="app-key", secret="app-secret")
    other = Pusher(app_id="1", key="app-key", secret="another-secret")
    for received in receiver.received:
        key, signature = received.headers["x-pusher-key"], received.headers["x-pusher-signature"]
        verified = sdk.validate_webhook(key, signature, received.body.decode())
        assert verified == {"time_ms": received.time_ms, "events": received.events}
        assert other.validate_webhook(key, signature, received.body.decode()) is None
        assert sdk.validate_webhook(key, signature, received.body.decode() + " ") is None


async def test_the_request_itself(webhooks, receiver):
    before = int(time.time() * 1000)
    webhooks.channel_occupied("1", "x")
    await until(lambda: receiver.received)
    (received,) = receiver.received
    assert received.target == "/hook"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"] == "Legato"
    assert isinstance(received.time_ms, int)
    assert before <= received.time_ms <= time.time() * 1000


async def test_custom_headers_and_a_password_in_the_address(receiver, caplog):
    caplog.set_level(logging.DEBUG)
    hook = Webhook(
        url=f"http://user:pass-word@127.0.0.1:{receiver.port}/hook?token=to-ken",
        headers={"X-Tenant": "header-value"},
    )
    async with sending(app(hook)) as webhooks:
        receiver.answer = lambda _: status(500) if len(receiver.received) < 2 else OK
        webhooks.channel_occupied("1", "x")
        await until(lambda: webhooks.sent)
    for received in receiver.received:
        assert received.target == "/hook?token=to-ken"
        assert received.headers["x-tenant"] == "header-value"
        assert received.headers["authorization"] == "Basic " + base64.b64encode(b"user:pass-word").decode()
        assert received.headers["content-type"] == "application/json"
    assert "trying again" in caplog.text
    for secret in ("pass-word", "to-ken", "header-value", "app-secret"):
        assert secret not in caplog.text


async def test_a_configured_signature_is_overridden_with_a_warning(receiver, caplog):
    hook = Webhook(url=receiver.url, headers={"X-Pusher-Signature": "hush", "X-Pusher-Key": "hush"})
    async with sending(app(hook)) as webhooks:
        webhooks.channel_occupied("1", "x")
        await until(lambda: webhooks.sent)
    (received,) = receiver.received
    assert received.headers["x-pusher-key"] != "hush"
    assert received.headers["x-pusher-signature"] != "hush"
    (line,) = [line for line in caplog.messages if "set by Legato" in line]
    assert "X-Pusher-Signature, X-Pusher-Key" in line
    assert "hush" not in line


async def test_each_webhook_gets_what_it_wants_of_its_own_application(receiver):
    def hook(path, **changes):
        return Webhook(url=f"{receiver.url}/{path}", **changes)

    apps = (
        app(
            hook("all"),
            hook("members", events=("member_added", "member_removed")),
            hook("private", channel_prefix="private-"),
        ),
        app(hook("other"), app_id="2"),
        app(app_id="3"),
    )
    async with sending(*apps) as webhooks:
        webhooks.channel_occupied("1", CHANNEL)
        webhooks.member_added("1", CHANNEL, "7")
        webhooks.channel_occupied("1", "private-y")
        webhooks.channel_occupied("2", "private-z")
        webhooks.channel_occupied("3", "x")
        webhooks.member_removed("3", "x", "7", disconnect=True)
        webhooks.channel_occupied("unknown", "x")
        await until(lambda: not webhooks.waiting)
    got = {
        received.target.removeprefix("/hook/"): [
            (event["name"], event["channel"]) for event in received.events
        ]
        for received in receiver.received
    }
    assert got == {
        "all": [
            ("channel_occupied", CHANNEL),
            ("member_added", CHANNEL),
            ("channel_occupied", "private-y"),
        ],
        "members": [("member_added", CHANNEL)],
        "private": [("channel_occupied", "private-y")],
        "other": [("channel_occupied", "private-z")],
    }


async def test_clients_that_miss_a_cached_event_at_once_are_told_once(webhooks, receiver):
    for _ in range(5):
        webhooks.cache_miss("1", "cache-x")
    webhooks.cache_miss("1", "cache-y")
    webhooks.subscription_count("1", "last", 1)
    await until(lambda: "subscription_count" in receiver.names)
    assert receiver.names == ["cache_miss", "cache_miss", "subscription_count"]


async def test_before_the_start_and_after_the_end_events_are_ignored(receiver):
    webhooks = Webhooks([app(Webhook(url=receiver.url))])
    everything(webhooks)
    await webhooks.start()
    await webhooks.close()
    everything(webhooks)
    await webhooks.close()
    assert (webhooks.waiting, webhooks.sent, receiver.received) == (0, 0, [])


async def test_without_a_webhook_no_http_client_is_loaded():
    code = (
        "import asyncio, sys\n"
        "from legato.broadcaster.webhooks.dispatcher import Webhooks\n"
        "from legato.protocol.apps import App\n"
        "async def main():\n"
        "    webhooks = Webhooks([App(id='1', key='k', secret='s')])\n"
        "    await webhooks.start()\n"
        "    webhooks.channel_occupied('1', 'x')\n"
        "    await webhooks.close()\n"
        "asyncio.run(main())\n"
        "print('httpx2' in sys.modules)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"False\n"


@pytest.mark.parametrize("batch", [True, False])
def test_on_the_loop_that_the_server_runs_on(batch):
    """uvloop's timers are not asyncio's: one that is due already cannot be asked when."""

    async def run():
        receiver = Receiver()
        failing(receiver, 1, status(500))
        async with (
            receiver.listening(),
            sending(app(Webhook(url=receiver.url, batch=batch))) as webhooks,
        ):
            webhooks.channel_vacated("1", "y", disconnect=True)
            everything(webhooks)
            await until(lambda: webhooks.sent == 8)

    uvloop.run(run())


async def test_applications_may_change_while_events_wait(receiver):
    """What stays keeps its queue, its order and its figures; what goes is sent what is due."""

    def hook(path):
        return Webhook(url=f"{receiver.url}/{path}")

    receiver.answer = lambda received: status(500) if received.target == "/hook/stays" and stuck else OK
    stuck = True
    async with sending(app(hook("stays"), hook("goes")), app(hook("gone"), app_id="2")) as webhooks:
        webhooks.subscription_count("1", "x", 1)
        webhooks.subscription_count("2", "x", 1)
        await until(lambda: webhooks.sent == 2 and webhooks.failed)
        webhooks.subscription_count("1", "x", 2)
        webhooks.subscription_count("2", "x", 2)
        rotated = App(id="1", key="new-key", secret="new", webhooks=(hook("comes"), hook("stays")))
        webhooks.set_apps([rotated])
        webhooks.subscription_count("1", "x", 3)
        webhooks.subscription_count("2", "x", 3)
        await until(lambda: webhooks.sent == 5)
        assert webhooks.waiting == 3
        stuck = False
        await until(lambda: webhooks.sent == 8)
        assert (webhooks.dropped, webhooks.waiting, len(webhooks._senders.all)) == (0, 0, 2)
        webhooks.set_apps([])
        await until(lambda: not webhooks._senders.all)
        assert webhooks.sent == 8
    counts = {}
    for received in receiver.received:
        told = counts.setdefault(received.target.removeprefix("/hook/"), [])
        told += [event["subscription_count"] for event in received.events]
    last = [count for index, count in enumerate(counts["stays"]) if count not in counts["stays"][index + 1 :]]
    assert last == [1, 2, 3]
    assert (counts["goes"], counts["gone"], counts["comes"]) == ([1, 2], [1, 2], [3])
    assert receiver.received[-1].headers["x-pusher-key"] == "new-key"


# --- hold-back


async def test_whoever_is_back_in_time_has_never_been_away(webhooks, receiver):
    webhooks.channel_occupied("1", CHANNEL)
    webhooks.member_added("1", CHANNEL, "7")
    webhooks.member_removed("1", CHANNEL, "7", disconnect=True)
    webhooks.channel_vacated("1", CHANNEL, disconnect=True)
    webhooks.channel_occupied("1", CHANNEL)
    webhooks.member_added("1", CHANNEL, "7")
    await until(lambda: webhooks._departures.held.next_due is None)
    webhooks.subscription_count("1", CHANNEL, 1)
    await until(lambda: "subscription_count" in receiver.names)
    assert receiver.names == ["channel_occupied", "member_added", "subscription_count"]


async def test_who_stays_away_is_told_after_the_wait_member_first(webhooks, receiver):
    gone = asyncio.get_running_loop().time()
    webhooks.member_removed("1", CHANNEL, "7", disconnect=True)
    webhooks.channel_vacated("1", CHANNEL, disconnect=True)
    await until(lambda: len(receiver.events) == 2)
    assert asyncio.get_running_loop().time() >= gone + HOLD
    assert receiver.names == ["member_removed", "channel_vacated"]
    assert receiver.events[0]["user_id"] == "7"


async def test_departures_at_different_times_are_each_told(webhooks, receiver):
    webhooks.channel_vacated("1", "x", disconnect=True)
    await asyncio.sleep(HOLD / 2)  # not a wait for anything: the second departure is to be later
    webhooks.channel_vacated("1", "y", disconnect=True)
    await until(lambda: len(receiver.events) == 2)
    assert [event["channel"] for event in receiver.events] == ["x", "y"]


async def test_a_departure_is_told_only_if_it_still_stands_on_the_other_nodes(receiver):
    """The answer comes later, as from Redis; the departures stay in order."""
    asked = []

    def confirm(departure, answer):
        asked.append(departure)
        asyncio.get_running_loop().call_later(0.01, answer, departure.user_id != "7")

    webhooks = Webhooks([app(Webhook(url=receiver.url))], confirm, policy=FAST, hold_seconds=HOLD)
    await webhooks.start()
    for user_id in ("7", "8"):
        webhooks.member_removed("1", CHANNEL, user_id, disconnect=True)
    webhooks.member_removed("1", CHANNEL, "9", disconnect=False)
    webhooks.channel_vacated("1", CHANNEL, disconnect=True)  # the registry has held it, behind its members
    await until(lambda: "channel_vacated" in receiver.names)
    await webhooks.close()
    place = Key("1", CHANNEL)
    assert asked == [Gone(place, "7"), Gone(place, "8"), Gone(place, None)]
    assert [event.get("user_id") for event in receiver.events] == ["9", "8", None]


async def test_when_the_server_stops_nothing_is_held_back_any_more(receiver):
    """Hours would pass otherwise; the confirmation is still asked for."""
    asked = []
    webhooks = Webhooks(
        [app(Webhook(url=receiver.url))], lambda gone, _: asked.append(gone.user_id), hold_seconds=9_999
    )
    await webhooks.start()
    webhooks.member_removed("1", CHANNEL, "7", disconnect=True)
    assert asked == []
    webhooks.release()
    assert asked == ["7"]
    webhooks.member_removed("1", CHANNEL, "8", disconnect=True)
    webhooks.channel_vacated("1", CHANNEL, disconnect=True)
    assert asked == ["7", "8", None]
    await webhooks.close()


# --- retries


def failing(receiver: Receiver, times: int, how: bytes | None = None):
    """The first answers are `how`, the others good."""
    receiver.answer = lambda _: how if len(receiver.received) <= times else OK


@pytest.mark.parametrize("code", [300, 302, 307, 400, 404, 500, 503])
async def test_anything_but_2xx_is_repeated_unchanged(webhooks, receiver, code):
    failing(receiver, 3, status(code, "Location: /elsewhere"))
    everything(webhooks)
    await until(lambda: webhooks.sent)
    assert len(receiver.received) == 4
    first = receiver.received[0]
    for received in receiver.received:
        assert received.target == "/hook"
        assert received.body == first.body
        assert received.headers["x-pusher-signature"] == first.headers["x-pusher-signature"]
    assert (webhooks.sent, webhooks.failed, webhooks.dropped) == (7, 3, 0)


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
async def test_any_2xx_is_accepted(webhooks, receiver, code):
    receiver.answer = lambda _: status(code)
    webhooks.channel_occupied("1", "x")
    await until(lambda: webhooks.sent)
    assert (len(receiver.received), webhooks.failed) == (1, 0)


async def test_silence_is_a_failure_after_the_timeout(receiver):
    failing(receiver, 1, None)
    async with sending(app(Webhook(url=receiver.url, timeout=0.2))) as webhooks:
        webhooks.channel_occupied("1", "x")
        await until(lambda: webhooks.sent)
        assert webhooks.failed >= 1
    assert receiver.connections == len(receiver.received) >= 2


async def test_an_answer_that_trickles_is_cut_at_the_timeout(receiver):
    """A timeout per read would never end it."""
    failing(receiver, 1, b"HTTP/1.1 ")
    async with sending(app(Webhook(url=receiver.url, timeout=0.2))) as webhooks:
        webhooks.channel_occupied("1", "x")
        await until(lambda: webhooks.sent)
        assert webhooks.failed >= 1


@pytest.mark.parametrize("garbage", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_an_answer_that_is_not_http_is_a_failure(webhooks, receiver, garbage):
    failing(receiver, 1, garbage)
    webhooks.channel_occupied("1", "x")
    await until(lambda: webhooks.sent)
    assert webhooks.failed == 1


async def test_the_status_decides_whatever_becomes_of_the_body(receiver):
    receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nnever the rest"
    async with sending(app(Webhook(url=receiver.url, timeout=1))) as webhooks:
        webhooks.channel_occupied("1", "x")
        await until(lambda: webhooks.sent)
        assert (len(receiver.received), webhooks.failed) == (1, 0)


async def test_a_huge_answer_is_not_read_to_its_end(webhooks, receiver):
    size = 50_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    receiver.answer = lambda _: head + bytes(size // 10)
    webhooks.channel_occupied("1", "x")
    await until(lambda: webhooks.sent)
    webhooks.channel_occupied("1", "y")
    await until(lambda: webhooks.sent == 2)
    assert receiver.connections == 2


async def test_a_receiver_that_is_not_there_yet(receiver):
    """A port that is bound but does not listen refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        late = Receiver()
        hook = Webhook(url=f"http://127.0.0.1:{bound.getsockname()[1]}/hook")
        async with sending(app(hook)) as webhooks:
            everything(webhooks)
            await until(lambda: webhooks.failed >= 3)
            assert webhooks.waiting == 7
            async with late.listening(bound):
                await until(lambda: webhooks.sent == 7)
        assert late.events == EVERYTHING
        assert len(late.received) == 1


async def test_a_host_that_has_no_address(caplog):
    async with sending(app(Webhook(url="http://nowhere.invalid/"))) as webhooks:
        webhooks.channel_occupied("1", "x")
        await until(lambda: webhooks.failed >= 2)
        assert webhooks.waiting == 1


async def test_after_the_time_for_retries_events_are_dropped_with_a_line_in_the_log(receiver, caplog):
    receiver.answer = lambda _: status(500)
    async with sending(app(Webhook(url=receiver.url)), policy=FAST._replace(give_up=0.2)) as webhooks:
        webhooks.channel_occupied("1", "x")
        webhooks.channel_occupied("1", "y")
        await until(lambda: webhooks.dropped == 2)
        assert webhooks.waiting == 0
        await until(lambda: "dropped" in caplog.text)
        receiver.answer = lambda _: OK
        webhooks.channel_occupied("1", "z")
        await until(lambda: webhooks.sent == 1)
    line = next(record.getMessage() for record in caplog.records if "dropped" in record.getMessage())
    assert line == (f"app 1, webhook 127.0.0.1:{receiver.port}: 2 events dropped; last failure: HTTP 500")


async def test_a_receiver_that_keeps_failing_is_one_line_in_the_log(webhooks, receiver, caplog):
    receiver.answer = lambda _: status(500)
    webhooks.channel_occupied("1", "x")
    await until(lambda: webhooks.failed >= 4)
    lines = [record.getMessage() for record in caplog.records if "not accepted" in record.getMessage()]
    assert lines == [
        f"app 1, webhook 127.0.0.1:{receiver.port}: a request was not accepted (HTTP 500), trying again"
    ]


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("how", [status(500), None], ids=["500", "silence"])
async def test_a_channel_that_fails_holds_up_no_other_and_keeps_its_own_order(receiver, batch, how):
    accepted = {"a": [], "b": [], "c": []}
    stuck = True

    def answer(received):
        if stuck and any(event["channel"] == "a" for event in received.events):
            return how
        for event in received.events:
            accepted[event["channel"]].append(event["subscription_count"])
        return OK

    def in_order() -> dict[str, list[int]]:
        """Without repetitions: what was accepted too late for the sender is sent again."""
        return {channel: list(dict.fromkeys(counts)) for channel, counts in accepted.items()}

    receiver.answer = answer
    async with sending(app(Webhook(url=receiver.url, batch=batch, timeout=0.5))) as webhooks:
        for count in range(1, 6):
            for channel in "ab":
                webhooks.subscription_count("1", channel, count)
        await until(lambda: webhooks.sent == 5 and webhooks.failed >= 3)
        webhooks.subscription_count("1", "c", 1)
        await until(lambda: webhooks.sent == 6)
        assert in_order() == {"a": [], "b": [1, 2, 3, 4, 5], "c": [1]}
        stuck = False
        await until(lambda: webhooks.sent == 11)
        assert in_order()["a"] == [1, 2, 3, 4, 5]


async def test_a_dead_receiver_of_one_application_is_nothing_to_another(receiver):
    dead = Receiver()
    dead.answer = lambda _: None
    async with dead.listening():
        apps = (app(Webhook(url=dead.url)), app(Webhook(url=receiver.url), app_id="2"))
        async with sending(*apps) as webhooks:
            for index in range(100):
                webhooks.channel_occupied("1", f"x{index}")
            await until(lambda: dead.received)
            for index in range(100):
                webhooks.channel_occupied("2", f"x{index}")
            await until(lambda: webhooks.sent == 100)
            assert webhooks.waiting == 100


# --- bounds


async def test_over_the_bound_the_newest_events_are_dropped_and_counted(receiver, caplog):
    receiver.answer = lambda _: None
    hook = Webhook(url=receiver.url, batch=False)
    async with sending(app(hook), policy=FAST._replace(max_events=50)) as webhooks:
        for index in range(80):
            webhooks.channel_occupied("1", f"x{index}")
        assert (webhooks.waiting, webhooks.dropped) == (50, 30)
        await until(lambda: "30 events dropped" in caplog.text)
        await until(lambda: len(receiver.received) == FAST.concurrency)
        assert receiver.connections == FAST.concurrency


async def test_what_is_called_never_waits_for_a_receiver(receiver):
    """Everything below is in one turn of the loop: nothing else has run when it is over."""
    receiver.answer = lambda _: None
    async with sending(app(Webhook(url=receiver.url))) as webhooks:
        turns = 0

        def turn():
            nonlocal turns
            turns += 1

        asyncio.get_running_loop().call_soon(turn)
        for _ in range(1000):
            everything(webhooks)
        assert turns == 0
        assert webhooks.waiting + webhooks.dropped > 6000


# --- the client


async def test_no_proxy_out_of_the_environment(receiver, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with sending(app(Webhook(url=receiver.url))) as webhooks:
        webhooks.channel_occupied("1", "x")
        await until(lambda: webhooks.sent)


async def test_cookies_are_not_kept_and_connections_are(webhooks, receiver):
    receiver.answer = lambda _: status(204, "Set-Cookie: a=b; Path=/")
    for index in range(3):
        webhooks.channel_occupied("1", f"x{index}")
        await until(lambda index=index: webhooks.sent == index + 1)
    assert all("cookie" not in received.headers for received in receiver.received)
    assert receiver.connections == 1


# --- the end


async def test_at_the_end_what_waits_is_sent(receiver):
    webhooks = Webhooks([app(Webhook(url=receiver.url))], policy=RetryPolicy(first_retry=0.05))
    await webhooks.start()
    failing(receiver, 1, status(500))
    webhooks.channel_occupied("1", "y")
    webhooks.member_removed("1", CHANNEL, "7", disconnect=True)
    webhooks.channel_vacated("1", CHANNEL, disconnect=True)
    await webhooks.close()
    assert (webhooks.sent, webhooks.dropped) == (3, 0)
    names = [event["name"] for event in receiver.events if event["channel"] == CHANNEL]
    assert names[-2:] == ["member_removed", "channel_vacated"]


async def test_the_end_does_not_wait_for_a_receiver_longer_than_it_may(receiver, caplog):
    receiver.answer = lambda _: None
    webhooks = Webhooks([app(Webhook(url=receiver.url, timeout=60))], policy=FAST)
    await webhooks.start()
    webhooks.channel_occupied("1", "x")
    webhooks.channel_vacated("1", "y", disconnect=True)
    async with asyncio.timeout(40):  # the request itself may go on for longer
        await webhooks.close(0.3)
    assert (webhooks.dropped, webhooks.waiting) == (2, 0)
    assert "2 events dropped" in caplog.text


async def test_the_end_does_not_wait_for_a_retry_that_comes_too_late(receiver, caplog):
    receiver.answer = lambda _: status(500)
    webhooks = Webhooks(
        [app(Webhook(url=receiver.url))], policy=RetryPolicy(first_retry=200, longest_retry=200)
    )
    await webhooks.start()
    webhooks.channel_occupied("1", "x")
    await until(lambda: webhooks.failed)
    assert webhooks.waiting == 1
    async with asyncio.timeout(60):
        await webhooks.close(150)
    assert webhooks.dropped == 1


# --- configuration


def test_a_webhook_that_cannot_work_stops_the_start_with_one_line(tmp_path):
    file = tmp_path / "legato.toml"
    file.write_text(
        '[[apps]]\nid = "1"\nkey = "k"\nsecret = "s"\n[[apps.webhooks]]\nurl = "https://example.com/"\n'
        '[[apps.webhooks]]\nurl = "example.com"\n'
    )
    with pytest.raises(SettingsError) as caught:
        load(argparse.Namespace(config=str(file)), {})
    assert str(caught.value) == (
        f"{file}: apps[0].webhooks[1]: url: expected http:// or https:// with a host"
    )
