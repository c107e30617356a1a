"""Readers of one reply through each door, which lose their connections and come back as their clients do."""

from __future__ import annotations

import asyncio
import json
import re

from legato.protocol.doors.ag_ui_request import parse_run
from tests.broadcaster.conftest import client
from tests.broadcaster.doors.conftest import asking, bearer
from tests.broadcaster.replies.test_healing import CHANNEL, told
from tests.waiting import WAIT

UI = {"id": "c", "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}]}
EVENT = re.compile(r"(?:id: (?P<id>\d+)\n)?event: (?P<name>\S+)\n(?P<data>(?:data:.*\n)+)\n")


class Follower:
    """A reader that loses its connection now and then.

    :ivar ends: how often it was told the end.
    """

    def __init__(self, nodes, message_id, dice):
        self.nodes = nodes
        self.message_id = message_id
        self.dice = dice
        self.text = ""
        self.ends = 0
        self.connections = 0

    async def prepare(self):
        """What has to be so before the first connection."""

    async def run(self):
        async with asyncio.timeout(WAIT):
            while not self.ends:
                self.connections += 1
                async with self.request(self.dice.choice(self.nodes)) as answer:
                    assert answer.status == 200, (type(self), answer.headers, await answer.rest())
                    await self.read(answer)
        return self

    async def read(self, answer):
        """Read to the end, or until the line breaks, of which the client has seen whole events only."""
        self.begin()
        patience = self.dice.randrange(1, 30)
        unread = ""
        while (patience or self.ends) and (chunk := await answer.chunk()):
            patience = max(0, patience - 1)
            unread += chunk.decode()
            events, _, unread = unread.rpartition("\n\n")
            if events:
                self.take(events + "\n\n")

    def begin(self):
        """A connection begins."""


class FromTheStart(Follower):
    """A reader that gets the reply from its beginning each time."""

    def begin(self):
        self.text = ""


class OfEvents(Follower):
    last = "-1"

    def request(self, node):
        path = f"/api/chat/{self.message_id}/events?after={self.last}"
        return asking(node, "GET", path)

    def take(self, events):
        for event in EVENT.finditer(events):
            assert int(event["id"]) == int(self.last) + 1
            self.last = event["id"]
            if event["name"] == "token.received":
                self.text += json.loads(event["data"][6:])["token"]
            self.ends += event["name"] == "stream.completed"


class OfUpdates(FromTheStart):
    def request(self, node):
        return asking(node, "GET", f"/api/chat/{self.message_id}/updates")

    def take(self, events):
        for event in EVENT.finditer(events):
            text = "\n".join(line[6:] for line in event["data"].splitlines())
            if text == "</stream>":
                self.ends += 1
            else:
                self.text += text


class OfUi(FromTheStart):
    def request(self, node):
        return asking(node, "POST", "/api/chat", UI)

    def take(self, events):
        for chunk in chunks(events):
            self.text += chunk["delta"] if chunk["type"] == "text-delta" else ""
            self.ends += chunk["type"] == "finish"


class OfStream(Follower):
    offset = "-1"

    def request(self, node):
        return asking(node, "GET", f"/api/streams/{self.message_id}?offset={self.offset}&live=sse")

    def begin(self):
        self.batch = []

    def take(self, events):
        for event in EVENT.finditer(events):
            told = json.loads(event["data"][5:])
            if event["name"] == "data":
                self.batch += told
                continue
            self.text += "".join(one["delta"] for one in self.batch if one["type"] == "text")
            self.batch = []
            self.offset = told["streamNextOffset"]
            self.ends += told.get("streamClosed", False)


class Repeating(FromTheStart):
    """A reader of a door that starts a reply: the same request once more gets the same reply.

    :cvar path: of its requests.
    :cvar body: of its requests.
    """

    async def prepare(self):
        """The reply is taken for that of the first such request."""
        await self.nodes[0].node.replies.remember(7, *self.key(), self.message_id)

    def key(self):
        """The idempotency key of its requests, and what has to be the same in all that have it."""
        return type(self).__name__, self.body

    def request(self, node):
        key = {"idempotency-key": type(self).__name__}
        return asking(node, "POST", self.path, self.body, bearer() | key)


class OfText(Repeating):
    path = "/api/chat/text"
    body = b'{"message": "Hello"}'

    async def read(self, answer):
        """A clean end is the only sign of a whole reply."""
        self.begin()
        patience = self.dice.randrange(1, 30)
        while patience and (chunk := await answer.chunk()):
            patience -= 1
            self.text += chunk.decode()
        self.ends += bool(patience and not answer.broken)


class OfAgUi(Repeating):
    """What there is comes in a snapshot when it comes back."""

    path = "/api/ag-ui"
    body = b'{"threadId":"t","runId":"r","messages":[{"id":"u","role":"user","content":"Hello"}]}'

    def key(self):
        return parse_run(self.body).key, b""

    def take(self, events):
        for event in chunks(events):
            if event["type"] == "MESSAGES_SNAPSHOT":
                said = [one for one in event["messages"] if one["role"] == "assistant"]
                self.text = "".join(one.get("content", "") for one in said)
            self.text += event["delta"] if event["type"] == "TEXT_MESSAGE_CONTENT" else ""
            self.ends += event["type"] == "RUN_FINISHED"


class OfCompletions(Repeating):
    path = "/v1/chat/completions"
    body = b'{"model":"legato","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

    def take(self, events):
        for chunk in chunks(events):
            (choice,) = chunk["choices"]
            self.text += choice["delta"].get("content", "")
            self.ends += choice["finish_reason"] == "stop"


class OfResponses(Repeating):
    path = "/v1/responses"
    body = b'{"model":"legato","stream":true,"input":"Hello"}'

    def take(self, events):
        for event in chunks(events):
            self.text += event["delta"] if event["type"] == "response.output_text.delta" else ""
            self.ends += event["type"] == "response.completed"


class OfChannel(Follower):
    """A subscriber of the WebSocket channel, which stays: the node closes its gaps."""

    async def prepare(self):
        self.open = client(self.dice.choice(self.nodes).port)
        self.client = await self.open.__aenter__()
        assert (await self.client.subscribe(CHANNEL))["event"] == "pusher_internal:subscription_succeeded"

    async def run(self):
        while not self.ends:
            self.take(await self.client.receive())
        await self.client.send("pusher:ping")
        while (message := await self.client.receive())["event"] != "pusher:pong":
            self.take(message)
        await self.open.__aexit__(None, None, None)
        return self

    def take(self, message):
        event, data = told(message)
        self.text += data["token"] if event == "token.received" else ""
        self.ends += event == "stream.completed"


def chunks(events):
    """The JSON objects of some events."""
    return [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]


KINDS = (
    *(OfEvents, OfUpdates, OfText, OfUi, OfStream, OfAgUi, OfCompletions, OfResponses),
    OfChannel,
)
"""A reader of each door, and of the channel."""
