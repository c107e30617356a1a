"""``legato worker status``, ``pause``, ``drain``, ``dead`` ...: monitor and control workers through Redis."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis.exceptions import RedisError

from legato.protocol import wire
from legato.protocol.redis.errors import reason_of
from legato.protocol.settings import SettingsError
from legato.worker import config
from legato.worker import redis_clients as clients
from legato.worker.jobs import backlog
from legato.worker.jobs.dead_letters import DeadLetters
from legato.worker.limits import CONTROL_POLL_SECONDS, DEAD_LETTERS_LISTED, SHOWN_REASON_CHARACTERS
from legato.worker.options import UNITS

from .columns import table
from .directory import WorkerDirectory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from legato.protocol.redis.pipeline import Named
    from legato.worker.jobs.backlog import Backlog
    from legato.worker.jobs.dead_letters import DeadLetter

    from .directory import Status

BAD_USAGE: Final = 2
FAILED: Final = 1


class ControlError(Exception):
    """The action was refused. One line for the user."""


class Context:
    """The connections and settings of an action."""

    def __init__(self, redis: Named, settings: config.Worker) -> None:
        self.redis = redis
        self.directory = WorkerDirectory(redis)
        self._settings = settings

    async def queues(self) -> list[str]:
        """Every known queue: served, paused or configured."""
        known = await self.directory.queues() + [*await self.directory.paused()]
        return sorted({*known, *self._settings.queues} - {wire.ALL_QUEUES})

    async def dead(self, args: argparse.Namespace) -> dict[str, DeadLetters]:
        """The dead letters that the options select, by queue."""
        names = [args.of_queue] if args.of_queue else await self.queues()
        return {name: DeadLetters(self.redis, name) for name in names}


def run(args: argparse.Namespace) -> int:
    """Carry out the action that ``args`` name; answers the exit status: 2 bad settings, 1 failed."""
    try:
        settings = config.load_control(args.config, os.environ)
        asyncio.run(_run(args, settings))
    except SettingsError as error:
        return _complain(args, error, BAD_USAGE)
    except ControlError as error:
        return _complain(args, error, FAILED)
    return 0


async def _run(args: argparse.Namespace, settings: config.ControlSettings) -> None:
    redis = clients.connect(settings.redis.url, settings.redis.prefix)
    try:
        await clients.check(redis)
        await ACTIONS[args.action](Context(redis, settings.worker), args)
    except (RedisError, OSError) as error:
        raise ControlError(f"Redis cannot be used: {reason_of(error)}") from error
    finally:
        await redis.aclose()


def _complain(args: argparse.Namespace, error: Exception, status: int) -> int:
    sys.stderr.write(f"{args.prog}: {reason_of(error)}\n")
    return status


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


async def _status(context: Context, args: argparse.Namespace) -> None:
    paused = await context.directory.paused()
    workers = await context.directory.workers()
    queues = {name: await backlog.measure(context.redis, name) for name in await context.queues()}
    halted = {name for name in queues if name in paused or wire.ALL_QUEUES in paused}
    if args.json:
        listed = [
            {"name": name, **queue._asdict(), "paused": name in halted} for name, queue in queues.items()
        ]
        _say(msgspec.json.encode({"queues": listed, "workers": workers}).decode())
        return
    _say(_queue_table(queues, halted))
    supervisors = [status for status in workers if status.kind == "supervisor"]
    processes = [status for status in workers if status.kind == "process"]
    if supervisors:
        _say(f"\n{_supervisor_table(supervisors)}")
    _say(f"\n{_process_table(processes)}" if processes else "\nno worker is running")


def _queue_table(queues: dict[str, Backlog], halted: set[str]) -> str:
    head = ("QUEUE", "WAITING", "OLDEST", "CLAIMED", "DEAD", "STATE")
    rows = [
        (
            name,
            queue.waiting,
            duration(queue.oldest) if queue.waiting else "-",
            queue.pending,
            queue.dead,
            "paused" if name in halted else "open",
        )
        for name, queue in queues.items()
    ]
    return table(head, rows)


def _supervisor_table(supervisors: Iterable[Status]) -> str:
    head = ("SUPERVISOR", "QUEUES", "BALANCE", "PROCESSES", "STOPPING", "RUNNING", "FOR")
    rows = [
        (
            *(status.id, ",".join(status.queues), status.balance, status.processes, status.stopping),
            *(status.running, _since(status)),
        )
        for status in supervisors
    ]
    return table(head, rows)


def _process_table(processes: Iterable[Status]) -> str:
    head = ("PROCESS", "HOST", "PID", "QUEUES", "STATE", "RUNNING", "OLDEST", "DONE", "MEMORY", "FOR")
    rows = [
        (
            *(status.id, status.host, status.pid, ",".join(status.queues), status.state, status.running),
            duration(status.oldest) if status.oldest else "-",
            *(status.jobs, f"{status.memory} MiB", _since(status)),
        )
        for status in processes
    ]
    return table(head, rows)


def _since(status: Status) -> str:
    return duration(max(0.0, time.time() - status.since / 1000))


def duration(length: float) -> str:
    """A human-readable duration: ``4.2s``, ``59s``, ``12m``, ``5h``, ``3d``."""
    if length < 10:
        return f"{length:.1f}s"
    name, unit = max((pair for pair in UNITS.items() if length >= pair[1]), key=lambda pair: pair[1])
    return f"{int(length // unit)}{name}"


async def _pause(context: Context, args: argparse.Namespace) -> None:
    names = args.names or [wire.ALL_QUEUES]
    unknown = set(args.names) - set(await context.queues())
    await context.directory.pause(names)
    _say(f"paused: {', '.join(args.names) or 'all queues'}")
    if unknown:
        sys.stderr.write(f"{args.prog}: no worker has served {', '.join(sorted(unknown))} yet\n")


async def _continue(context: Context, args: argparse.Namespace) -> None:
    paused = await context.directory.paused()
    if args.names and wire.ALL_QUEUES in paused:
        raise ControlError("all queues are paused: continue all, then pause single ones again")
    if others := [name for name in args.names if name not in paused]:
        raise ControlError(f"not paused: {', '.join(others)}")
    await context.directory.resume(args.names)
    _say(f"continued: {', '.join(args.names) or 'all queues'}")


async def _drain(context: Context, args: argparse.Namespace) -> None:
    workers = await context.directory.workers()
    chosen = [status for status in workers if not args.targets or {status.id, status.host} & {*args.targets}]
    named = {name for status in chosen for name in (status.id, status.host)}
    if unknown := set(args.targets) - named:
        raise ControlError(f"no worker is {', '.join(sorted(unknown))}")
    ids = {status.id for status in chosen}
    # A supervisor drains its own processes; if they were drained one by one, it would replace them.
    await context.directory.drain([status.id for status in chosen if status.supervisor not in ids])
    _say(f"ordered to drain: {_counted(chosen)}" if chosen else "no worker is running")
    if args.wait is not None:
        gone = ids | {status.id for status in workers if status.supervisor in ids}
        await _until_gone(context.directory, gone, args.wait)


def _counted(chosen: Sequence[Status]) -> str:
    kinds = [status.kind for status in chosen]
    return f"supervisors {kinds.count('supervisor')}, processes {kinds.count('process')}"


async def _until_gone(directory: WorkerDirectory, ids: set[str], limit: float) -> None:
    deadline = time.monotonic() + limit
    while left := sorted(ids & {status.id for status in await directory.workers()}):
        if time.monotonic() >= deadline:
            raise ControlError(f"still running: {', '.join(left[:DEAD_LETTERS_LISTED])}")
        await asyncio.sleep(CONTROL_POLL_SECONDS)


async def _dead_list(context: Context, args: argparse.Namespace) -> None:
    if not 1 <= args.limit <= 10_000:
        raise SettingsError("--limit: expected a number from 1 to 10000")
    found = [
        (name, letter)
        for name, letters in (await context.dead(args)).items()
        for letter in await letters.newest(args.limit)
    ]
    if args.json:
        _say(msgspec.json.encode([_as_json(name, letter) for name, letter in found]).decode())
    elif found:
        head = ("ID", "QUEUE", "AGE", "MESSAGE", "USER", "REASON")
        _say(table(head, [_letter_row(name, letter) for name, letter in found]))
    else:
        _say("no dead letters")


def _letter_row(queue: str, letter: DeadLetter) -> tuple[object, ...]:
    job = letter.job
    whose = (job.message_id, job.user_id) if job else ("-", "-")
    return letter.id, queue, _age(letter), *whose, " ".join(letter.reason.split())[:SHOWN_REASON_CHARACTERS]


def _age(letter: DeadLetter) -> str:
    return duration(max(0.0, time.time() - letter.since / 1000))


def _as_json(queue: str, letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "queue": queue,
        "buried": letter.since,
        "reason": letter.reason,
        "job": letter.body.decode("utf-8", "replace"),
    }


async def _dead_retry(context: Context, args: argparse.Namespace) -> None:
    if bool(args.ids) == args.all:
        raise SettingsError("give the ids of dead letters, or --all")
    counts = {"queued": 0, "ended": 0, "gone": 0}
    for name, letters in (await context.dead(args)).items():
        chosen = letters.all() if args.all else _found(letters, args.ids)
        async for letter in chosen:
            outcome = await letters.revive(letter, anew=args.new_message)
            counts[outcome] += 1
            if outcome == "ended" and not args.all:
                sys.stderr.write(f"{args.prog}: {letter.id} of {name}: {_ENDED}\n")
    _say(f"requeued: {counts['queued']}")
    missing = 0 if args.all else len(set(args.ids)) - sum(counts.values())
    if missing:
        raise ControlError(f"no such dead letter: {missing} of {len(set(args.ids))}")
    if counts["ended"]:
        raise ControlError(f"not requeued: {counts['ended']}; {_ENDED}")


_ENDED: Final = "its message has ended; --new-message retries it as a new message"


async def _found(letters: DeadLetters, ids: Sequence[str]) -> Any:
    for letter in dict.fromkeys(ids):
        if found := await letters.find(letter):
            yield found


async def _dead_purge(context: Context, args: argparse.Namespace) -> None:
    if sum((bool(args.ids), args.yes, args.older_than is not None)) > 1:
        raise SettingsError("give either ids, --older-than or --yes")
    dead = (await context.dead(args)).values()
    if args.ids:
        removed = sum([await letters.remove(one) for letters in dead for one in set(args.ids)])
    elif args.yes or args.older_than is not None:
        removed = sum([await letters.purge(args.older_than or 0.0) for letters in dead])
    else:
        there = sum([await letters.count() for letters in dead])
        raise ControlError(f"{there} dead letters: give --yes to remove all, --older-than TIME, or ids")
    _say(f"removed: {removed}")


ACTIONS: Final[dict[str, Callable[[Context, argparse.Namespace], Awaitable[None]]]] = {
    "status": _status,
    "pause": _pause,
    "continue": _continue,
    "drain": _drain,
    "dead list": _dead_list,
    "dead retry": _dead_retry,
    "dead purge": _dead_purge,
}
"""By their names in :mod:`legato.worker.options`."""
