"""``legato worker``: composition root, signals, exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

import uvloop
from redis.exceptions import RedisError

from legato.protocol import databases
from legato.protocol.redis import advice as redis_advice
from legato.protocol.redis.errors import reason_of
from legato.protocol.redis.retry import Backend
from legato.protocol.settings import SUPERVISOR_NAME, SettingsError

from . import config
from . import redis_clients as clients
from .agents import reloading
from .agents.loading import Agents
from .jobs.cancel import CancelFlags
from .jobs.consumer import REDIS_DOWN, Consumer, Limits
from .jobs.fair_queue import FairQueue
from .jobs.positions import Positions
from .jobs.priority_queues import PriorityQueues
from .jobs.queue import JobQueue
from .jobs.shares import Shares
from .limits import CANCELLED_TASKS_SECONDS, DIRECTORY_LEAVE_SECONDS
from .observability import metrics
from .providers import base
from .providers.circuit_breaker import ALWAYS_CLOSED, SharedCircuitBreaker
from .providers.scripted import Scripted
from .replies.log import TokenLog
from .replies.model import AttemptPolicy, Model
from .replies.runner import Runner
from .replies.titles import TitleModel, Titles
from .store import conversations as store
from .store import database
from .supervisor import directory
from .supervisor.directory import Status, WorkerDirectory
from .supervisor.heartbeat import UNLIMITED, Heartbeat, RecyclingLimits
from .supervisor.notify import READY, Notifier

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

    from legato.protocol.redis.pipeline import Named

    from .providers.circuit_breaker import CircuitBreaker

log: Final = logging.getLogger("legato.worker")

BAD_CONFIGURATION: Final = 2
FAILED: Final = 1


class StartError(Exception):
    """Redis or the database cannot be used. One line for the user."""


def run(args: argparse.Namespace) -> int:
    """Work until SIGTERM or SIGINT.

    Answers the exit status: 2 for bad configuration, 1 for a failed start.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request
    try:
        settings = config.load(args, os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(settings, reload=getattr(args, "reload", False)))
            if remaining := runner.run(_cancel_remaining()):
                _exit_with(remaining)
    except SettingsError as error:
        return _complain(error, BAD_CONFIGURATION)
    except StartError as error:
        return _complain(error, FAILED)
    return 0


async def _cancel_remaining() -> int:
    """Cancel remaining tasks. Answers how many do not end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        _, rest = await asyncio.wait(rest, timeout=CANCELLED_TASKS_SECONDS)
    return len(rest)


def _exit_with(remaining: int) -> NoReturn:
    """Exit without asyncio's clean-up, which would wait for these tasks for ever."""
    log.warning("%d tasks do not end, such as requests to the model that do not close: left open", remaining)
    logging.shutdown()
    os._exit(0)


def _complain(error: Exception, status: int) -> int:
    sys.stderr.write(f"legato worker: {reason_of(error)}\n")
    return status


async def _work(settings: config.Settings, *, reload: bool) -> None:
    async with AsyncExitStack() as stack:
        redis = clients.connect(settings.redis.url, settings.redis.prefix)
        stack.push_async_callback(redis.aclose)
        reader = clients.connect_reader(settings.redis.url, settings.redis.prefix)
        stack.push_async_callback(reader.aclose)
        turns = _store(settings.database)
        stack.push_async_callback(turns.aclose)
        provider = build(settings.provider)
        stack.push_async_callback(provider.aclose)
        if reload:  # byte code is as old as its module to the second: a quick second change would be missed
            sys.dont_write_bytecode = True
        agents = Agents(settings.worker.agent_paths)
        agents.check(provider)
        notifier = Notifier(os.environ)
        stack.callback(notifier.close)
        worker, me = settings.worker, _status(settings.worker, os.environ.get(SUPERVISOR_NAME, ""))
        by_name = {name: _queue(name, redis, reader, me.id, worker) for name in worker.queues}
        rooms = [Positions(redis, queue) for queue in by_name.values() if isinstance(queue, FairQueue)]
        queues = PriorityQueues(by_name, quota=worker.max_jobs if me.supervisor else 0)
        consumer = compose(settings, redis, queues, turns, provider, agents)
        stack.push_async_callback(consumer.aclose)
        # Only a supervisor replaces a process that retires.
        limits = RecyclingLimits(worker.max_time, worker.max_memory, abandoned=1)
        heartbeat = Heartbeat(me, consumer, queues, notifier, limits if me.supervisor else UNLIMITED)
        workers = WorkerDirectory(redis)
        if reload:
            watching = asyncio.create_task(reloading.watch(agents))
            stack.callback(watching.cancel)
        await _prepare(redis, queues, turns, workers, heartbeat)
        for room in rooms:
            stack.callback(asyncio.create_task(room.run()).cancel)
        if worker.metrics_port:
            stack.callback(metrics.serve(consumer, settings, rooms))
        try:
            await _consume(consumer, heartbeat.run(workers), partial(_say_ready, settings, notifier))
        finally:
            await _leave(workers, me.id)


def _queue(name: str, redis: Named, reader: Named, consumer: str, worker: config.Worker) -> JobQueue:
    if not worker.fair:
        return JobQueue(redis, reader, queue=name, consumer=consumer, lease=worker.lease)
    shares = Shares.of(worker)
    return FairQueue(redis, reader, queue=name, consumer=consumer, lease=worker.lease, shares=shares)


def _status(worker: config.Worker, supervisor: str) -> Status:
    me, now = directory.new_id(), time.time_ns() // 1_000_000
    return Status(me, "process", socket.gethostname(), os.getpid(), worker.queues, now, supervisor=supervisor)


async def _prepare(
    redis: Named, queues: PriorityQueues, turns: store.Store, workers: WorkerDirectory, heartbeat: Heartbeat
) -> None:
    try:
        await clients.check(redis)
        await redis_advice.warn(redis, log)
        await queues.prepare()
        await workers.register(heartbeat.status().queues)
        heartbeat.apply(await workers.report(heartbeat.status()))  # queues may be paused
    except (RedisError, OSError) as error:
        raise StartError(f"Redis cannot be used: {reason_of(error)}") from error
    try:
        await turns.prepare()
    except database.FAULTS as error:
        raise StartError(f"the database cannot be used: {databases.reason(error)}") from error


def _store(settings: config.Database) -> store.Store:
    limits = store.HistoryLimits(settings.history_turns, settings.history_characters)
    titles = settings.title != "off"
    return store.Store(settings.url, migrate=settings.migrate, limits=limits, titles=titles)


def build(settings: config.ProviderSettings) -> base.Provider:
    """The provider that the settings name."""
    return _BUILDERS.get(settings.name, _custom)(settings)


def _anthropic(settings: config.ProviderSettings) -> base.Provider:
    from .providers.anthropic import Anthropic  # noqa: PLC0415 - loading the SDK takes a second or two

    return Anthropic(
        api_key=settings.api_key,
        model=settings.model,
        max_tokens=settings.max_tokens,
        system=settings.system,
        base_url=settings.base_url,
        waits=_time_outs(settings),
    )


def _openai_compatible(settings: config.ProviderSettings) -> base.Provider:
    from .providers.openai_compatible import ModelServer, OpenAiCompatible  # noqa: PLC0415 - as above

    return OpenAiCompatible(
        ModelServer(settings.base_url, settings.api_key, settings.headers),
        model=settings.model,
        max_tokens=settings.max_tokens,
        system=settings.system,
        waits=_time_outs(settings),
    )


def _custom(settings: config.ProviderSettings) -> base.Provider:
    from .providers import custom  # noqa: PLC0415 - most installations have none

    return custom.build(settings)


def _time_outs(settings: config.ProviderSettings) -> base.TimeOuts:
    silence = max(settings.first_token_seconds, settings.no_token_seconds)
    return base.TimeOuts(settings.connect_seconds, silence)


_BUILDERS: Final[dict[str, Callable[[config.ProviderSettings], base.Provider]]] = {
    "anthropic": _anthropic,
    "openai_compatible": _openai_compatible,
    "scripted": lambda _: Scripted(),
}


def _circuit_breaker(settings: config.ProviderSettings, redis: Named, backend: Backend) -> CircuitBreaker:
    """One per provider account, shared by all processes with the same key and address."""
    if settings.name == "scripted":
        return ALWAYS_CLOSED
    account = [settings.base_url, settings.api_key]
    if settings.name not in _BUILDERS:  # a custom provider may have neither
        account += [settings.name, settings.model]
    return SharedCircuitBreaker(redis, backend, *account)


def compose(
    settings: config.Settings,
    redis: Named,
    jobs: JobQueue | PriorityQueues,
    turns: store.Store,
    provider: base.Provider,
    agents: Agents,
) -> Consumer:
    """Wire the parts together. Starts nothing."""
    worker, made = settings.worker, settings.provider
    backend = Backend("Redis", REDIS_DOWN, log)
    flags = CancelFlags(redis)
    model = Model(
        provider=provider,
        policy=AttemptPolicy(base.Patience(made.first_token_seconds, made.no_token_seconds), made.retries),
        tries=worker.tries,
        provider_name=made.name,
        continues=worker.on_interrupted == "continue",
        breaker=_circuit_breaker(made, redis, backend),
    )
    runner = Runner(
        messages=TokenLog(redis, tries=worker.tries, retention=worker.retention),
        flags=flags,
        store=turns,
        model=model,
        redis=backend,
        database=Backend("the database", (store.DatabaseUnavailableError,), log),
        timeout=worker.timeout,
        agents=agents,
        titles=Titles(redis, turns, _title_model(settings.database, model)),
    )
    limits = Limits(worker.concurrency, worker.lease, worker.drain_seconds)
    return Consumer(jobs, flags, runner, backend, limits)


def _title_model(settings: config.Database, model: Model) -> TitleModel | None:
    return TitleModel(model, settings.title_model) if settings.title == "model" else None


def _say_ready(settings: config.Settings, notifier: Notifier) -> None:
    worker = settings.worker
    log.info(
        "ready: queue %s, provider %s, concurrency %d",
        worker.queue,
        settings.provider.name,
        worker.concurrency,
    )
    notifier.send(READY)


async def _consume(
    consumer: Consumer, beating: Coroutine[Any, Any, None], say_ready: Callable[[], None]
) -> None:
    """Run the consumer. The first signal drains it, the second ends it at once, SIGUSR1 retires it.

    :param say_ready: called once signal handlers are installed.
    """
    task, heartbeat = asyncio.create_task(consumer.run()), asyncio.create_task(beating)
    asked = False

    def stop() -> None:
        nonlocal asked
        task.cancel() if asked else consumer.drain()
        asked = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGUSR1, consumer.retire)
    say_ready()
    try:
        with suppress(asyncio.CancelledError):
            await task
    finally:
        heartbeat.cancel()
        await asyncio.wait([heartbeat])


async def _leave(workers: WorkerDirectory, worker_id: str) -> None:
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(DIRECTORY_LEAVE_SECONDS):
            await workers.unregister(worker_id)
