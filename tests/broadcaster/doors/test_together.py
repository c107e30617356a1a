"""One reply through all doors at once, with lost messages, workers that die, and connections that break.

Each reader comes back as its client does, to any of two nodes. All have the text of the log and one ending.
The clients themselves, and programs that are killed, are in `tests/e2e/doors-kills.test.mjs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from legato.broadcaster.composition import running
from legato.worker.replies.log import TokenLog
from tests.broadcaster.doors.conftest import ask, asking, open_settings
from tests.broadcaster.doors.followers import KINDS, UI
from tests.broadcaster.doors.writing import written
from tests.broadcaster.replies.test_healing import COMPLETE, Writer
from tests.tiers import amount
from tests.waiting import until


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
        message_id = writer.job.message_id
        followers = [kind((one, other), message_id, random.Random(dice.random())) for kind in KINDS]
        for follower in followers:
            await follower.prepare()
        tasks = [asyncio.create_task(follower.run()) for follower in followers]
        text = await write(redis, writer, dice)
        for follower in [await task for task in tasks]:
            assert (type(follower), follower.text, follower.ends) == (type(follower), text, 1)
        assert (await ask(one, "GET", f"/api/chat/{message_id}")).json()["text"] == text
        assert sum(follower.connections for follower in followers) > len(followers)
        await until(lambda: len(one.node.answers) + len(other.node.answers) == 0)
