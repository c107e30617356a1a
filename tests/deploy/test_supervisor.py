"""Workers under a supervisor, and what directs them: real processes on a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from redis import Redis

from legato.deploy.supervisor import Supervisor
from legato.protocol import wire
from legato.protocol.settings import Redis as RedisSettings
from legato.worker.config import Settings
from legato.worker.supervisor.directory import Orders
from legato.worker.supervisor.heartbeat import UNLIMITED, Heartbeat
from tests.deploy.test_processes import children, legato
from tests.redis_servers import RedisServer, binaries
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

CHANNEL = "private-ai-chat.7"
READY = r"(worker\.\d+) \| .* ready: "


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(binaries()["valkey"]) as started:
        yield started


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url, decode_responses=True) as connected:
        yield connected


@pytest.fixture
def environ(server: RedisServer, tmp_path: Path) -> dict[str, str]:
    return {
        "REDIS_URL": server.url,
        "DATABASE_URL": f"sqlite:///{tmp_path}/legato.db",
        "LEGATO_PROVIDER_NAME": "scripted",
        "LEGATO_WORKER_LEASE": "1",
    }


def ask(redis: Redis, message_id: str, message: str, queue: str = "q") -> None:
    job = {"message_id": message_id, "app_id": "1", "user_id": 7, "message": message, "queued_at": 0}
    redis.xadd(wire.jobs_key(queue), {wire.JOB_FIELD: json.dumps(job)})


def state(redis: Redis, message_id: str) -> Any:
    return redis.hget(wire.message_key("1", CHANNEL, message_id), "state")


def tokens(redis: Redis, message_id: str) -> list[str]:
    entries: Any = redis.xrange(wire.log_key("1", CHANNEL, message_id), max="1")
    return [fields[wire.LOG_TEXT] for _, fields in entries]


def command(environ: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    """`legato worker ...` as an operator types it, on any machine."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE_"))}
    return subprocess.run(
        [sys.executable, "-P", "-m", "legato.deploy", "worker", *argv],
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def processes(environ: dict[str, str]) -> list[dict[str, Any]]:
    workers = json.loads(command(environ, "status", "--json").stdout)["workers"]
    return [worker for worker in workers if worker["kind"] == "process"]


def reported(redis: Redis) -> list[dict[str, Any]]:
    """As :func:`processes`, read without a program, whose start would take most of a wait."""
    ids: Any = redis.smembers(wire.WORKERS_KEY)
    texts: Any = [redis.get(wire.worker_key(worker_id)) for worker_id in ids]
    workers = [json.loads(text) for text in texts if text is not None]
    return [worker for worker in workers if worker["kind"] == "process"]


def spoilt(environ: dict[str, str], directory: Path, code: str) -> None:
    """Have all processes run ``code`` at their start."""
    (directory / "sitecustomize.py").write_text(code)
    environ["PYTHONPATH"] = str(directory)


STUCK = """
import os
import pathlib
import signal
from legato.worker.providers import base, scripted
mark = pathlib.Path(os.environ["STUCK"])
answer = scripted.Scripted.stream
async def stream(self, request):
    said = 0
    async for event in answer(self, request):
        yield event
        said += isinstance(event, base.Text)
        if said == 20 and not mark.exists():
            mark.with_suffix(".new").write_text(str(os.getpid()))
            mark.with_suffix(".new").rename(mark)
            os.kill(os.getpid(), signal.SIGSTOP)
scripted.Scripted.stream = stream
"""
"""A process is stuck in the middle of its reply, whenever that is: nobody outside could stop it in time."""


@pytest.mark.timeout(120)
def test_a_stuck_process_is_killed_and_its_reply_goes_on(
    redis: Redis, environ: dict[str, str], tmp_path: Path
) -> None:
    spoilt(environ, tmp_path, STUCK)
    mark = tmp_path / "stuck"
    environ |= {"LEGATO_WORKER_STALL_SECONDS": "2", "STUCK": str(mark)}
    with legato("worker", "--processes", "2", "--queue", "q", **environ) as running:
        running.lines(READY, 2)
        ask(redis, "m", "#script tokens=60 rate=50 overlap=3")
        wait_until(mark.exists)
        stuck = int(mark.read_text())
        running.lines(r"legato +\| (worker\.\d+) gives no sign of life and is killed", 1)
        running.lines(READY, 3)
        wait_until(lambda: state(redis, "m") == "complete")
        wait_until(lambda: stuck not in {worker["pid"] for worker in reported(redis)})
        assert stuck not in {worker["pid"] for worker in processes(environ)}
        running.process.terminate()
        assert running.process.wait(30) == 0
    assert tokens(redis, "m") == [f"w{index} " for index in range(60)]
    (attempt,) = attempts(redis, "m")
    assert int(attempt) > 1


@pytest.mark.timeout(120)
def test_worn_processes_make_way_and_lose_nothing(redis: Redis, environ: dict[str, str]) -> None:
    environ["LEGATO_WORKER_MAX_JOBS"] = "2"
    ids = [f"m{number}" for number in range(9)]
    with legato("worker", "--processes", "2", "--queue", "q", **environ) as running:
        running.lines(READY, 2)
        for message_id in ids:
            ask(redis, message_id, "#script tokens=10 rate=50")
        running.lines(r"(worker\.\d+) \| .* retiring, to be replaced", 4)
        wait_until(lambda: all(state(redis, message_id) == "complete" for message_id in ids))
        running.process.terminate()
        assert running.process.wait(30) == 0
    assert {len(tokens(redis, message_id)) for message_id in ids} == {10}
    assert {redis.hget(wire.message_key("1", CHANNEL, message_id), "attempt") for message_id in ids} == {"1"}
    assert redis.xlen(wire.jobs_key("q")) == 0


def attempts(redis: Redis, *ids: str) -> set[Any]:
    return {redis.hget(wire.message_key("1", CHANNEL, message_id), "attempt") for message_id in ids}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("setting", "bound", "reason"),
    [("MAX_TIME", "2", r"it has run for \d+ s"), ("MAX_MEMORY", "1", r"it has grown to \d+ MiB")],
)
def test_processes_that_are_shared_out_evenly_are_replaced_by_age_and_size_and_lose_nothing(
    redis: Redis, environ: dict[str, str], setting: str, bound: str, reason: str
) -> None:
    environ[f"LEGATO_WORKER_{setting}"] = bound
    options = ("--processes", "3", "--balance", "simple", "--queue", "a,b")
    with legato("worker", *options, **environ) as running:
        assert sorted(running.lines(r" ready: queue (\w),", 3)) == ["a", "a", "b"]
        before = set(children(running))
        for queue in "ab":
            ask(redis, f"long-{queue}", "#script tokens=200 rate=40", queue)
        wait_until(lambda: all(tokens(redis, f"long-{queue}") for queue in "ab"))
        running.lines(rf"(worker\.\d+) \| .* retiring, to be replaced: {reason}", 2)
        running.lines(r" ready: queue (\w),", 5)
        for queue in "ab":
            ask(redis, f"next-{queue}", "#script tokens=3 rate=0", queue)
        ids = [f"{what}-{queue}" for what in ("long", "next") for queue in "ab"]
        wait_until(lambda: all(state(redis, message_id) == "complete" for message_id in ids))
        wait_until(lambda: len(before & set(children(running))) <= 1)
        running.process.terminate()
        assert running.process.wait(30) == 0
    assert attempts(redis, *ids) == {"1"}
    assert {len(tokens(redis, f"long-{queue}")) for queue in "ab"} == {200}


STUBBORN = """
import asyncio
import legato.worker.jobs.consumer
from legato.worker.providers import base, scripted
legato.worker.jobs.consumer.MODEL_CLOSE_SECONDS = 1
answer = scripted.Scripted.stream
async def stream(self, request):
    if request.message != "stubborn":
        async for event in answer(self, request):
            yield event
        return
    yield base.RequestAccepted("stubborn")
    yield base.Text("a")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
scripted.Scripted.stream = stream
"""


@pytest.mark.timeout(120)
def test_a_process_with_a_request_that_never_closes_is_replaced_and_loses_nothing(
    redis: Redis, environ: dict[str, str], tmp_path: Path
) -> None:
    spoilt(environ, tmp_path, STUBBORN)
    with legato("worker", "--balance", "simple", "--queue", "q", **environ) as running:
        running.lines(READY, 1)
        (first,) = children(running)
        ask(redis, "stubborn", "stubborn")
        ask(redis, "long", "#script tokens=300 rate=50")
        wait_until(lambda: bool(tokens(redis, "stubborn") and tokens(redis, "long")))
        redis.set(wire.cancel_flags("stubborn")[0], "1", ex=300)
        wait_until(lambda: state(redis, "stubborn") == "cancelled")
        running.lines(r"reply stubborn: the request to the model does not close, left open", 1)
        running.lines(r"(worker\.\d+) \| .* to be replaced: 1 of its requests to the model do not close", 1)
        running.lines(READY, 2)
        ask(redis, "next", "#script tokens=3 rate=0")
        wait_until(lambda: state(redis, "next") == state(redis, "long") == "complete")
        wait_until(lambda: first not in children(running))
        running.process.terminate()
        assert running.process.wait(30) == 0
    assert attempts(redis, "stubborn", "long", "next") == {"1"}
    assert len(tokens(redis, "long")) == 300


OVERDUE = """
import asyncio
import legato.deploy.supervisor
from legato.worker.replies.writer import ReplyWriter
legato.deploy.supervisor.GRACE = 1
answer = ReplyWriter.run
async def run(self, control, deadline):
    if self._answer.job.message == "overdue" and self._answer.attempt == 1:
        await asyncio.Event().wait()
    await answer(self, control, deadline)
ReplyWriter.run = run
"""


@pytest.mark.timeout(120)
def test_a_process_that_does_not_end_a_reply_is_killed_and_the_reply_goes_on_elsewhere(
    redis: Redis, environ: dict[str, str], tmp_path: Path
) -> None:
    spoilt(environ, tmp_path, OVERDUE)
    environ["LEGATO_WORKER_TIMEOUT"] = "2"
    with legato("worker", "--processes", "2", "--queue", "q", **environ) as running:
        running.lines(READY, 2)
        ask(redis, "m", "overdue")
        wait_until(lambda: any(worker.get("oldest", 0) > 1 for worker in reported(redis)))
        assert re.search(r" OLDEST .*\n(.*\n)*.* 1  +[1-9]\S*s +0 ", command(environ, "status").stdout)
        running.lines(r"legato +\| worker\.\d+ has not ended a reply in \d+ s and is killed", 1)
        wait_until(lambda: state(redis, "m") in ("complete", "failed"))
        running.process.terminate()
        assert running.process.wait(30) == 0
    assert attempts(redis, "m") == {"2"}
    assert tokens(redis, "m")


@pytest.mark.timeout(120)
def test_a_pause_holds_for_whoever_starts_until_continue_and_drain_ends_all(
    redis: Redis, environ: dict[str, str]
) -> None:
    ask(redis, "held", "#script tokens=1 rate=0", "urgent")
    ask(redis, "other", "#script tokens=1 rate=0", "later")
    assert command(environ, "pause", "urgent").stdout == "paused: urgent\n"
    with legato("worker", "--processes", "2", "--queue", "urgent,later", **environ) as running:
        wait_until(lambda: state(redis, "other") == "complete")
        assert (state(redis, "held"), redis.xlen(wire.jobs_key("urgent"))) == (None, 1)
        (urgent,) = [
            queue
            for queue in json.loads(command(environ, "status", "--json").stdout)["queues"]
            if queue["name"] == "urgent"
        ]
        assert (urgent["paused"], urgent["waiting"], urgent["pending"]) == (True, 1, 0)
        assert command(environ, "continue", "urgent").stdout == "continued: urgent\n"
        wait_until(lambda: state(redis, "held") == "complete")
        ask(redis, "last", "#script tokens=30 rate=20", "later")
        wait_until(lambda: bool(tokens(redis, "last")))
        assert command(environ, "drain", "--wait", "30").returncode == 0
        assert running.process.wait(30) == 0
    assert state(redis, "last") == "complete"
    assert processes(environ) == []


def test_dead_letters_are_listed_put_back_or_removed(redis: Redis, environ: dict[str, str]) -> None:
    job = {"message_id": "m", "app_id": "1", "user_id": 7, "message": "Hello", "queued_at": 0}
    key, jobs = wire.dead_key("q"), wire.jobs_key("q")
    redis.xgroup_create(jobs, wire.GROUP, mkstream=True)
    ended = redis.xadd(key, {wire.JOB_FIELD: json.dumps(job), "reason": "claimed too often", "id": "1-0"})
    junk = redis.xadd(key, {wire.JOB_FIELD: "junk", "reason": "$: the body is not JSON", "id": "2-0"})
    listed = command(environ, "dead", "list", "--queue", "q").stdout
    assert listed.index(str(junk)) < listed.index(str(ended))
    assert "claimed too often" in listed
    refused = command(environ, "dead", "retry", "--queue", "q", str(ended))
    assert (refused.returncode, redis.xlen(jobs), redis.xlen(key)) == (1, 0, 2)
    assert "--new-message" in refused.stderr
    assert command(environ, "dead", "retry", "--queue", "q", str(junk)).returncode == 0
    entries: Any = redis.xrange(jobs)
    assert [fields for _, fields in entries] == [{wire.JOB_FIELD: "junk"}]
    assert command(environ, "dead", "retry", "--queue", "q", "--new-message", str(ended)).returncode == 0
    entries = redis.xrange(jobs)
    again = json.loads(entries[1][1][wire.JOB_FIELD])
    assert again.pop("message_id") != job.pop("message_id")
    assert again == job
    assert redis.xlen(key) == 0
    redis.xadd(key, {wire.JOB_FIELD: "junk", "reason": "x", "id": "3-0"})
    assert command(environ, "dead", "purge", "--queue", "q").returncode == 1
    assert redis.xlen(key) == 1
    assert command(environ, "dead", "purge", "--queue", "q", "--yes").stdout == "removed: 1\n"
    assert redis.xlen(key) == 0


class Deaf:
    """A directory whose Redis client drops a cancellation, as redis-py does before Python 3.12."""

    def __init__(self) -> None:
        self.said = asyncio.Event()

    async def report(self, _status: Any) -> Orders:
        self.said.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Orders(frozenset(), drain=False)


async def ends(report: Coroutine[Any, Any, None], staff: Deaf) -> bool:
    task = asyncio.create_task(report)
    await staff.said.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    return task.cancelled()


async def test_an_end_that_the_redis_client_does_not_pass_on_is_an_end_all_the_same() -> None:
    staff: Any = Deaf()
    settings = Settings(redis=RedisSettings(url="redis://127.0.0.1:1"))
    assert await ends(Supervisor([], settings, {})._report(staff, Mock()), staff)
    staff = Deaf()
    heartbeat = Heartbeat(Mock(), Mock(), Mock(), Mock(), UNLIMITED)
    heartbeat.status = Mock()  # type: ignore[method-assign] # what it says does not matter
    heartbeat.obey = Mock()  # type: ignore[method-assign]
    assert await ends(heartbeat._report(staff), staff)
