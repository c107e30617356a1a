"""Measures the load of several nodes on Redis: ``python -m legato.benchmarks.scaling --help``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx2
from redis.asyncio import Redis

from legato.protocol import signatures

from . import proc, program
from .crowd import CrowdOrder
from .crowds import crowds
from .errors import BAD_USAGE, BenchmarkError
from .relay import SocketRelay
from .stage import APP_ID, APP_KEY, NAMES, Cast, stage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from .crowds import Crowd
    from .stage import BenchmarkStage

DESCRIPTION: Final = """\
Measures the load of several nodes on their Redis: a real Redis, real `legato broadcaster` processes, and
processes of cheap clients. Everything runs on 127.0.0.1, and ends with the measurement.

  connections  clients of --nodes nodes subscribe to a private channel each, then disconnect. Redis commands,
               bytes and CPU per subscription, memory of nodes and Redis per connection.
  publish      --events events over HTTP, one at a time, each to a channel with one subscriber. Redis
               commands, bytes and CPU per event.
  presence     users join one presence channel. The same per join, as the channel grows to --members.
  share        the second of two nodes has 1 of 100 channels; all channels get equally many events. Bytes that
               each node receives from Redis.
"""

EPILOG: Final = """\
examples:
  python -m legato.benchmarks.scaling connections --nodes 2 --connections 10000
  python -m legato.benchmarks.scaling publish --nodes 1 --events 5000
  python -m legato.benchmarks.scaling publish --nodes 3 --events 5000
  python -m legato.benchmarks.scaling presence --members 1000 --json out.json
  python -m legato.benchmarks.scaling share --events 20000

exit status:
  0    measured
  1    a process failed, or an event did not arrive
  2    an option is wrong
"""

BOUNDS: Final = {
    "nodes": (1, 16),
    "connections": (1, 15_000),
    "members": (10, 10_000),
    "events": (1, 1_000_000),
    "seconds": (1, 3600),
}
CHANNELS: Final = 100
"""Channels in a run of shares. The second node has the last one."""

DATA: Final = "x" * 200
SETTLED: Final = 0.3
IDLE: Final = 3.0
"""Seconds for measuring the background load."""

POLL: Final = 0.1
BATCH: Final = 10

CONFIG: Final = """\
[[apps]]
id = "{id}"
key = "{key}"
secret = "unused"
max_presence_members = {members}
"""


@dataclass(frozen=True)
class ScalingBench:
    """The processes of a run."""

    stage: BenchmarkStage
    redis: Redis
    relays: Sequence[SocketRelay]

    def order(self, node: int, first: int, count: int, channel: str, data: str = "") -> CrowdOrder:
        """Clients of one node."""
        return CrowdOrder(self.stage.ports[node], APP_KEY, self.stage.secret, first, count, channel, data)

    async def cost(self, work: Awaitable[Any], count: int) -> dict[str, Any]:
        """The cost of ``work`` for Redis and the nodes, divided by ``count``, without the background load."""
        idle = await self._difference(asyncio.sleep(IDLE))
        busy = await self._difference(work)
        share = busy.pop("seconds") / idle.pop("seconds")
        net = {name: max(0.0, value - share * idle.get(name, 0.0)) for name, value in busy.items()}
        return {name: round(value / count, 3) for name, value in net.items() if round(value / count, 3)}

    async def _difference(self, work: Awaitable[Any]) -> dict[str, float]:
        before = await self._totals()
        await work
        after = await self._totals()
        return {name: value - before.get(name, 0.0) for name, value in after.items()}

    async def _totals(self) -> dict[str, float]:
        info: dict[str, Any] = await self.redis.info("all")
        calls = {
            name.removeprefix("cmdstat_"): float(of["calls"])
            for name, of in info.items()
            if name.startswith("cmdstat_") and name != "cmdstat_info"
        }
        nodes = [pid for name, pid in self.stage.pids.items() if name.startswith("broadcaster")]
        return {
            **calls,
            "bytes_to_redis": float(info["total_net_input_bytes"]),
            "bytes_from_redis": float(info["total_net_output_bytes"]),
            "redis_cpu_us": proc.use(self.stage.pids["redis"]).cpu * 1e6,
            "node_cpu_us": sum(proc.use(pid).cpu for pid in nodes) * 1e6,
            "seconds": time.monotonic(),
        }

    async def listed(self) -> int:
        """Number of subscriptions under the nodes' leases."""
        nodes = await self.redis.keys(NAMES.entries_key("*").replace("{", "[{]").replace("}", "[}]"))
        return sum([await self.redis.scard(node) for node in nodes])

    async def memory(self) -> dict[str, int]:
        """Resident memory of all nodes, and Redis' used memory, in KiB."""
        info: dict[str, Any] = await self.redis.info("memory")
        nodes = [pid for name, pid in self.stage.pids.items() if name.startswith("broadcaster")]
        return {"nodes": sum(proc.use(pid).resident for pid in nodes), "redis": info["used_memory"] // 1024}

    async def publish(self, channels: Sequence[str], rounds: int) -> None:
        """Publish an event to each channel, ``rounds`` times, through the nodes in turn."""
        async with httpx2.AsyncClient() as client:
            for number in range(rounds * len(channels)):
                port = self.stage.ports[number % len(self.stage.ports)]
                await self._post(client, port, channels[number % len(channels)])

    async def _post(self, client: httpx2.AsyncClient, port: int, channel: str) -> None:
        body = json.dumps({"name": "e", "data": DATA, "channel": channel}).encode()
        path = f"/apps/{APP_ID}/events"
        params = {
            "auth_key": APP_KEY,
            "auth_timestamp": str(int(time.time())),
            "auth_version": "1.0",
            "body_md5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        }
        text = signatures.request_text("POST", path, params)
        params["auth_signature"] = signatures.sign(self.stage.secret, text)
        answer = await client.post(f"http://127.0.0.1:{port}{path}", params=params, content=body)
        if answer.status_code != 200:
            raise BenchmarkError(f"an event was answered {answer.status_code}: {answer.text}")


async def received(gathered: Sequence[Crowd], count: int) -> None:
    """Wait until the clients have received this many events, and no more."""
    while (got := sum([await crowd.received() for crowd in gathered])) < count:  # noqa: ASYNC110
        await asyncio.sleep(POLL)
    if got > count:
        raise BenchmarkError(f"{got} events were received, {count} were sent")


async def connections(bench: ScalingBench, args: argparse.Namespace) -> dict[str, Any]:
    """Connect and disconnect all clients."""
    orders = [
        bench.order(node, node * args.connections, args.connections, "private-user-{}")
        for node in range(args.nodes)
    ]
    count, before = args.nodes * args.connections, await bench.memory()
    result: dict[str, Any] = {"connections": count}
    async with AsyncExitStack() as stack:
        begun = time.monotonic()

        async def come() -> None:
            gathered.extend(await stack.enter_async_context(crowds(orders)))

        gathered: list[Crowd] = []
        result["per_subscription"] = await bench.cost(come(), count)
        result["seconds"] = round(time.monotonic() - begun - IDLE, 2)
        after = await bench.memory()
        result["bytes_per_connection"] = {
            name: round((after[name] - before[name]) * 1024 / count) for name in after
        }

        async def go() -> None:
            await asyncio.gather(*(crowd.go() for crowd in gathered))
            while await bench.listed():  # noqa: ASYNC110 - it is in Redis
                await asyncio.sleep(POLL)
            await asyncio.sleep(SETTLED)

        result["per_departure"] = await bench.cost(go(), count)
    return result


async def publish(bench: ScalingBench, args: argparse.Namespace) -> dict[str, Any]:
    """Publish one event at a time, each for one subscriber of one node."""
    channels = [f"private-user-{number}" for number in range(args.nodes * CHANNELS)]
    orders = [bench.order(node, node * CHANNELS, CHANNELS, "private-user-{}") for node in range(args.nodes)]
    rounds = -(-args.events // len(channels))
    async with crowds(orders) as gathered:

        async def send() -> None:
            await bench.publish(channels, rounds)
            await received(gathered, rounds * len(channels))

        return {
            "events": rounds * len(channels),
            "per_event": await bench.cost(send(), rounds * len(channels)),
        }


async def presence(bench: ScalingBench, args: argparse.Namespace) -> dict[str, Any]:
    """Join members in ten parts over all nodes, and measure the cost of a join in each part."""
    steps, size = [], args.members // 10
    data = '{"user_id":"user-{}","user_info":{"name":"Somebody {}"}}'
    async with AsyncExitStack() as stack:
        for step in range(10):
            node = step % args.nodes
            order = bench.order(node, step * size, size, "presence-room", data)
            cost = await bench.cost(stack.enter_async_context(crowds([order])), size)
            steps.append({"members": (step + 1) * size, "per_join": cost})
    return {"steps": steps}


async def share(bench: ScalingBench, args: argparse.Namespace) -> dict[str, Any]:
    """The first node has 99 channels, the second one."""
    channels = [f"private-user-{number}" for number in range(CHANNELS)]
    orders = [
        bench.order(0, 0, CHANNELS - 1, "private-user-{}"),
        bench.order(1, CHANNELS - 1, 1, "private-user-{}"),
    ]
    rounds = -(-args.events // CHANNELS)
    async with crowds(orders) as gathered:
        quiet = await _passed(bench, asyncio.sleep(IDLE))

        async def send() -> None:
            # Published by another Redis client: publishes of nodes would count as their bytes.
            await _spublish(bench.redis, channels, rounds)
            await received(gathered, rounds * CHANNELS)

        busy = await _passed(bench, send())
    net = [
        max(0.0, got - of_idle * busy[0] / quiet[0]) for got, of_idle in zip(busy[1], quiet[1], strict=True)
    ]
    return {
        "channels": [CHANNELS - 1, 1],
        "events": rounds * CHANNELS,
        "bytes_received": [round(value) for value in net],
        "share_of_second": round(net[1] / sum(net), 4),
    }


async def _passed(bench: ScalingBench, work: Awaitable[Any]) -> tuple[float, list[int]]:
    begun, before = time.monotonic(), [relay.received for relay in bench.relays]
    await work
    got = [relay.received - old for relay, old in zip(bench.relays, before, strict=True)]
    return time.monotonic() - begun, got


async def _spublish(redis: Redis, channels: Sequence[str], rounds: int) -> None:
    for number in range(rounds):
        async with redis.pipeline(transaction=False) as pipeline:
            for channel in channels:
                payload = json.dumps({"event": "e", "channel": channel, "data": f"{number} {DATA}"})
                pipeline.execute_command("SPUBLISH", NAMES.bus_channel(APP_ID, channel), "\n" + payload)
            await pipeline.execute()


MODES: Final[Mapping[str, Callable[[ScalingBench, argparse.Namespace], Awaitable[dict[str, Any]]]]] = {
    "connections": connections,
    "publish": publish,
    "presence": presence,
    "share": share,
}


async def _run(args: argparse.Namespace, redis: str) -> dict[str, Any]:
    body = program.head("scaling", f"scaling {args.mode}", args, redis)
    relays: list[SocketRelay] = []
    async with AsyncExitStack() as stack:

        async def through(number: int, socket: Path) -> str:
            relay = SocketRelay(socket, socket.with_name(f"relay-{number}.sock"))
            await relay.start()
            stack.push_async_callback(relay.close)
            relays.append(relay)
            return relay.url

        config = CONFIG.format(id=APP_ID, key=APP_KEY, members=args.members)
        cast = Cast(nodes=args.nodes, config=config, through=through if args.mode == "share" else None)
        on = await stack.enter_async_context(stage(redis, cast))
        client = await stack.enter_async_context(Redis.from_url(on.redis_url))
        async with program.limited(args.seconds):
            body["result"] = await MODES[args.mode](ScalingBench(on, client, relays), args)
    return body


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = program.parser("scaling", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("mode", choices=MODES, metavar="MODE", help=", ".join(MODES))
    add("--nodes", type=int, default=2, metavar="N", help="broadcasters (default 2)")
    add("--connections", type=int, default=1000, metavar="N", help="connections to each node (default 1000)")
    add("--members", type=int, default=1000, metavar="N", help="presence members (default 1000)")
    add("--events", type=int, default=2000, metavar="N", help="events in total (default 2000)")
    add("--seconds", type=int, default=300, metavar="N", help="time-out (default 300)")
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    add("--json", metavar="FILE", help="write everything")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the bounds of the options.

    :raises BenchmarkError: one is out of bounds.
    """
    program.check_bounds(args, BOUNDS)
    if args.mode == "share" and args.nodes != 2:
        raise BenchmarkError(f"--nodes {args.nodes}: share has two", BAD_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status is as :data:`EPILOG` says."""
    words = list(sys.argv[1:] if argv is None else argv)
    body = program.measured("legato.benchmarks.scaling", words, build_parser().parse_args(words), check, _run)
    if isinstance(body, int):
        return body
    lines = [body["command"], json.dumps(body["machine"]), json.dumps(body["versions"])]
    lines += [f"{name:<22}{json.dumps(value)}" for name, value in body["result"].items() if name != "steps"]
    lines += [json.dumps(step) for step in body["result"].get("steps", ())]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
