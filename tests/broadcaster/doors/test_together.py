"""One reply through all doors at once, with lost messages, workers that die, and connections that break.

Each reader comes back as its client does, to any of two nodes. All have the text of the log and one ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re

import pytest

from legato.broadcaster.composition import running
from legato.worker.replies.log import TokenLog
from tests.broadcaster.doors.conftest import ask, asking, open_settings
from tests.broadcaster.doors.writing import written
from tests.broadcaster.replies.test_healing import COMPLETE, Writer
from tests.tiers import amount
from tests.waiting import WAIT, until

UI = {"id": "c", "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}]}
EVENT = re.compile(r"(?:id: (?P<id>\d+)\n)?event: (?P<name>\S+)\n(?P<data>(?:data:.*\n)+)\n")


class Follower:
    """A reader that loses its connection now and then.

    :ivar ends: how often it was told the end.
    """

    def __init__(self, nodes, dice):
        self.nodes = nodes
        self.dice = dice
        self.text = ""
        self.ends = 0
        self.connections = 0

    async def run(self):
        async with asyncio.timeout(WAIT):
            while not self.ends:
                self.connections += 1
                async with self.request(self.dice.choice(self.nodes)) as answer:
                    assert answer.status == 200, (type(self), answer.headers, await answer.rest())
                    await self.read(answer)
        return self

    async def read(self, answer):
        """Read until the end, or until the line breaks, of which the client has seen whole events only."""
        self.begin()
        patience = self.dice.randrange(1, 30)
        unread = ""
        while patience and (chunk := await answer.chunk()):
            patience -= 1
            unread += chunk.decode()
            events, _, unread = unread.rpartition("\n\n")
            if events:
                self.take(events + "\n\n")

    def begin(self):
        """A connection begins."""


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


class OfUpdates(Follower):
    def request(self, node):
        return asking(node, "GET", f"/api/chat/{self.message_id}/updates")

    def begin(self):
        self.text = ""

    def take(self, events):
        for event in EVENT.finditer(events):
            text = "\n".join(line[6:] for line in event["data"].splitlines())
            if text == "</stream>":
                self.ends += 1
            else:
                self.text += text


class OfUi(Follower):
    def request(self, node):
        return asking(node, "POST", "/api/chat", UI)

    def begin(self):
        self.text = ""

    def take(self, events):
        for line in events.splitlines():
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
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


async def write(redis, writer, dice):
    """Write a reply as workers do that die and lose messages. Answers its text."""
    text, claims = "", 1
    for number in range(60):
        words = [f"{number}.{part} " for part in range(dice.randrange(1, 4))]
        with writer.unheard() if dice.random() < 0.2 else contextlib.nullcontext():
            await writer.says(*words)
        text += "".join(words)
        if dice.random() < 0.05:
            claims += 1
            job, writer = writer.job, Writer(redis, writer.job.message_id)
            writer.job = job
            writer.log = TokenLog(redis, tries=99, retention=3600).open(job, f"claim-{claims}")
            await writer.begin()
        if dice.random() < 0.3:
            await asyncio.sleep(0.002)
    await writer.ends(COMPLETE)
    return text


@pytest.mark.parametrize("seed", range(amount(2, 50)))
async def test_all_doors_tell_the_same_whatever_breaks(valkey_url, redis, seed, monkeypatch):
    monkeypatch.setattr("legato.broadcaster.doors.tail.LOG_SILENCE_SECONDS", 0.2)
    dice = random.Random(seed)
    settings = open_settings(valkey_url, max_readers_per_user=0)
    async with running(settings) as one, running(settings) as other:
        async with asking(one, "POST", "/api/chat", UI):
            writer = await written(redis)
        kinds = (OfEvents, OfEvents, OfUpdates, OfUi, OfStream)
        followers = [kind((one, other), random.Random(dice.random())) for kind in kinds]
        for follower in followers:
            follower.message_id = writer.job.message_id
        tasks = [asyncio.create_task(follower.run()) for follower in followers]
        text = await write(redis, writer, dice)
        for follower in [await task for task in tasks]:
            assert (type(follower), follower.text, follower.ends) == (type(follower), text, 1)
        assert (await ask(one, "GET", f"/api/chat/{writer.job.message_id}")).json()["text"] == text
        assert sum(follower.connections for follower in followers) > len(followers)
        await until(lambda: len(one.node.answers) + len(other.node.answers) == 0)
