"""Measures replies through the worker: ``python -m legato.benchmarks.replies --help``."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis

from . import proc, program
from .audience import audience
from .figures import milliseconds, percentile
from .stage import NAMES, Cast, queue_message, stage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from .audience import Audience
    from .readers import ReplyReading
    from .stage import BenchmarkStage

DESCRIPTION: Final = """\
Measures the cost of streaming replies: a real Redis, a real `legato broadcaster`, a real `legato worker` with
the scripted provider (whose cost is part of the worker's), and a process of WebSocket readers that check the
index and the text of each token. Everything runs on 127.0.0.1, and ends with the measurement.

  at once      --replies N: N concurrent replies in one worker process. Tokens/s, CPU per token of each
               process, and the gap between two tokens of each reply: do replies delay each other?
  in sequence  --jobs N: N replies, --at-once of them at a time. The worker's resident memory during the run.
  cancelled    --cancels N: N silent replies are cancelled by flag, at different times. Time from the flag to
               stream.cancelled at the reader.
"""

EPILOG: Final = """\
examples:
  python -m legato.benchmarks.replies --replies 64 --tokens 500 --rate 50
  python -m legato.benchmarks.replies --replies 64 --tokens 500 --rate 50 --greedy 1
  python -m legato.benchmarks.replies --replies 64 --tokens 2000 --rate 0 --json out.json
  python -m legato.benchmarks.replies --jobs 5000 --tokens 50 --rate 0
  python -m legato.benchmarks.replies --cancels 100

exit status:
  0    measured, and every reply was complete and in order
  1    something was lost, repeated or out of order, or a process failed
  2    an option is wrong
"""

BOUNDS: Final = {
    "replies": (1, 1000),
    "tokens": (1, 100_000),
    "rate": (0, 10_000),
    "greedy": (0, 100),
    "jobs": (1, 1_000_000),
    "at_once": (1, 1000),
    "cancels": (1, 1000),
    "seconds": (1, 3600),
}
CANCEL_SPREAD: Final = 5.0
"""Seconds over which the cancels are spread: many times the interval of reading the flags."""

GREEDY_TIMES: Final = 200
"""A reply without a rate has this many times the tokens of the others, so that it lasts as long."""

MAX_TOKENS: Final = 100_000  # of the scripted provider

SAMPLES: Final = 50
"""Number of memory readings in a sequential run."""


@dataclass(frozen=True)
class RepliesBench:
    """The processes and results of a run."""

    stage: BenchmarkStage
    redis: Redis
    readers: Audience
    users: Sequence[str]

    async def ask(self, number: int, line: str) -> str:
        """Queue a message of the next user; returns its id."""
        message_id = f"m{number}"
        await queue_message(self.redis, message_id, self.users[number % len(self.users)], line)
        return message_id

    def uses(self) -> dict[str, proc.Use]:
        """The usage of all processes, the readers' included."""
        return {
            name: proc.use(pid) for name, pid in (*self.stage.pids.items(), ("readers", self.readers.pid))
        }


def script(tokens: int, rate: int) -> str:
    """A message that makes the scripted provider write this many tokens."""
    return f"#script tokens={tokens} rate={rate}"


async def at_once(bench: RepliesBench, args: argparse.Namespace) -> dict[str, Any]:
    """Run ``args.replies`` at a steady rate, and ``args.greedy`` more at full speed."""
    commands, before, begun = await _commands(bench.redis), bench.uses(), time.monotonic()
    paced = [await bench.ask(number, script(args.tokens, args.rate)) for number in range(args.replies)]
    for number in range(args.replies, args.replies + args.greedy):
        await bench.ask(number, script(min(args.tokens * GREEDY_TIMES, MAX_TOKENS), 0))
    await bench.readers.until_ended(args.replies + args.greedy)
    ended, after = time.monotonic(), bench.uses()
    readings = bench.readers.readings
    tokens = sum(len(reading.at) for reading in readings.values())
    replies = [_reply(readings[message_id]) for message_id in paced]
    gaps = [gap for message_id in paced for gap in _gaps(readings[message_id])]
    return {
        "tokens": tokens,
        "seconds": round(ended - begun, 3),
        "tokens_per_second": round(tokens / (ended - begun)),
        "cpu_us_per_token": _cpu(before, after, tokens),
        "redis_per_token": {
            name: round((value - commands[name]) / tokens, 3)
            for name, value in (await _commands(bench.redis)).items()
        },
        "gap_ms": milliseconds(gaps),
        "gap_ms_over_replies": _spread(replies),
        "replies": replies,
    }


async def in_sequence(bench: RepliesBench, args: argparse.Namespace) -> dict[str, Any]:
    """Run ``args.jobs`` replies, ``args.at_once`` of them concurrently."""
    begun, before, samples = time.monotonic(), bench.uses(), []
    every = max(1, args.jobs // SAMPLES)
    asked = 0
    for ended in range(args.jobs):
        while asked < min(args.jobs, ended + args.at_once):
            await bench.ask(asked, script(args.tokens, args.rate))
            asked += 1
        await bench.readers.until_ended(ended + 1)
        if (ended + 1) % every == 0:
            samples.append([ended + 1, proc.use(bench.stage.pids["worker"]).resident])
    seconds, after = time.monotonic() - begun, bench.uses()
    tokens = sum(len(reading.at) for reading in bench.readers.readings.values())
    half = samples[len(samples) // 2 :]
    return {
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "replies_per_second": round(args.jobs / seconds, 1),
        "cpu_us_per_token": _cpu(before, after, tokens),
        "resident_kib": {
            "before": before["worker"].resident,
            "first_sample": samples[0][1],
            "half_way": half[0][1],
            "end": samples[-1][1],
            "bytes_per_reply_in_the_second_half": round(_slope(half) * 1024, 1),
        },
        "samples": samples,
    }


async def cancelled(bench: RepliesBench, args: argparse.Namespace) -> dict[str, Any]:
    """Cancel silent replies, at times independent of the worker's reading of the flags."""
    ids = [await bench.ask(number, "#script tokens=2 rate=0 fail=hang@1") for number in range(args.cancels)]
    await bench.readers.until_begun(len(ids))
    chance = random.Random(args.cancels)  # noqa: S311 - spreads moments, keeps no secret
    flagged: dict[str, float] = {}

    async def cancel(message_id: str, wait: float) -> None:
        await asyncio.sleep(wait)
        flagged[message_id] = time.monotonic()
        await bench.redis.set(NAMES.cancel_flags(message_id)[0], "1", ex=300)

    await asyncio.gather(*(cancel(message_id, chance.uniform(0, CANCEL_SPREAD)) for message_id in ids))
    await bench.readers.until_ended(len(ids))
    readings = bench.readers.readings
    waits = [readings[message_id].ended - flagged[message_id] for message_id in ids]
    return {"latency_ms": milliseconds(waits), "raw_ms": [round(wait * 1000, 2) for wait in waits]}


def _gaps(reading: ReplyReading) -> list[float]:
    return [after - before for before, after in zip(reading.at, reading.at[1:], strict=False)]


def _reply(reading: ReplyReading) -> dict[str, Any]:
    return {
        "id": reading.id,
        "tokens": len(reading.at),
        "seconds": round(reading.ended - reading.at[0], 3) if reading.at else 0,
        "gap_ms": milliseconds(_gaps(reading)),
    }


def _spread(replies: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """For each percentile of the gaps: the smallest, median and largest over the replies."""
    found = {}
    for name in replies[0]["gap_ms"]:
        ordered = sorted(reply["gap_ms"][name] for reply in replies)
        found[name] = {"best": ordered[0], "median": percentile(ordered, 50), "worst": ordered[-1]}
    return found


def _cpu(before: Mapping[str, proc.Use], after: Mapping[str, proc.Use], tokens: int) -> dict[str, float]:
    return {name: round((after[name].cpu - before[name].cpu) / tokens * 1e6, 1) for name in before}


def _slope(samples: Sequence[Sequence[int]]) -> float:
    """KiB per reply, by least squares."""
    count = len(samples)
    mean_x, mean_y = sum(x for x, _ in samples) / count, sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0


async def _commands(redis: Redis) -> dict[str, int]:
    """Redis' counts: commands of clients without those of scripts, reads from sockets, bytes."""
    info: dict[str, Any] = await redis.info("stats")
    commands: dict[str, Any] = await redis.info("commandstats")
    calls = {name: int(commands.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "xadd")}
    bytes_ = {"bytes_in": "total_net_input_bytes", "bytes_out": "total_net_output_bytes"}
    network = {ours: int(info.get(theirs, 0)) for ours, theirs in bytes_.items()}
    return {**calls, **network, "socket_reads": int(info.get("total_reads_processed", 0))}


def wrong(readings: Mapping[str, ReplyReading], end: str) -> list[str]:
    """The violations, reply by reply."""
    return [
        f"{reading.id}: {reading.wrong or f'ended with {reading.end}'}"
        for reading in readings.values()
        if reading.wrong or reading.end != end
    ]


async def _run(args: argparse.Namespace, redis: str) -> dict[str, Any]:
    mode: Callable[[RepliesBench, argparse.Namespace], Awaitable[dict[str, Any]]]
    if args.cancels:
        mode, readers, concurrency = cancelled, min(args.cancels, 16), args.cancels
    elif args.jobs:
        mode, readers, concurrency = in_sequence, min(args.at_once, 16), args.at_once
    else:
        mode = at_once
        readers = concurrency = args.replies + args.greedy
    body = program.head("replies", f"replies {mode.__name__.replace('_', ' ')}", args, redis)
    async with AsyncExitStack() as stack:
        on = await stack.enter_async_context(stage(redis, Cast(concurrency)))
        users = [f"reader-{number}" for number in range(readers)]
        ears = await stack.enter_async_context(audience(on, users))
        client = await stack.enter_async_context(Redis.from_url(on.redis_url))
        async with program.limited(args.seconds, lambda: f"{len(ears.readings)} replies had ended"):
            body["result"] = await mode(RepliesBench(on, client, ears, users), args)
        body["wrong"] = wrong(ears.readings, "stream.cancelled" if args.cancels else "stream.completed")
    return body


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = program.parser("replies", DESCRIPTION, EPILOG)
    add = parser.add_argument
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--replies", type=int, default=64, metavar="N", help="replies at once (default 64)")
    mode.add_argument("--jobs", type=int, metavar="N", help="jobs in sequence")
    mode.add_argument("--cancels", type=int, metavar="N", help="silent replies to cancel")
    add("--tokens", type=int, default=500, metavar="N", help="tokens of each reply (default 500)")
    add("--rate", type=int, default=50, metavar="N", help="tokens/s of each reply; 0: no limit (default 50)")
    add(
        "--greedy",
        type=int,
        default=0,
        metavar="N",
        help="with --replies: additional long replies without a rate limit",
    )
    add("--at-once", type=int, default=16, metavar="N", help="with --jobs: jobs at once (default 16)")
    add("--seconds", type=int, default=600, metavar="N", help="time-out (default 600)")
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    add("--json", metavar="FILE", help="write everything, raw numbers included")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the bounds of the options.

    :raises BenchmarkError: one is out of bounds.
    """
    program.check_bounds(args, BOUNDS)


def _summary(body: Mapping[str, Any]) -> str:
    """The result without the raw numbers."""
    raw = ("replies", "samples", "raw_ms")
    result = {name: value for name, value in body["result"].items() if name not in raw}
    lines = [body["command"], json.dumps(body["machine"]), json.dumps(body["versions"])]
    lines += [f"{name:<22}{json.dumps(value)}" for name, value in result.items()]
    faults = body["wrong"]
    lines += [f"WRONG {fault}" for fault in faults[:20]]
    lines.append(
        f"{len(faults)} replies are NOT as they have to be" if faults else "all complete and in order"
    )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status is as :data:`EPILOG` says."""
    words = list(sys.argv[1:] if argv is None else argv)
    body = program.measured("legato.benchmarks.replies", words, build_parser().parse_args(words), check, _run)
    if isinstance(body, int):
        return body
    sys.stdout.write(_summary(body))
    return 1 if body["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
