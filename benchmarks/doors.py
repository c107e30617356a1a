"""Measures readers of replies over HTTP: ``python -m legato.benchmarks.doors --help``."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import jwt
from redis.asyncio import Redis

from legato.protocol.stream import chat_channel

from . import proc, program
from .crowd import CrowdOrder
from .crowds import crowds
from .errors import BenchmarkError
from .replies import script
from .stage import APP_KEY, NAMES, Cast, queue_message, stage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from .stage import BenchmarkStage

DESCRIPTION: Final = """\
Many readers of one reply: over the WebSocket, as Echo reads it, and over HTTP as server-sent events, in turn.
A real Redis, a real `legato broadcaster`, a real `legato worker` with the scripted provider, and a process of
readers, on 127.0.0.1.

All readers come while the reply runs. Then, for --seconds-each: the broadcaster's processor time per event
and reader, and the memory by which it grew when they came, per reader.
"""

EPILOG: Final = """\
examples:
  python -m legato.benchmarks.doors
  python -m legato.benchmarks.doors --readers 1000 --rate 20 --rounds 5 --json out.json

exit status:
  0    measured
  1    a reader was refused, none got anything, or a process failed
  2    an option is wrong
"""

BOUNDS: Final = {
    "readers": (1, 5000),
    "rate": (1, 1000),
    "rounds": (1, 20),
    "seconds_each": (1, 120),
    "seconds": (1, 3600),
}
USER: Final = "reader"
MESSAGE: Final = "m1"
PATH: Final = f"/api/chat/{MESSAGE}/events"
SPARE_SECONDS: Final = 60
"""For which the reply goes on beyond what is measured: readers come, and a machine may be busy."""

POLL: Final = 0.05


def _config(secret: str) -> str:
    return f"""
auth.jwt_secret = "{secret}"
chat.doors = ["events"]
doors.max_readers_per_user = 0
"""


class DoorsBench:
    """One measurement, on processes of its own: memory that readers have left behind is not counted twice."""

    def __init__(self, on: BenchmarkStage, redis: Redis, args: argparse.Namespace, token: str) -> None:
        self._on = on
        self._redis = redis
        self._args = args
        self._token = token

    async def measure(self, kind: str) -> dict[str, float]:
        """Let all readers of this kind read one reply.

        :raises BenchmarkError: one is refused, or gets nothing.
        """
        args = self._args
        tokens = args.rate * (args.seconds_each + SPARE_SECONDS)
        await queue_message(self._redis, MESSAGE, USER, script(tokens, args.rate))
        await self._begun()
        before = self._use().resident
        order = CrowdOrder(
            *(self._on.port, APP_KEY, self._on.secret, 0, args.readers, chat_channel(USER)),
            path=PATH if kind == "events" else "",
            token=self._token,
        )
        async with crowds([order]) as (crowd,):
            await asyncio.sleep(1.0)  # until all have caught up with the reply
            first, begun, came = await crowd.received(), time.monotonic(), self._use()
            await asyncio.sleep(args.seconds_each)
            used, seconds = self._use().cpu - came.cpu, time.monotonic() - begun
            received = await crowd.received() - first
        # A worker that writes does not end at once.
        await self._redis.set(NAMES.cancel_flags(MESSAGE)[0], "1", ex=300)
        if not received:
            raise BenchmarkError(f"{kind}: no reader got anything")
        return {
            "events_per_second_and_reader": round(received / args.readers / seconds, 2),
            "cpu_us_per_event_and_reader": round(used / received * 1e6, 2),
            "memory_kib_per_reader": round((came.resident - before) / args.readers, 2),
        }

    def _use(self) -> proc.Use:
        return proc.use(self._on.pids["broadcaster"])

    async def _begun(self) -> None:
        """Wait until the reply can be read."""
        head = (
            f"HEAD {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n"
        ).encode()
        status = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(SPARE_SECONDS / 2):
                while b" 200 " not in status:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._on.port)
                    writer.write(head)
                    status = await reader.readline()
                    writer.close()
                    await asyncio.sleep(POLL)
                return
        raise BenchmarkError(f"the reply does not begin: {status.decode().strip() or 'no answer'}")


async def _run(args: argparse.Namespace, redis: str) -> dict[str, Any]:
    body = program.head("doors", "readers of replies", args, redis)
    secret = "a secret of this benchmark, of enough bytes"  # noqa: S105 - of a server that lives as long as it
    token = jwt.encode({"sub": USER, "exp": 2**32}, secret)
    rounds: dict[str, list[dict[str, float]]] = {"websocket": [], "events": []}
    async with program.limited(args.seconds):
        for number in range(args.rounds):
            for kind in sorted(rounds, reverse=number % 2 == 0):
                async with (
                    stage(redis, Cast(1, config=_config(secret))) as on,
                    Redis.from_url(on.redis_url) as client,
                ):
                    rounds[kind].append(await DoorsBench(on, client, args, token).measure(kind))
    body["result"] = {
        kind: {"rounds": found, "median": {name: median(one[name] for one in found) for name in found[0]}}
        for kind, found in rounds.items()
    }
    return body


def _parser() -> argparse.ArgumentParser:
    parser = program.parser("doors", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("--readers", type=int, default=1000, metavar="N", help="readers of the reply (default 1000)")
    add("--rate", type=int, default=20, metavar="N", help="tokens/s of the reply (default 20)")
    add("--rounds", type=int, default=3, metavar="N", help="measurements of each kind (default 3)")
    add("--seconds-each", type=int, default=10, metavar="N", help="duration of one (default 10)")
    add("--seconds", type=int, default=900, metavar="N", help="time-out (default 900)")
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    add("--json", metavar="FILE", help="write everything")
    return parser


def _check(args: argparse.Namespace) -> None:
    program.check_bounds(args, BOUNDS)


def _summary(body: Mapping[str, Any]) -> str:
    lines = [body["command"], json.dumps(body["machine"]), json.dumps(body["versions"])]
    lines += [f"{kind:<12}{json.dumps(found['median'])}" for kind, found in body["result"].items()]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status is as :data:`EPILOG` says."""
    words = list(sys.argv[1:] if argv is None else argv)
    body = program.measured("legato.benchmarks.doors", words, _parser().parse_args(words), _check, _run)
    if isinstance(body, int):
        return body
    sys.stdout.write(_summary(body))
    return 0


if __name__ == "__main__":
    sys.exit(main())
