"""``legato worker``: composition root, signals, exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final

import uvloop
from redis.exceptions import RedisError

from protocol.settings import SettingsError

from . import clients, config, store
from .attempts import Policy
from .backoff import Backend, one_line
from .cancels import CancelFlags
from .consumer import REDIS_DOWN, Consumer, Limits
from .jobs import Jobs
from .providers import base
from .providers.scripted import Scripted
from .runner import Runner
from .token_log import TokenLog

if TYPE_CHECKING:
    import argparse

    from redis.asyncio import Redis

log: Final = logging.getLogger("legato.worker")

BAD_CONFIGURATION: Final = 2
FAILED: Final = 1


class StartError(Exception):
    """What the worker needs cannot be used. One line for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags. What is not given stays None, so that environment and file decide."""
    parser.add_argument("--config", metavar="FILE", help="settings as TOML")
    parser.add_argument("--processes", type=int, metavar="N", help="worker processes (default 1)")
    parser.add_argument("--queue", metavar="NAME", help="job queue (default ai-streaming)")
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="replies at once per process (default 16)"
    )


def run(args: argparse.Namespace) -> int:
    """Work until SIGTERM or SIGINT. Answers the exit status: 2 bad configuration, 1 a failed start."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it has a line for every request
    try:
        settings = config.load(args, os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(settings))
    except SettingsError as error:
        return _complain(error, BAD_CONFIGURATION)
    except StartError as error:
        return _complain(error, FAILED)
    return 0


def _complain(error: Exception, status: int) -> int:
    sys.stderr.write(f"legato worker: {one_line(error)}\n")
    return status


async def _work(settings: config.Settings) -> None:
    async with AsyncExitStack() as stack:
        redis = clients.connect(settings.redis.url)
        stack.push_async_callback(redis.aclose)
        reader = clients.connect_reader(settings.redis.url)
        stack.push_async_callback(reader.aclose)
        turns = store.Store(settings.database.url)
        stack.push_async_callback(turns.aclose)
        provider = build(settings.provider)
        stack.push_async_callback(provider.aclose)
        jobs = Jobs(
            redis,
            reader,
            queue=settings.worker.queue,
            consumer=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            lease=settings.worker.lease,
        )
        await _prepare(redis, jobs, turns)
        await _consume(compose(settings, redis, jobs, turns, provider), settings)


async def _prepare(redis: Redis, jobs: Jobs, turns: store.Store) -> None:
    try:
        await clients.check(redis)
        await jobs.prepare()
    except (RedisError, OSError) as error:
        raise StartError(f"Redis cannot be used: {one_line(error)}") from error
    try:
        await turns.prepare()
    except store.FAULTS as error:
        raise StartError(f"the database cannot be used: {store.reason(error)}") from error


def build(settings: config.Provider) -> base.Provider:
    """The provider that the settings name."""
    if settings.name == "scripted":
        return Scripted()
    from .providers.anthropic import Anthropic, Waits  # noqa: PLC0415 - loading the SDK takes a second or two

    return Anthropic(
        api_key=settings.api_key,
        model=settings.model,
        max_tokens=settings.max_tokens,
        system=settings.system,
        base_url=settings.base_url,
        waits=Waits(settings.connect_seconds, max(settings.first_token_seconds, settings.no_token_seconds)),
    )


def compose(
    settings: config.Settings, redis: Redis, jobs: Jobs, turns: store.Store, provider: base.Provider
) -> Consumer:
    """Put the parts together. Starts nothing."""
    worker, model = settings.worker, settings.provider
    backend = Backend("Redis", REDIS_DOWN)
    flags = CancelFlags(redis)
    runner = Runner(
        messages=TokenLog(redis, tries=worker.tries, retention=worker.retention),
        flags=flags,
        store=turns,
        provider=provider,
        policy=Policy(base.Patience(model.first_token_seconds, model.no_token_seconds), model.retries),
        redis=backend,
        database=Backend("the database", (store.UnavailableError,)),
        timeout=worker.timeout,
    )
    limits = Limits(worker.concurrency, worker.lease, worker.drain_seconds)
    return Consumer(jobs, flags, runner, backend, limits)


async def _consume(consumer: Consumer, settings: config.Settings) -> None:
    """Run the consumer. The first signal drains it, the second ends it at once."""
    task = asyncio.create_task(consumer.run())
    asked = False

    def stop() -> None:
        nonlocal asked
        task.cancel() if asked else consumer.drain()
        asked = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    worker = settings.worker
    log.info(
        "ready: queue %s, provider %s, %d at once", worker.queue, settings.provider.name, worker.concurrency
    )
    with suppress(asyncio.CancelledError):
        await task
