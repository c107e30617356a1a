"""Requests to ASGI applications: what is written for what an application sends, in order or not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.broadcaster.transport.asgi import CONTINUE, Flow
from legato.broadcaster.transport.asgi_cycle import AsgiCycle, Link
from tests.broadcaster.transport.fed import Transport, door
from tests.waiting import until

OK = {"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"2")]}
HI = {"type": "http.response.body", "body": b"hi"}
FAILED = b"HTTP/1.1 500 Internal Server Error\r\n"


class Stand:
    """A cycle without a connection."""

    def __init__(self, method: str = "GET", *, expects: bool = False, keep_alive: bool = True) -> None:
        self.transport = Transport()
        self.wanted = 0
        self.done = 0
        self.flow = Flow(self._want)
        self.headers: list[tuple[bytes, bytes]] = []
        self.cycle = AsgiCycle(
            {"method": method},
            self.transport,
            Link(self.flow, self.headers, self._end),
            expects=expects,
            keep_alive=keep_alive,
        )

    def _want(self) -> None:
        self.wanted += 1

    def _end(self) -> None:
        self.done += 1

    def give(self, body: bytes, *, more: bool) -> None:
        """Some of the body has come."""
        self.cycle.add(body)
        if not more:
            self.cycle.complete()

    async def answer(self, *messages) -> bytes:
        """What an application that sends these has written."""

        async def app(_scope, _receive, send) -> None:
            for message in messages:
                await send(message)

        await self.cycle.run(app)
        return self.transport.written


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, *, more: bool = False) -> dict:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def test_an_answer_of_known_length():
    stand = Stand()
    assert await stand.answer(OK, HI) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    assert (stand.done, stand.cycle.response_complete, stand.transport.ended) == (1, True, False)


async def test_an_answer_of_unknown_length_is_chunked():
    stand = Stand()
    parts = (body(b"a" * 17, more=True), body(b"", more=True), body(b"b"))
    assert await stand.answer(start(), *parts) == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11\r\n"
        + b"a" * 17
        + b"\r\n1\r\nb\r\n0\r\n\r\n"
    )
    assert stand.done == 1


async def test_an_application_that_chunks_by_itself_is_not_told_twice():
    written = await Stand().answer(start(200, (b"transfer-encoding", b"chunked")), body(b"x"))
    assert written.count(b"chunked") == 1
    assert written.endswith(b"\r\n\r\n1\r\nx\r\n0\r\n\r\n")


async def test_a_head_alone_has_no_body():
    written = await Stand("HEAD").answer(start(200, (b"content-length", b"9")), body(b"not this"))
    assert written == b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_no_length(status):
    written = await Stand().answer(start(status), body(b""))
    assert b"transfer-encoding" not in written


async def test_a_status_of_the_applications_own():
    assert (await Stand().answer(start(599, (b"content-length", b"0")), body(b""))).startswith(
        b"HTTP/1.1 599 \r\n"
    )


@pytest.mark.parametrize("by", ["request", "application", "server"])
async def test_an_answer_that_ends_the_connection_says_so_once(by):
    stand = Stand(keep_alive=by != "request")
    if by == "server":
        stand.headers.append((b"connection", b"close"))
    more = [(b"connection", b"keep-alive, Close")] if by == "application" else []
    written = await stand.answer(start(200, (b"content-length", b"2"), *more), HI)
    assert written.lower().count(b"close") == 1
    assert stand.transport.ended
    assert not stand.cycle.keep_alive


async def test_an_application_that_fails_before_its_answer_is_answered_for(caplog):
    stand = Stand()

    async def app(*_) -> None:
        raise ValueError("a fault")

    await stand.cycle.run(app)
    assert stand.transport.written.startswith(FAILED)
    assert stand.transport.written.endswith(b"\r\n\r\nInternal Server Error")
    assert b"a fault" not in stand.transport.written
    assert stand.transport.ended
    assert stand.done == 1
    assert "a fault" in caplog.text


async def test_an_application_that_is_cancelled_is_answered_for(caplog):
    stand, begun = Stand(), asyncio.Event()

    async def app(*_) -> None:
        begun.set()
        await asyncio.sleep(3600)

    task = asyncio.ensure_future(stand.cycle.run(app))
    await begun.wait()
    task.cancel()
    await task
    assert stand.transport.written.startswith(FAILED)
    assert caplog.messages == ["an application failed"]


@pytest.mark.parametrize(
    "messages",
    [
        [OK],
        [OK, body(b"h", more=True)],
        [OK, body(b"hi!")],
        [OK, body(b"h")],
        [OK, OK],
        [start(200, (b"content-length", b"2"), (b"x", b"a\r\nset-cookie: b"))],
        [start(200, (b"x y", b"a"))],
        [start(200, (b"", b"a"))],
    ],
)
async def test_an_answer_that_cannot_be_completed_ends_the_connection(messages, caplog):
    stand = Stand()
    written = await stand.answer(*messages)
    assert stand.transport.ended
    assert stand.done == 0
    assert b"set-cookie" not in written
    assert b"500" not in written
    assert caplog.messages


@pytest.mark.parametrize("messages", [[], [HI], [{"type": "nonsense"}]])
async def test_an_answer_that_has_not_begun_is_a_500(messages, caplog):
    assert (await Stand().answer(*messages)).startswith(FAILED)
    assert caplog.messages


async def test_behind_an_answer_nothing_is_sent(caplog):
    stand = Stand()
    assert await stand.answer(OK, HI, HI) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    assert stand.transport.ended
    assert "unexpected ASGI message" in caplog.text


async def test_to_a_peer_that_has_gone_nothing_is_sent(caplog):
    stand = Stand()
    stand.cycle.disconnect()
    assert await stand.answer(OK, HI) == b""
    assert caplog.messages == []


async def test_a_body_comes_in_parts_and_then_the_end():
    stand, got = Stand(), []

    async def app(_scope, receive, send) -> None:
        got.extend([await receive(), await receive()])
        await send(OK)
        await send(HI)
        got.append(await receive())

    stand.give(b"a", more=True)
    task = asyncio.ensure_future(stand.cycle.run(app))
    async with asyncio.timeout(30):
        await until(lambda: stand.wanted == 2)
        stand.give(b"b", more=False)
        await task
    assert got == [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b", "more_body": False},
        {"type": "http.disconnect"},
    ]


async def test_an_application_that_waits_is_told_when_the_peer_has_gone():
    stand, got = Stand(), []

    async def app(_scope, receive, _send) -> None:
        got.append(await receive())

    task = asyncio.ensure_future(stand.cycle.run(app))
    await asyncio.sleep(0)
    stand.cycle.disconnect()
    async with asyncio.timeout(30):
        await task
    assert got == [{"type": "http.disconnect"}]


async def test_who_waits_to_send_a_body_is_told_once_to_go_on():
    stand = Stand("POST", expects=True)

    async def app(_scope, receive, send) -> None:
        await receive()
        await receive()
        await send(OK)
        await send(HI)

    task = asyncio.ensure_future(stand.cycle.run(app))
    async with asyncio.timeout(30):
        for count, more in ((1, True), (2, False)):
            await until(lambda count=count: stand.wanted == count)
            stand.give(b"a", more=more)
        await task
    assert stand.transport.written.count(CONTINUE) == 1
    assert stand.transport.written.startswith(CONTINUE)


async def test_who_is_answered_at_once_is_not_told_to_go_on():
    stand = Stand("POST", expects=True)
    assert CONTINUE not in await stand.answer(OK, HI)


async def test_what_a_peer_does_not_read_is_waited_for():
    stand = Stand()
    stand.flow.pause_writing()
    task = asyncio.ensure_future(stand.answer(OK, HI))
    for _ in range(5):
        await asyncio.sleep(0)
    assert stand.transport.written == b""
    stand.flow.resume_writing()
    async with asyncio.timeout(30):
        assert (await task).endswith(b"hi")


async def test_each_answer_has_the_headers_that_the_server_has_by_then():
    """uvicorn makes a new list every second: with the date, and without what was there."""
    async with door() as opened:
        transport = opened.come()
        for value in (b"first", b"second"):
            opened.state.default_headers = [(b"date", value)]
            transport.written = b""
            transport.read(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
            await opened.calm()
            assert transport.written.count(b"\r\ndate: " + value + b"\r\n") == 1
            assert transport.written.count(b"date: ") == 1


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_no_field_breaks_the_head(name, value):
    stand = Stand()
    written = asyncio.run(stand.answer(start(204, (name, value)), body(b"")))
    head, found, rest = written.partition(b"\r\n\r\n")
    assert rest == b""
    assert not found or head.count(b"\r\n") <= 2  # the status, the field, perhaps that the connection ends
