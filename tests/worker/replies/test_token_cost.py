"""What a token costs the worker, counted in Python instructions.

Measured with Python 3.11, from the provider's event to the answer of Redis: 1140 instructions for the token
of each further reply that shares the round trip; 350 for each further token of the same append.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

import uvloop

from legato.protocol.redis.retry import Backend
from legato.worker import redis_clients as clients
from legato.worker.jobs.cancel import CancelFlags
from legato.worker.jobs.consumer import REDIS_DOWN
from legato.worker.observability.counters import Counters
from legato.worker.providers import base
from legato.worker.replies.log import TokenLog
from legato.worker.replies.model import AttemptPolicy, Model
from legato.worker.replies.runner import Outcome, Runner
from legato.worker.replies.stop import Control
from legato.worker.store.conversations import DatabaseUnavailableError, Store
from tests.broadcaster.test_fan_out_cost import instructions
from tests.waiting import WAIT
from tests.worker.support import END, PATIENT, STARTED, make_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

PER_REPLY = 1200
PER_JOINED = 380

ROUNDS = 20
"""Rounds of tokens that are counted; as many come before, as no two first rounds cost the same."""

TRIES = 3
MAX_TRIES = 10
"""The least counts."""

IDS = itertools.count()


class Counted(Counters):
    """Counters that tell when a number of tokens is published."""

    def __init__(self) -> None:
        super().__init__()
        self.expected = 0
        self.reached = asyncio.Event()

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name == "tokens" and self.__dict__.get("expected") == value:
            self.reached.set()


class Chorus:
    """A model whose replies all say ``joined`` pieces of text together, round for round."""

    model = "chorus"

    def __init__(self, counters: Counted, replies: int, rounds: int, joined: int) -> None:
        self.counters = counters
        self.replies = replies
        self.rounds = rounds
        self.joined = joined
        self.round = [asyncio.Event() for _ in range(rounds)]

    async def stream(self, _request: base.ProviderRequest) -> AsyncGenerator[base.Event, None]:
        yield STARTED
        for begun in self.round:
            await begun.wait()
            for _ in range(self.joined):
                yield base.Text("word ")
        yield END

    async def conduct(self) -> None:
        for number, begin in enumerate(self.round, 1):
            self.counters.reached.clear()
            self.counters.expected = number * self.joined * self.replies
            begin.set()
            async with asyncio.timeout(WAIT):
                await self.counters.reached.wait()

    async def aclose(self) -> None:
        pass


async def stream(url: str, path: Path, replies: int, rounds: int, joined: int) -> None:
    redis, store, counters = clients.connect(url), Store(f"sqlite:///{path}/turns.db"), Counted()
    await store.prepare()
    chorus = Chorus(counters, replies, rounds, joined)
    runner = Runner(
        messages=TokenLog(redis, tries=1, retention=60),
        flags=CancelFlags(redis),
        store=store,
        model=Model(provider=chorus, policy=AttemptPolicy(PATIENT, 0), tries=1),
        redis=Backend("Redis", REDIS_DOWN, logging.getLogger("legato.worker")),
        database=Backend("the database", (DatabaseUnavailableError,), logging.getLogger("legato.worker")),
        timeout=WAIT,
        counters=counters,
    )
    jobs = [make_job(message_id=f"m{next(IDS)}") for _ in range(replies)]
    outcomes = await asyncio.gather(*(runner.run(job, Control()) for job in jobs), chorus.conduct())
    assert outcomes[:-1] == [Outcome.DONE] * replies
    assert counters.tokens == replies * rounds * joined
    await store.aclose()
    await redis.aclose()


def round_cost(url: str, path: Path, replies: int = 1, joined: int = 1) -> int:
    """Instructions of :data:`ROUNDS` rounds of all replies.

    On a busy machine a round may take several round trips: who compares costs takes the least of some.
    """

    def cost(rounds: int) -> int:
        return instructions(lambda: uvloop.run(stream(url, path, replies, rounds, joined)))

    return cost(2 * ROUNDS) - cost(ROUNDS)


def difference(bound: float, more: Callable[[], int], less: Callable[[], int]) -> float:
    """By how much ``more`` costs more in each round; a busy machine gets some tries."""
    most, least = [more() for _ in range(TRIES)], [less() for _ in range(TRIES)]
    while (found := (min(most) - min(least)) / ROUNDS) > bound and len(most) < MAX_TRIES:
        most.append(more())
        least.append(less())
    return found


def test_a_token_that_shares_the_round_trip_of_other_replies(valkey_url: str, tmp_path: Path) -> None:
    round_cost(valkey_url, tmp_path)  # what is done once per process

    def of(replies: int) -> Callable[[], int]:
        return lambda: round_cost(valkey_url, tmp_path, replies=replies)

    assert difference(8 * PER_REPLY, of(16), of(8)) <= 8 * PER_REPLY


def test_a_token_that_joins_the_append_of_its_own_reply(valkey_url: str, tmp_path: Path) -> None:
    round_cost(valkey_url, tmp_path)  # what is done once per process

    def of(joined: int) -> Callable[[], int]:
        return lambda: round_cost(valkey_url, tmp_path, joined=joined)

    assert difference(10 * PER_JOINED, of(21), of(11)) <= 10 * PER_JOINED
