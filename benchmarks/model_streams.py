"""Measures a token from the model to the reader: ``python -m legato.benchmarks.model_streams --help``."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis.asyncio import Redis

from . import proc, program
from .audience import LONGEST_LINE, audience
from .errors import BAD_USAGE, BenchmarkError
from .fake_model import Emission
from .figures import milliseconds
from .replies import wrong
from .stage import Cast, end, queue_message, stage

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Mapping, Sequence

    from .audience import Audience
    from .stage import BenchmarkStage

DESCRIPTION: Final = """\
Measures what a token of a model costs, with everything real but the model: a worker with the Anthropic SDK, a
Redis, a broadcaster, and a reader for each stream. The model is a process of its own that sends --tokens
pieces of text of some five characters to each stream, --rate a second. The readers check each token for its
place and its text. All on 127.0.0.1, and gone afterwards.

  cost    processor time of worker, Redis and broadcaster, divided by tokens; with start and end of replies
  delay   from the model's sending of a piece of text to its arrival at the reader

--versus measures another Legato in the same rounds, in turn with this one: name the Python of a virtual
environment in which it is installed.
"""

EPILOG: Final = """\
examples:
  python -m legato.benchmarks.model_streams
  python -m legato.benchmarks.model_streams --versus ../before/.venv/bin/python --json out.json
  python -m legato.benchmarks.model_streams --streams 64 --tokens 1 --warm-up 64   # start and end of a reply

exit status:
  0    measured, and every reply was complete and in order
  1    something was lost, repeated or out of order, or a process failed
  2    an option is wrong
"""

BOUNDS: Final = {
    "streams": (1, 1000),
    "tokens": (1, 100_000),
    "rate": (1, 1000),
    "rounds": (1, 100),
    "warm_up": (1, 1000),
    "seconds": (1, 36_000),
}
MAX_TOKENS_PER_SECOND: Final = 50_000
SPREAD: Final = 1.0
"""Seconds over which the streams begin, so that their tokens do not all come at the same moment."""

SERVERS: Final = ("worker", "redis", "broadcaster")
HERE: Final = "this"
OTHER: Final = "versus"


class FakeModel:
    """The process of :mod:`.fake_model`.

    :ivar emissions: of the streams that it has ended, by the user's message.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.emissions: dict[str, Emission] = {}
        self.pid = process.pid
        self._process = process
        self._news = asyncio.Event()

    async def url(self) -> str:
        """Its address, once it listens."""
        line = await self._line()
        if b"listening on " not in line:
            raise BenchmarkError("the model does not get ready")
        return line.decode().split()[-1]

    async def listen(self) -> None:
        """Collect its emissions until it ends."""
        while line := await self._line():
            emission = msgspec.json.decode(line, type=Emission)
            self.emissions[emission.id] = emission
            self._news.set()

    async def until_ended(self, count: int) -> None:
        """Wait until this many streams have ended in all."""
        while len(self.emissions) < count:
            self._news.clear()
            await self._news.wait()

    async def _line(self) -> bytes:
        return await self._process.stdout.readline() if self._process.stdout else b""


@asynccontextmanager
async def model(tokens: int, rate: int) -> AsyncIterator[FakeModel]:
    """Run a fake model."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "legato.benchmarks.fake_model", str(tokens), str(rate)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    try:
        yield FakeModel(process)
    finally:
        await end(process)


@dataclass(frozen=True)
class StreamsRun:
    """The processes of one run."""

    stage: BenchmarkStage
    redis: Redis
    readers: Audience
    model: FakeModel

    async def ask(self, message_id: str, user: str) -> None:
        """Queue a message, whose text is its id."""
        await queue_message(self.redis, message_id, user, message_id)

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time of each process."""
        pids = {**self.stage.pids, "readers": self.readers.pid, "model": self.model.pid}
        return {name: proc.use(pid).cpu for name, pid in pids.items()}

    async def work(self) -> dict[str, int]:
        """What Redis has done: scripts run, which are appends and some more for each reply; socket reads."""
        commands: dict[str, Any] = await self.redis.info("commandstats")
        stats: dict[str, Any] = await self.redis.info("stats")
        scripts = commands.get("cmdstat_evalsha", {}).get("calls", 0)
        return {"scripts": int(scripts), "socket_reads": int(stats.get("total_reads_processed", 0))}


def _settings(url: str) -> dict[str, str]:
    return {
        "LEGATO_PROVIDER_NAME": "anthropic",
        "LEGATO_PROVIDER_API_KEY": "benchmark",
        "LEGATO_PROVIDER_BASE_URL": url,
    }


@asynccontextmanager
async def _running(
    redis: str, python: str, streams: int, args: argparse.Namespace
) -> AsyncIterator[StreamsRun]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(model(args.tokens, args.rate))
        cast = Cast(streams, worker=_settings(await fake.url()), python=python)
        on = await stack.enter_async_context(stage(redis, cast))
        listening = asyncio.create_task(fake.listen())
        stack.callback(listening.cancel)
        readers = await stack.enter_async_context(audience(on, [_user(number) for number in range(streams)]))
        client = await stack.enter_async_context(Redis.from_url(on.redis_url))
        yield StreamsRun(on, client, readers, fake)


def _user(number: int) -> str:
    return f"reader-{number}"


async def _round(run: StreamsRun, streams: int, args: argparse.Namespace) -> dict[str, Any]:
    """The replies to warm up, at once, then ``streams`` of them."""
    for number in range(args.warm_up):
        await run.ask(f"warm{number}", _user(number % streams))
    await run.readers.until_ended(args.warm_up)
    done, before, begun = await run.work(), run.cpu(), time.monotonic()
    for number in range(streams):
        await asyncio.sleep(begun + SPREAD * number / streams - time.monotonic())
        await run.ask(f"m{number}", _user(number))
    await run.readers.until_ended(streams + args.warm_up)
    await run.model.until_ended(streams + args.warm_up)
    seconds, after = time.monotonic() - begun, run.cpu()
    tokens = streams * args.tokens
    cost = {name: round((after[name] - before[name]) / tokens * 1e6, 1) for name in before}
    work = {name: round((count - done[name]) / tokens, 3) for name, count in (await run.work()).items()}
    emissions = [run.model.emissions[f"m{number}"] for number in range(streams)]
    return {
        "us_per_token": round(sum(cost[name] for name in SERVERS), 1),
        "cpu_us_per_token": cost,
        "redis_per_token": work,
        "seconds": round(seconds, 2),
        "delay_ms": milliseconds([delay for emission in emissions for delay in _delays(run, emission)]),
        "model_late_ms": round(max(emission.late for emission in emissions) * 1000, 1),
        "wrong": wrong(run.readers.readings, "stream.completed"),
    }


def _delays(run: StreamsRun, emission: Emission) -> list[float]:
    arrivals = run.readers.readings[emission.id].at
    return [arrival - sent for sent, arrival in zip(emission.at, arrivals, strict=False)]


async def _measure(args: argparse.Namespace, redis: str) -> dict[str, Any]:
    body = program.head("model_streams", "model streams", args, redis)
    pythons = {OTHER: args.versus, HERE: sys.executable} if args.versus else {HERE: sys.executable}
    body["result"] = []
    async with program.limited(args.seconds):
        for streams in args.streams:
            rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
            for number in range(args.rounds):
                for name in sorted(pythons, reverse=number % 2 == 0):
                    async with _running(redis, pythons[name], streams, args) as run:
                        rounds[name].append(await _round(run, streams, args))
            body["result"].append({"streams": streams, "median": _medians(rounds), "rounds": rounds})
    body["wrong"] = [
        fault
        for result in body["result"]
        for rounds in result["rounds"].values()
        for round_ in rounds
        for fault in round_["wrong"]
    ]
    return body


def _medians(rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """The medians of the figures, each by itself."""

    def of(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        flat = [
            {
                "us_per_token": one["us_per_token"],
                **one["cpu_us_per_token"],
                **one["redis_per_token"],
                "seconds": one["seconds"],
                "delay_p50_ms": one["delay_ms"]["p50"],
                "delay_p99_ms": one["delay_ms"]["p99"],
            }
            for one in found
        ]
        return {name: round(statistics.median(one[name] for one in flat), 3) for name in flat[0]}

    return {name: of(found) for name, found in rounds.items()}


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = program.parser("model_streams", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add(
        *("--streams", "-s"),
        type=int,
        nargs="+",
        default=[16, 64, 200],
        metavar="N",
        help="streams at once, one measurement for each N (default 16 64 200)",
    )
    add("--tokens", type=int, default=200, metavar="N", help="tokens of each stream (default 200)")
    add("--rate", type=int, default=20, metavar="N", help="tokens/s of each stream (default 20)")
    add(
        "--warm-up",
        type=int,
        default=1,
        metavar="N",
        help="replies at once before those that count: as many as streams open all connections (default 1)",
    )
    add("--rounds", type=int, default=3, metavar="N", help="rounds; medians are reported (default 3)")
    add("--versus", metavar="PYTHON", help="measure the Legato of this Python, too")
    add("--seconds", type=int, default=1800, metavar="N", help="time-out (default 1800)")
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    add("--json", metavar="FILE", help="write everything, raw numbers included")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the options.

    :raises BenchmarkError: one is out of bounds.
    """
    program.check_bounds(args, BOUNDS)
    if max(args.streams) * args.rate > MAX_TOKENS_PER_SECOND:
        raise BenchmarkError(f"--streams x --rate: at most {MAX_TOKENS_PER_SECOND} tokens/s", BAD_USAGE)
    if args.versus and not Path(args.versus).is_file():
        raise BenchmarkError(f"--versus {args.versus}: there is no such program", BAD_USAGE)


def _summary(body: Mapping[str, Any]) -> str:
    lines = [body["command"], json.dumps(body["machine"]), json.dumps(body["versions"])]
    for result in body["result"]:
        lines += [f"{result['streams']:>4} {name:<7}{json.dumps(m)}" for name, m in result["median"].items()]
    faults = body["wrong"]
    lines += [f"WRONG {fault}" for fault in faults[:20]]
    lines.append(
        f"{len(faults)} replies are NOT as they have to be" if faults else "all complete and in order"
    )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status is as :data:`EPILOG` says."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    body = program.measured("legato.benchmarks.model_streams", words, args, check, _measure)
    if isinstance(body, int):
        return body
    sys.stdout.write(_summary(body))
    return 1 if body["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
