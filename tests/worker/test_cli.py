"""The command: its start, its complaints, its end."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx2
import pytest

from legato.worker import cli, options
from tests.waiting import WAIT, until
from tests.worker.providers import chat_completions as chat
from tests.worker.providers import sse_server as sse
from tests.worker.providers.sse_server import SseServer
from tests.worker.support import Ears, enqueue, free_port, keys, logged, make_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from legato.protocol.jobs import Job

_MAIN = """
import argparse, logging, sys
from legato.worker import cli, options
logging.basicConfig(level="INFO", format="%(message)s")
parser = argparse.ArgumentParser()
options.add_arguments(parser)
sys.exit(cli.run(parser.parse_args()))
"""


@contextmanager
def worker(
    redis_url: str, database: str, *, before: str = "", **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """A worker process that has said it is ready.

    :param before: what it runs first.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", before + _MAIN, "--queue", "q"],
        env={
            **os.environ,
            "REDIS_URL": redis_url,
            "DATABASE_URL": database,
            "LEGATO_PROVIDER_NAME": "scripted",
            **environ,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        name = environ.get("LEGATO_PROVIDER_NAME", "scripted")
        assert f"ready: queue q, provider {name}, concurrency 16\n" in lines
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """One implementation for whole processes: what they ask of Redis, other tests ask of both."""
    return valkey_url


def run(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> int:
    for name in [*os.environ]:
        if re.match("LEGATO_|REDIS_|DATABASE_|ANTHROPIC_", name):
            monkeypatch.delenv(name)
    for name, value in {"LEGATO_PROVIDER_NAME": "scripted", **environ}.items():
        monkeypatch.setenv(name, value)
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    return cli.run(parser.parse_args([]))


@pytest.mark.parametrize(
    ("environ", "status", "said"),
    [
        ({}, 2, "redis.url: is not set"),
        ({"REDIS_URL": "http://:geheim@h"}, 2, "redis.url: expected redis://HOST:PORT"),
        ({"REDIS_URL": "redis://:geheim@h:geheim"}, 2, "redis.url: expected redis://HOST:PORT"),
        (
            {"REDIS_URL": "redis://x", "DATABASE_URL": "oracle://:geheim@h"},
            2,
            "database.url: expected sqlite",
        ),
        (
            {
                "REDIS_URL": "redis://x",
                "LEGATO_PROVIDER_NAME": "anthropic",
                "ANTHROPIC_API_KEY": "k",
                "ANTHROPIC_BASE_URL": "http://geheim@999.1.1.1",
            },
            2,
            "provider.base_url: expected an http:// or https:// address",
        ),
        (
            {"REDIS_URL": "redis://x", "LEGATO_PROVIDER_NAME": "no_such_module:make"},
            2,
            "provider.name: no_such_module cannot be imported: ModuleNotFoundError: No module named",
        ),
        ({"REDIS_URL": "redis://:geheim@127.0.0.1:1"}, 1, "Redis cannot be used: Error"),
        ({"REDIS_URL": "unix:///nowhere/redis.sock"}, 1, "Redis cannot be used: Error"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    environ: dict[str, str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(environ, monkeypatch) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"legato worker: {said}")
    assert "geheim" not in line


def test_database_that_cannot_be_used_says_why_in_one_line(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"REDIS_URL": redis_url, "DATABASE_URL": f"sqlite:///{tmp_path}/none/x.db"}
    assert run(environ, monkeypatch) == 1
    said = "legato worker: the database cannot be used: unable to open database file\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_answers_then_drains_on_the_first_signal(
    redis: Redis, redis_url: str, database: str, number: signal.Signals
) -> None:
    job = make_job("#script tokens=60 rate=60")
    async with Ears(redis, job) as ears:
        with worker(redis_url, database) as process:
            await enqueue(redis, job)
            await ears.until("token.received")
            process.send_signal(number)
            await ears.until("stream.completed")
            assert process.wait(20) == 0
    assert len(ears.tokens) == 60


async def test_second_signal_ends_it_at_once(redis: Redis, redis_url: str, database: str) -> None:
    job = make_job("#script tokens=100 rate=1000 fail=hang@2")
    async with Ears(redis, job) as ears:
        with worker(redis_url, database) as process:
            await enqueue(redis, job)
            await ears.until("token.received")
            process.send_signal(signal.SIGTERM)
            assert process.stderr
            assert process.stderr.readline() == "draining: 1 running, at most 30 s\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        await ears.all()
    assert ears.ends == []


OWN = """
from legato.protocol.stream import Usage
from legato.worker.providers import base

class Parrot:
    def __init__(self, settings):
        self.model = settings.model

    async def stream(self, request):
        yield base.RequestAccepted(self.model)
        yield base.Text(request.message)
        yield base.Final("end_turn", Usage())

    async def aclose(self):
        pass
"""


async def test_own_provider_in_the_working_directory_answers(
    redis: Redis, redis_url: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_parrot.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    job = make_job("Polly")
    own = {"LEGATO_PROVIDER_NAME": "shop_parrot:Parrot", "LEGATO_PROVIDER_MODEL": "parrot-1"}
    async with Ears(redis, job) as ears:
        with worker(redis_url, database, **own):
            await enqueue(redis, job)
            await ears.until("stream.completed")
    assert ears.tokens == ["Polly"]
    assert ("stream.started", {"messageId": "m1", "attempt": 1, "model": "parrot-1"}) in ears.heard


async def test_server_of_chat_completions_is_asked_to_go_on_where_it_broke_off(
    redis: Redis, redis_url: str, database: str
) -> None:
    cut = [sse.STREAM, chat.text("Swallows fly to "), chat.text("Afr"), sse.ABORT]
    job = make_job("Where?")
    async with SseServer(cut, chat.whole("Swallows fly to Afr", "ica.")) as server, Ears(redis, job) as ears:
        settings = {
            "LEGATO_PROVIDER_NAME": "openai_compatible",
            "LEGATO_PROVIDER_BASE_URL": f"{server.url}/v1",
            "LEGATO_PROVIDER_MODEL": "llama3.2",
        }
        with worker(redis_url, database, **settings):
            await enqueue(redis, job)
            await ears.until("stream.completed")
    assert ears.tokens == ["Swallows fly to ", "Afr", "ica."]
    assert [each["role"] for each in server.requests[1]["messages"]] == ["user", "assistant", "user"]
    assert ears.heard[-1][1]["stopReason"] == "end_turn"


STUBBORN = """
import asyncio
from legato.worker.providers import base, scripted
async def stream(self, request):
    yield base.RequestAccepted("stubborn")
    yield base.Text("a")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
scripted.Scripted.stream = stream
"""


async def test_request_that_never_closes_does_not_keep_the_process(
    redis: Redis, redis_url: str, database: str
) -> None:
    job = make_job()
    async with Ears(redis, job) as ears:
        with worker(redis_url, database, before=STUBBORN, LEGATO_WORKER_DRAIN_SECONDS="0") as process:
            await enqueue(redis, job)
            await ears.until("token.received")
            process.terminate()
            assert process.wait(WAIT) == 0
            assert process.stderr
            assert "requests to the model that do not close: left open" in process.stderr.read()


async def test_killed_worker_is_followed_by_one_that_ends_its_reply(
    redis: Redis, redis_url: str, database: str
) -> None:
    """Exactly one terminal event and each token once, though the first worker died in the middle."""
    job = make_job("#script tokens=300 rate=100 overlap=5")
    async with Ears(redis, job) as ears:
        with worker(redis_url, database, LEGATO_WORKER_LEASE="1") as process:
            await enqueue(redis, job)
            await ears.until("token.received")
            process.send_signal(signal.SIGKILL)
            assert process.wait(20) == -signal.SIGKILL
        with worker(redis_url, database, LEGATO_WORKER_LEASE="1"):
            await ears.until("stream.completed")
            await until(lambda: _empty(redis))
        await ears.all()
    assert ears.ends == ["stream.completed"]
    assert ears.tokens == [f"w{index} " for index in range(300)]


async def test_zombie_that_wakes_after_the_takeover_has_every_write_refused(
    redis: Redis, redis_url: str, database: str
) -> None:
    """Stopped in the middle of four replies; it wakes when they have ended elsewhere. Its counters say so."""
    jobs = [make_job("#script tokens=200 rate=100 overlap=3", f"m{number}") for number in range(4)]
    port = free_port()
    # It looks after its own leases every 20 minutes: nothing but the fence can stop it.
    lease = {"LEGATO_WORKER_LEASE": "3600"}
    with worker(redis_url, database, **lease, LEGATO_WORKER_METRICS_PORT=str(port)) as zombie:
        for job in jobs:
            await enqueue(redis, job)
        for job in jobs:
            await until(partial(_has_tokens, redis, job))
        zombie.send_signal(signal.SIGSTOP)
        with worker(redis_url, database, LEGATO_WORKER_LEASE="1"):
            await until(lambda: _empty(redis))
        async with Ears(redis, jobs[0]) as ears:
            zombie.send_signal(signal.SIGCONT)
            await until(partial(_all_refused, port, len(jobs)))
            assert await ears.all() == []
    for job in jobs:
        assert await logged(redis, job) == [f"w{index} " for index in range(200)]
        assert await redis.hget(keys(job)[0], "state") == b"complete"
        assert await redis.hget(keys(job)[0], "attempt") == b"2"


async def _has_tokens(redis: Redis, job: Job) -> bool:
    return await redis.xlen(keys(job)[1]) > 0


async def _all_refused(port: int, count: int) -> bool:
    """Each of so many replies was stopped by its first write, which was refused."""
    text = await asyncio.to_thread(lambda: httpx2.get(f"http://127.0.0.1:{port}/metrics").text)
    found = dict(re.findall(r"^legato_worker_(\w+) ([0-9.]+)$", text, re.MULTILINE))
    assert float(found["leases_lost_total"]) == 0
    assert float(found["fenced_writes_total"]) <= count
    return float(found["fenced_writes_total"]) == count and float(found["replies_running"]) == 0


async def _empty(redis: Redis) -> bool:
    return await redis.xlen("legato:jobs:{q}") == 0


def test_two_processes_start_at_once_on_one_new_database(redis_url: str, database: str) -> None:
    with worker(redis_url, database) as first, worker(redis_url, database) as second:
        for process in (first, second):
            process.terminate()
        assert (first.wait(20), second.wait(20)) == (0, 0)


async def test_with_fair_admission_those_who_wait_are_told_and_counted(
    redis: Redis, redis_url: str, database: str
) -> None:
    """The whole program: the first job runs, the others of its user wait."""
    port = free_port()
    fair = {"LEGATO_WORKER_FAIR": "true", "LEGATO_WORKER_MAX_PER_USER": "1"}
    jobs = [make_job("#script tokens=20000 rate=100", f"m{number}") for number in range(3)]
    async with Ears(redis, jobs[0]) as ears:

        async def both_are_told() -> bool:
            told = {
                data["messageId"]: data["position"]
                for event, data in await ears.all()
                if event == "reply.queued" and data["messageId"] != "m0"  # it may have waited, too
            }
            return told == {"m1": 0, "m2": 1}

        with worker(redis_url, database, LEGATO_WORKER_METRICS_PORT=str(port), **fair):
            for job in jobs:
                await enqueue(redis, job)
            await until(both_are_told)
            await until(partial(_two_wait, port))
    assert ears.tokens


async def _two_wait(port: int) -> bool:
    text = await asyncio.to_thread(lambda: httpx2.get(f"http://127.0.0.1:{port}/metrics").text)
    return 'legato_worker_jobs_waiting{queue="q"} 2.0' in text
