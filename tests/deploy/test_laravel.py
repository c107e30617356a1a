"""The Composer package: what PHP writes to Redis is what the worker and the broadcaster read there."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.config import Chat
from legato.broadcaster.redis_client import redis_client
from legato.broadcaster.replies.store import Replies
from legato.protocol.jobs import Turn, decode_job
from legato.protocol.names import Names

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "deploy/laravel"
PHP = shutil.which("php")


def has_redis() -> bool:
    """Whether there is a PHP that can speak to Redis: no other part of the tests needs one."""
    if PHP is None:
        return False
    done = subprocess.run([PHP, "-r", 'exit(extension_loaded("redis") ? 0 : 1);'], check=False)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(not has_redis(), reason="no PHP with its redis extension here")


class Php:
    """A PHP process with the package, which does as it is told."""

    def __init__(self, url: str, prefix: str = "") -> None:
        command = [str(PHP), str(PACKAGE / "tests/queue.php"), url.removeprefix("unix://"), prefix]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def asks(self, do: str, **more: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=10)


@pytest.fixture
def php(valkey_url) -> Iterator[Php]:
    started = Php(valkey_url)
    yield started
    started.close()


@pytest.fixture
async def redis(valkey_url):
    async with redis_client(valkey_url) as connected:
        yield connected


async def job_in(redis: Any, names: Names) -> Any:
    ((_, fields),) = await redis.xrange(names.jobs_key("q"))
    return decode_job(fields[b"job"])


def test_every_file_is_valid_php():
    files = [str(path) for path in PACKAGE.rglob("*.php")]
    assert len(files) > 5
    for path in files:
        done = subprocess.run([str(PHP), "-l", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


async def test_job_is_one_that_a_worker_takes_and_its_user_cancels(php, redis):
    said = {"userId": "7", "message": 'Hé "/"', "history": [{"role": "user", "content": "Hi"}]}
    options = {"dialect": "laravel-ai", "model": "m", "agent": None, "metadata": []}
    message_id = await asyncio.to_thread(php.asks, "submit", job={"appId": "1", **said, "options": options})
    job = await job_in(redis, Names())
    assert (job.message_id, job.app_id, job.user_id, job.message) == (message_id, "1", 7, 'Hé "/"')
    assert (job.history, job.dialect, job.model, job.agent) == (
        (Turn("user", "Hi"),),
        "laravel-ai",
        "m",
        None,
    )
    assert job.channel == "private-ai-chat.7"
    message = Names().message_key("1", job.channel, message_id)
    assert await redis.hgetall(message) == {b"user": b"7", b"state": b"queued"}
    assert await redis.ttl(message) > 0

    assert await asyncio.to_thread(php.asks, "cancel", of=["8", message_id]) is False
    assert await asyncio.to_thread(php.asks, "cancel", of=["8", message_id, job.channel]) is False
    assert await asyncio.to_thread(php.asks, "cancel", of=["7", "*"]) is False
    assert await asyncio.to_thread(php.asks, "cancel", of=["7", message_id]) is True
    assert await redis.get(Names().cancel_flags(message_id)[0]) == b"1"
    assert await redis.hget(message, "cancel") == b"1"


async def test_broadcaster_knows_the_message_as_its_own(php, redis):
    message_id = await asyncio.to_thread(
        php.asks, "submit", job={"appId": "1", "userId": "ann", "message": "Hi"}
    )
    replies = Replies(redis, Chat(), "1")
    read = await replies.read("ann", message_id)
    assert read is not None
    assert read.status == "queued"
    assert await replies.cancel("ann", message_id)


async def test_agent_of_the_sdk_brings_its_instructions_and_its_history(php, redis):
    message_id = await asyncio.to_thread(php.asks, "agent")
    job = await job_in(redis, Names())
    assert (job.message_id, job.message, job.channel) == (message_id, "And?", "private-desk.7")
    assert (job.agent, job.system, job.dialect) == ("support", "Be kind.", "laravel-ai")
    assert job.history == (Turn("user", "Hi"), Turn("assistant", "Hello."))


async def test_names_have_the_prefix_of_the_installation(valkey_url, redis):
    php = Php(valkey_url, "shop:")
    message_id = await asyncio.to_thread(php.asks, "submit", job={"appId": "1", "userId": 7, "message": "Hi"})
    assert await asyncio.to_thread(php.asks, "cancel", of=[7, message_id]) is True
    php.close()
    names = Names("shop:")
    assert (await job_in(redis, names)).message_id == message_id
    assert await redis.get(names.cancel_flags(message_id)[0]) == b"1"
    assert {key.decode().partition(":")[0] for key in await redis.keys("*")} == {"shop"}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"appId": "a b"}, "app_id"),
        ({"userId": "a b"}, "user_id"),
        ({"message": " "}, "message"),
        ({"channel": "public"}, "channel"),
        ({"channel": "private-encrypted-a"}, "channel"),
        ({"messageId": "*"}, "message_id"),
    ],
)
async def test_job_that_a_worker_would_refuse_is_not_queued(php, redis, wrong, field):
    asked = {"appId": "1", "userId": 7, "message": "Hi", **wrong}
    answer = await asyncio.to_thread(php.asks, "submit", job=asked)
    assert answer["error"].endswith(f": {field}")
    assert await redis.keys("*") == []
