"""Agents in real worker processes: a refund around which a worker is killed, reloading, and refusals."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from legato.protocol import wire
from legato.protocol.redis import parked
from tests.deploy.test_cli import legato
from tests.waiting import until
from tests.worker.support import Ears, enqueue, keys, make_job
from tests.worker.test_cli import worker

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from legato.protocol.jobs import Job

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    return valkey_url


async def state(redis: Redis, job: Job) -> bytes:
    return await redis.hget(keys(job)[0], "state") or b""


async def test_a_refund_happens_once_though_its_worker_is_killed(
    redis: Redis, redis_url: str, database: str, tmp_path: Path
) -> None:
    """The lock of the test holds the first worker within the tool; the kill finds it there."""
    refunds = tmp_path / "refunds.db"
    environ = {
        "LEGATO_WORKER_AGENT": "refund:agent",
        "LEGATO_WORKER_LEASE": "1",
        "PYTHONPATH": str(EXAMPLES),
        "REFUNDS_DB": str(refunds),
    }
    job = make_job('#script rate=0 tool=refund:{"order": "A-1", "cents": 1250} echo')
    names = (job.app_id, job.channel, job.message_id)
    with closing(sqlite3.connect(refunds, isolation_level=None)) as till:
        async with Ears(redis, job) as ears:
            with worker(redis_url, database, **environ) as process:
                await enqueue(redis, job)
                await ears.until("tool.approval_requested")
                call = ears.heard[-1][1]["call"]

                async def waiting() -> bool:
                    return await state(redis, job) == b"waiting"

                await until(waiting)
                till.execute("BEGIN EXCLUSIVE")
                decision = msgspec.json.encode({"approve": True, "note": "", "at": 1})
                await redis.hset(wire.approvals_key(*names), call, decision)
                assert await parked.resume(redis, "q", wire.parked_name(*names))  # type: ignore[arg-type]
                await ears.until("tool.approval_decided")
                process.kill()
                process.wait(20)
            till.execute("ROLLBACK")
            with worker(redis_url, database, **environ):
                await ears.until("stream.completed")
        assert till.execute("SELECT key, of, cents FROM refunds").fetchall() == [(call, "A-1", 1250)]
    results = [data for event, data in ears.heard if event == "tool.finished"]
    assert [(one["call"], one["ok"]) for one in results] == [(call, True)]
    assert "Refunded 1250 cents" in "".join(
        data["token"] for event, data in ears.heard if event == "token.received"
    )


async def test_with_reload_the_next_reply_is_of_the_new_agent(
    redis: Redis, redis_url: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bot.py"
    text = "async def reply(turn):\n    yield 'version {}'\n"
    path.write_text(text.format(1))
    before = "import sys; sys.argv += ['--agent', 'bot:reply', '--reload']\n"
    with worker(redis_url, database, before=before) as process:
        assert process.stderr
        for number in (1, 2):
            job = make_job("Hi", f"m{number}")
            async with Ears(redis, job) as ears:
                await enqueue(redis, job)
                await ears.until("stream.completed")
            assert "".join(ears.tokens) == f"version {number}"
            if number == 1:
                changed = tmp_path / "bot.tmp"
                changed.write_text(text.format(2))
                os.utime(changed, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))
                changed.replace(path)
                lines = iter(process.stderr.readline, "")
                await asyncio.to_thread(lambda lines=lines: "agents reloaded\n" in lines)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"LEGATO_WORKER_AGENT": "nowhere:agent"},
            "worker.agent: nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        ),
        (
            {
                "LEGATO_WORKER_AGENT": "weather:agent",
                "PYTHONPATH": str(EXAMPLES),
                "LEGATO_PROVIDER_NAME": "parrot:Parrot",
            },
            "worker.agent: weather:agent has tools; this provider takes none",
        ),
    ],
    ids=["module", "provider"],
)
def test_an_agent_that_cannot_be_used_stops_the_start(
    environ: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parrot.py").write_text(
        "class Parrot:\n    def __init__(self, settings): self.model = 'p'\n"
        "    async def stream(self, request): yield\n    async def aclose(self): pass\n"
    )
    given = {"REDIS_URL": "redis://127.0.0.1:1", "LEGATO_PROVIDER_NAME": "scripted", **environ}
    done = legato("worker", **given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"legato worker: {said}\n"
