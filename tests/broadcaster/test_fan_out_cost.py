"""What a delivery costs, counted in Python instructions and in system calls: the same under any load.

Measured with Python 3.11: 9.4 instructions for each further receiver of a flush, the call of its write among
them; 11.6 in a large channel, where each chunk of 64 has some of its own. For each further message of a flush
78, its frame among them. For a token that one of many channels has 369, from the reply of Redis to the write.
System calls: one per receiver and request, however many events are in it.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import json
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from legato.broadcaster.bus.pubsub import NOT_ENOUGH_DATA
from legato.broadcaster.composition import running
from legato.broadcaster.limits import WRITES_PER_CLOCK_READ
from legato.protocol import stream, wire
from legato.protocol.settings import Redis
from legato.protocol.wire import Envelope
from tests.broadcaster.api.test_http_api import BATCH, post
from tests.broadcaster.channels.test_hub import KEY, Loop, Recorder
from tests.broadcaster.conftest import APP, client, local_settings
from tests.broadcaster.test_server import legato

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from legato.broadcaster.config import Settings

PER_RECEIVER = 13
PER_MESSAGE = 100
PER_TOKEN = 400
TOKENS = 20

WRITES = ("write", "writev", "pwritev2", "sendto", "sendmsg", "sendmmsg")
SUBSCRIBERS, REQUESTS, EVENTS = 20, 30, 10


def instructions(work: Callable[[], object]) -> int:
    """The number of Python instructions that ``work`` takes, including all functions that it calls."""
    count = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # what others have left behind may run code of its own when it is collected
    sys._getframe().f_trace_opcodes = True  # Python 3.12 wants one before tracing begins
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return count


def fan_out(receivers: int, messages: int) -> int:
    """Instructions for delivering this many messages in one turn, including the flush."""
    loop = Loop()
    loop.fanout._clock = lambda: 0.0
    for number in range(receivers):
        person = Recorder(f"{number}.1")
        person.write_now = collections.deque(maxlen=1).append  # no instruction of its own
        loop.subscribe(person, KEY, b"")
    loop.confirm(KEY)

    def work() -> None:
        for _ in range(messages):
            loop.hub.deliver(KEY, b'{"event":"e"}')
        loop.turn()

    count = instructions(work)
    assert loop.fanout.deliveries == receivers * messages
    return count


@pytest.mark.parametrize("receivers", [WRITES_PER_CLOCK_READ // 2, 10 * WRITES_PER_CLOCK_READ])
def test_a_receiver_costs_one_write_and_nothing_else(receivers):
    more = fan_out(2 * receivers, 10) - fan_out(receivers, 10)
    assert more / receivers <= PER_RECEIVER


@pytest.mark.parametrize("receivers", [1, WRITES_PER_CLOCK_READ // 2, 10 * WRITES_PER_CLOCK_READ])
def test_a_message_costs_the_same_whoever_receives_it(receivers):
    more = fan_out(receivers, 20) - fan_out(receivers, 10)
    assert more / 10 <= PER_MESSAGE


def test_a_token_of_each_of_many_channels_costs_little(valkey_url):
    """From the parsed reply of Redis to the write. On uvloop, where a write is no Python code."""
    half, full = uvloop.run(tokens(local_settings(redis=Redis(url=valkey_url))))
    assert (full - half) / (TOKENS - TOKENS // 2) <= PER_TOKEN


async def tokens(settings: Settings) -> tuple[int, int]:
    """Instructions for one token each to half of the users, and to all."""
    async with running(settings) as server, contextlib.AsyncExitStack() as stack:
        people = [await stack.enter_async_context(client(server.port)) for _ in range(TOKENS)]
        for number, person in enumerate(people):
            await person.subscribe(stream.chat_channel(f"user-{number}"))
        node = server.node
        (feed,) = node.bus._feeds._feeds.values()
        said = [0] * TOKENS

        def turn(channels: int) -> int:
            replies = [token(number, said[number]) for number in range(channels)]
            said[:channels] = [count + 1 for count in said[:channels]]
            gets = iter([*replies, NOT_ENOUGH_DATA]).__next__
            return instructions(lambda: (feed._hear(gets), node.fanout.flush()))

        turn(TOKENS)  # the first token of a reply is another matter
        half, full = turn(TOKENS // 2), turn(TOKENS)
        for count, person in zip(said, people, strict=True):
            indexes = [json.loads((await person.receive())["data"])["tokenIndex"] for _ in range(count)]
            assert indexes == list(range(count))
    return half, full


def token(number: int, index: int) -> list[bytes]:
    """The message that Redis sends for an append of a worker."""
    channel, message = stream.chat_channel(f"user-{number}"), f"message-{number}"
    event = stream.TokenReceived(f"user-{number}", message, "a token", index)
    envelope = Envelope(event.frame(channel), None, (message, index))
    return [b"smessage", wire.bus_channel(APP.id, channel).encode(), wire.encode_envelope(envelope)]


def test_instructions_are_counted():
    def work() -> None:
        for number in range(100):
            number * number

    instructions(work)  # Python 3.13 counts nothing of what it has not traced before
    assert 3 * 100 <= instructions(work) <= 10 * 100


@contextlib.asynccontextmanager
async def counted(report: Path) -> AsyncIterator[int]:
    """Run a broadcaster. Yields its port; after the block, its writes are in ``report``."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.fail("strace is missing: tests/setup-debian.sh installs it", pytrace=False)
    counting = (strace, "-f", "-c", "-e", f"trace={','.join(WRITES)}", "-o", str(report))
    naming = ("sh", "-c", 'echo "pid $$" && exec "$@"', "sh")
    async with legato("broadcaster", "--port", "0", under=(*counting, *naming)) as process:
        try:
            pid = int((await process.line(r"^pid (\d+)"))[1])
        except AssertionError:
            reason = f"strace counts nothing here, is ptrace permitted? {process.output}"
            pytest.fail(reason, pytrace=False)
        try:
            yield int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        os.kill(pid, signal.SIGTERM)
        assert await process.end() == 0


def calls(report: str) -> int:
    """The number of calls in a table of strace: % time, seconds, usecs/call, calls, [errors,] syscall."""
    rows = [line.split() for line in report.splitlines()]
    return sum(int(row[3]) for row in rows if row and row[-1] in WRITES)


async def test_events_of_one_request_reach_a_receiver_by_one_system_call(tmp_path):
    report = tmp_path / "calls"
    batch = [{"name": "e", "data": str(number), "channel": "a"} for number in range(EVENTS)]
    async with counted(report) as port, contextlib.AsyncExitStack() as stack:
        people = [await stack.enter_async_context(client(port)) for _ in range(SUBSCRIBERS)]
        for person in people:
            await person.subscribe("a")
        for _ in range(REQUESTS):
            assert (await post(port, BATCH, {"batch": batch}))[0] == 200
            for person in people:
                received = [(await person.receive())["data"] for _ in batch]
                assert received == [event["data"] for event in batch]
    written = calls(report.read_text())
    deliveries = SUBSCRIBERS * REQUESTS * EVENTS
    around = 4 * SUBSCRIBERS + 2 * REQUESTS + 100  # hand-shakes, answers, and what the process says
    assert deliveries / EVENTS <= written <= deliveries / EVENTS + around
