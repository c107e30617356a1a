"""A receiver of webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import h11

from .checks import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

CHUNK: Final = 65_536
MAX_BODY: Final = 4 * 1024 * 1024
MAX_EVENTS: Final = 100_000
READ_SECONDS: Final = 30


@dataclass(frozen=True)
class HookRequest:
    """One request. Header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body.

        :raises Failure: not a JSON object.
        """
        try:
            body = json.loads(self.body)
        except ValueError:
            raise Failure(f"a hook's body is not JSON: {self.body[:200]!r}") from None
        if not isinstance(body, dict):
            raise Failure(f"a hook's body is not an object: {self.body[:200]!r}")
        return body

    def events(self) -> list[dict[str, Any]]:
        """The events that have a channel, by which cases find theirs."""
        try:
            events = self.json().get("events")
        except Failure:
            return []
        listed = events if isinstance(events, list) else []
        return [
            event for event in listed if isinstance(event, dict) and isinstance(event.get("channel"), str)
        ]


class Hooks:
    """The received webhooks by channel. A channel can be told to get one 500 first."""

    def __init__(self) -> None:
        self._accepted: defaultdict[str, list[tuple[HookRequest, dict[str, Any]]]] = defaultdict(list)
        self._count = 0
        self._refuse: set[str] = set()
        self._refused: dict[str, HookRequest] = {}
        self._news = asyncio.Event()
        self.url = ""

    def refuse_once(self, channel: str) -> None:
        """Answer the next request about the channel with 500."""
        self._refuse.add(channel)

    def refused(self, channel: str) -> HookRequest | None:
        """The request that was answered 500."""
        return self._refused.get(channel)

    def of(self, channel: str) -> list[tuple[HookRequest, dict[str, Any]]]:
        """The accepted requests and events of the channel, in order."""
        return list(self._accepted[channel])

    def names(self, channel: str) -> list[str]:
        """The names of :meth:`of`, without subscription counts, which may arrive at any time."""
        names = [str(event.get("name")) for _, event in self.of(channel)]
        return [name for name in names if name != "subscription_count"]

    async def wait(self, channel: str, seconds: float, **fields: Any) -> tuple[HookRequest, dict[str, Any]]:
        """The first event with these fields.

        :raises Failure: none in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for hook, event in self.of(channel):
                        if event | fields == event:
                            return hook, event
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = ", ".join(self.names(channel)) or "nothing"
            raise Failure(f"no hook with {fields} in {seconds:g} s; came: {seen}") from None

    def receive(self, hook: HookRequest) -> int:
        """Store one request; returns the status of the answer."""
        events = hook.events()
        channels = {event["channel"] for event in events}
        to_refuse = channels & self._refuse
        if to_refuse:
            self._refuse -= to_refuse
            self._refused |= dict.fromkeys(to_refuse, hook)
            return 500
        if self._count < MAX_EVENTS:
            self._count += len(events)
            for event in events:
                self._accepted[event["channel"]].append((hook, event))
        self._news.set()
        return 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One HTTP connection, one request after the other."""
        connection = h11.Connection(h11.SERVER)
        with contextlib.suppress(OSError, h11.ProtocolError, TimeoutError, asyncio.CancelledError):
            while True:
                async with asyncio.timeout(READ_SECONDS):
                    hook = await _read(connection, reader)
                if hook is None:
                    break
                status = self.receive(hook)
                writer.write(
                    connection.send(h11.Response(status_code=status, headers=[("content-length", "0")]))
                    or b""
                )
                writer.write(connection.send(h11.EndOfMessage()) or b"")
                await writer.drain()
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        writer.close()


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> HookRequest | None:
    """The next request, None at the end of the connection."""
    headers: dict[str, str] = {}
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Request):
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                return None
        elif isinstance(event, h11.EndOfMessage):
            return HookRequest(headers, bytes(body))
        else:
            return None


@contextlib.asynccontextmanager
async def listening(host: str, port: int) -> AsyncIterator[Hooks]:
    """Run a receiver on an address.

    :raises OSError: the address cannot be used.
    """
    hooks = Hooks()
    server = await asyncio.start_server(hooks.serve, host, port)
    hooks.url = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    try:
        yield hooks
    finally:
        server.close()
