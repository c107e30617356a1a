"""Measures garbage collection pauses: ``python -m legato.benchmarks.garbage --help``."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from . import program
from .collected import Collections
from .crowd import CrowdOrder
from .crowds import crowds
from .errors import BenchmarkError
from .load.http import ApiConnection
from .load.orders import LoadTarget
from .stage import APP_ID, APP_KEY, BROADCASTER, LEGATO, LISTENING, start

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

DESCRIPTION: Final = """\
Counts and times the garbage collections of a broadcaster, which pause it: once with Legato's settings of the
collector (objects of the start are frozen, and it runs seldom), once with Python's defaults. Two real
processes without Redis on 127.0.0.1, one after the other.

--connections clients subscribe to a private channel each, half of them reconnect, and --events events are
published over HTTP, one after the other, each to one client. The start of the broadcaster is not measured.
"""

EPILOG: Final = """\
examples:
  python -m legato.benchmarks.garbage
  python -m legato.benchmarks.garbage --connections 15000 --events 20000 --json out.json

exit status:
  0    measured
  1    a process failed, or an event did not arrive
  2    an option is wrong
"""

BOUNDS: Final = {"connections": (2, 15_000), "events": (1, 100_000), "seconds": (1, 3600)}
SETTINGS: Final = {"legato": "yes", "python": "no"}
"""Name in the result -> whether the broadcaster configures the collector."""

CHANNEL: Final = "private-user-{}"
DATA: Final = "x" * 200
POLL: Final = 0.05


async def _load(port: int, secret: str, args: argparse.Namespace) -> None:
    """Connect clients, reconnect half of them, and send events."""
    half = args.connections // 2
    stay = CrowdOrder(port, APP_KEY, secret, 0, args.connections - half, CHANNEL)
    leave = CrowdOrder(port, APP_KEY, secret, stay.count, half, CHANNEL)
    async with crowds([stay]) as gathered:
        async with crowds([leave]):
            pass
        async with crowds([leave]):
            await _publish(port, secret, args.events, stay.count)
            while (got := await gathered[0].received()) < args.events:  # noqa: ASYNC110
                await asyncio.sleep(POLL)
    if got > args.events:
        raise BenchmarkError(f"{got} events were received, {args.events} were sent")


async def _publish(port: int, secret: str, events: int, channels: int) -> None:
    """Publish events one after the other, each to the next channel."""
    target = LoadTarget("legato", "127.0.0.1", port, "127.0.0.1", port, APP_ID, APP_KEY, secret)
    connection = ApiConnection(target, None)
    try:
        for number in range(events):
            channel = CHANNEL.replace("{}", str(number % channels))
            status = await connection.post(
                msgspec.json.encode({"name": "e", "channel": channel, "data": DATA})
            )
            if status != 200:
                raise BenchmarkError(f"an event was answered {status}")
    finally:
        connection.close()


def summed(found: Collections, ended: float) -> dict[str, Any]:
    """Collections per generation and pauses until ``ended`` (monotonic)."""
    rows = [row for row in zip(*msgspec.structs.astuple(found), strict=True) if row[0] < ended]
    pauses = [seconds for _, seconds, _, _ in rows]
    return {
        "collections": [sum(row[2] == generation for row in rows) for generation in range(3)],
        "longest_ms": round(max(pauses, default=0.0) * 1000, 2),
        "pauses_ms": round(sum(pauses) * 1000, 2),
        "collected": sum(collected for _, _, _, collected in rows),
    }


async def _one(args: argparse.Namespace, settled: str) -> dict[str, Any]:
    """Run a broadcaster and measure it."""
    secret = secrets.token_hex(16)
    environ = {
        "LEGATO_APP_ID": APP_ID,
        "LEGATO_APP_KEY": APP_KEY,
        "LEGATO_APP_SECRET": secret,
        "LEGATO_SERVER_DRAIN_SECONDS": "0",
    }
    with tempfile.TemporaryDirectory(prefix="legato-") as name:
        directory = Path(name)
        file = directory / "collections.json"
        words = (sys.executable, "-P", "-m", "legato.benchmarks.collected", str(file), settled)
        command = [*words, *BROADCASTER[len(LEGATO) :]]
        async with AsyncExitStack() as stack:
            _, listening = await start(stack, directory, "broadcaster", command, environ, LISTENING)
            await _load(int(listening[1]), secret, args)
            ended = time.monotonic()
        if not file.exists():
            raise BenchmarkError("the broadcaster did not end when it was stopped")
        return summed(msgspec.json.decode(file.read_bytes(), type=Collections), ended)


async def _run(args: argparse.Namespace, redis: str) -> dict[str, Any]:
    body = program.head("garbage", "garbage", args, redis)
    async with program.limited(args.seconds):
        body["result"] = {name: await _one(args, settled) for name, settled in SETTINGS.items()}
    return body


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = program.parser("garbage", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("--connections", type=int, default=5000, metavar="N", help="clients (default 5000)")
    add("--events", type=int, default=5000, metavar="N", help="events in total (default 5000)")
    add("--seconds", type=int, default=300, metavar="N", help="time-out (default 300)")
    add("--json", metavar="FILE", help="write everything")
    parser.set_defaults(redis=None)
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the bounds of the options.

    :raises BenchmarkError: one is out of bounds.
    """
    program.check_bounds(args, BOUNDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status is as :data:`EPILOG` says."""
    words = list(sys.argv[1:] if argv is None else argv)
    body = program.measured("legato.benchmarks.garbage", words, build_parser().parse_args(words), check, _run)
    if isinstance(body, int):
        return body
    lines = [body["command"], json.dumps(body["machine"]), json.dumps(body["versions"])]
    lines += [f"{name:<8}{json.dumps(value)}" for name, value in body["result"].items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
