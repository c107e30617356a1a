"""Processes on one port are replaced one after another, while clients receive and others publish."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.broadcaster.api.test_http_api import EVENTS, post
from tests.broadcaster.test_server import ENVIRON, Process, legato
from tests.waiting import WAIT, until

PEOPLE = 20


class Person:
    """A client on a channel of its own that reconnects whenever it is closed, as pusher-js does on 4200."""

    def __init__(self, port: int, number: int) -> None:
        self.channel = f"news-{number}"
        self.received: list[int] = []
        self.codes: list[int] = []
        self.subscribed = 0  # how often
        self._port = port

    @property
    def is_subscribed(self) -> bool:
        return self.subscribed > len(self.codes)

    async def listen(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                async with connect(f"ws://127.0.0.1:{self._port}/app/app-key") as connection:
                    await connection.send(
                        json.dumps({"event": "pusher:subscribe", "data": {"channel": self.channel}})
                    )
                    with contextlib.suppress(ConnectionClosed):
                        while True:
                            self._hear(json.loads(await connection.recv()))

    def _hear(self, message: dict[str, Any]) -> None:
        if message["event"] == "pusher_internal:subscription_succeeded":
            self.subscribed += 1
        elif message["event"] == "pusher:error":
            self.codes.append(message["data"]["code"])
        elif message["event"] == "e":
            self.received.append(int(message["data"]))


class Publisher:
    """Publishes to one person all the time, and knows what that person cannot have missed.

    Subscribed on the same connection from before the request to after its answer, and counted as subscribed
    after it was published; or the count was taken before the person was closed.
    """

    def __init__(self, port: int, person: Person) -> None:
        self.due: list[int] = []
        self.failed = 0
        self._port = port
        self._person = person

    async def publish(self) -> None:
        person = self._person
        for number in range(1_000_000):
            event = {
                "name": "e",
                "data": str(number),
                "channel": person.channel,
                "info": "subscription_count",
            }
            before = person.subscribed, len(person.codes)
            was_subscribed = person.is_subscribed
            try:
                status, said = await post(self._port, EVENTS, event)
            except OSError:
                self.failed += 1
                continue
            assert status == 200, said
            counted = said["channels"][person.channel]["subscription_count"]
            if was_subscribed and counted and before == (person.subscribed, len(person.codes)):
                self.due.append(number)
            await asyncio.sleep(0.02)


async def ready(process: Process) -> int:
    return int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])


async def test_nothing_is_missed_while_processes_are_replaced(valkey_url):
    environ = ENVIRON | {
        "REDIS_URL": valkey_url,
        "LEGATO_SERVER_REUSE_PORT": "true",
        "LEGATO_SERVER_DRAIN_SECONDS": "1",
    }
    async with contextlib.AsyncExitStack() as stack:

        async def start(port: int) -> Process:
            process = await stack.enter_async_context(
                legato("broadcaster", "--port", str(port), environ=environ)
            )
            await ready(process)
            return process

        first = await stack.enter_async_context(legato("broadcaster", "--port", "0", environ=environ))
        port = await ready(first)
        second = await start(port)
        people = [Person(port, number) for number in range(PEOPLE)]
        publishers = [Publisher(port, person) for person in people]
        tasks = [asyncio.ensure_future(person.listen()) for person in people]
        await until(lambda: all(person.is_subscribed for person in people), WAIT)
        tasks += [asyncio.ensure_future(publisher.publish()) for publisher in publishers]
        for old in (first, second):
            heard = [len(publisher.due) for publisher in publishers]
            old.process.terminate()
            assert await old.end() == 0
            assert "Traceback" not in old.output
            await until(lambda: all(person.is_subscribed for person in people), WAIT)
            await until(
                lambda heard=heard: all(
                    len(each.due) > 3 + n for each, n in zip(publishers, heard, strict=True)
                ),
                WAIT,
            )
            if old is first:
                await start(port)
        for task in tasks[PEOPLE:]:
            task.cancel()
        await until(
            lambda: all(
                set(publisher.due) <= set(person.received)
                for person, publisher in zip(people, publishers, strict=True)
            ),
            WAIT,
        )
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, asyncio.CancelledError), error
        for person in people:
            assert person.received == sorted(set(person.received))
            assert person.codes  # moved by the second restart at least
        assert 4200 in {code for person in people for code in person.codes}
