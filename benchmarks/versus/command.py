"""Options and results of ``python -m legato.benchmarks.versus``."""

from __future__ import annotations

import os
import resource
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.benchmarks import machine, program
from legato.benchmarks.errors import BAD_USAGE, BenchmarkError
from legato.benchmarks.load import local
from legato.benchmarks.load.agents import generators
from legato.benchmarks.load.options import BOUNDS as LOAD_BOUNDS
from legato.benchmarks.load.watch import Live

from . import table
from .measures import FLUSH_CONNECTIONS, IDLE, IDLE_CONNECTIONS
from .rounds import Rounds
from .rows import ROWS, figures, fill
from .servers import Programs, compiled, servers, soketi_script, versions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from .rows import Found, Seen

DESCRIPTION: Final = """\
Measures servers side by side in one run: Legato, Legato over Redis, the least that a server in C can do
(benchmarks/baseline/server.c), and soketi where --soketi names one. All run at once on one core, Redis and
the generators on the others. In each round each measure is made at one server after the other, in reverse
order every second time, so that changes of the machine affect all servers alike.

Memory per connection is measured once, on freshly started servers. Everything runs on
127.0.0.1, and ends with the measurement.
"""

EPILOG: Final = """\
examples:
  python -m legato.benchmarks.versus --quick
  npm install --prefix DIR --ignore-scripts @soketi/soketi
  python -m legato.benchmarks.versus --soketi DIR --rounds 5 --json versus.json > versus.md

exit status:
  0    measured, and every delivery came in order; targets may be missed
  1    a delivery was lost or out of order, a client or a request was refused, or a process failed
  2    an option is wrong
"""

BOUNDS: Final = {
    "rounds": (1, 50),
    **{name: LOAD_BOUNDS[name] for name in ("connections", "generators", "publisher_processes", "limit")},
}
ROUNDS: Final = 3

SPARE_FILES: Final = 200
"""Open files of a server besides its connections."""


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = program.parser("versus", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add(
        "--rounds",
        type=int,
        metavar="N",
        help=f"number of rounds (default {ROUNDS}; 1 with --quick)",
    )
    add("--quick", action="store_true", help="small and short: shows that everything works, measures nothing")
    add(
        "--soketi", default="", metavar="DIR", help="where npm has installed @soketi/soketi; default: without"
    )
    add(
        "--connections",
        type=int,
        default=IDLE_CONNECTIONS,
        metavar="N",
        help=f"idle connections, whose memory is measured (default {IDLE_CONNECTIONS})",
    )
    add("--pin", type=int, metavar="CORE", help="CPU core for the servers; default: the first allowed")
    add("--no-pin", action="store_true", help="do not pin processes to cores: for machines with one")
    add("--generators", type=int, metavar="N", help="processes with clients; default: as legato bench")
    add("--publisher-processes", type=int, default=1, metavar="N", help="processes that publish (default 1)")
    add("--limit", type=int, default=900, metavar="S", help="time-out of one measure (default 900)")
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    add("--json", metavar="FILE", help="write everything: every phase of every round")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the bounds of the options, and that this machine can run them.

    :raises BenchmarkError: an option is out of bounds, or this machine lacks something.
    """
    for name, (least, most) in BOUNDS.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            option = f"--{name.replace('_', '-')}"
            raise BenchmarkError(f"{option} {value}: expected {least:g} to {most:g}", BAD_USAGE)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if not args.quick and max(args.connections, FLUSH_CONNECTIONS) + SPARE_FILES > files:
        raise BenchmarkError(
            f"--connections {args.connections}: a process may have {files} files open here; that many, and "
            f"{FLUSH_CONNECTIONS} at another time, have to fit with {SPARE_FILES} to spare",
            BAD_USAGE,
        )
    soketi_script(args.soketi)


def _pinned(args: argparse.Namespace) -> dict[str, list[int]]:
    if args.no_pin:
        return {}
    return local.cores(min(os.sched_getaffinity(0)) if args.pin is None else args.pin)


async def _measure(args: argparse.Namespace, redis: str) -> dict[str, Any]:
    cores, found = _pinned(args), machine.machine()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    count = args.generators or max(1, min(4, (os.cpu_count() or 1) - 1))
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    with tempfile.TemporaryDirectory(prefix="legato-") as directory:
        programs = Programs(redis, await compiled(Path(directory)), soketi_script(args.soketi))
        load = generators(count, args.publisher_processes, cores.get("generators", []))
        async with load as load_makers:
            done = Rounds(load_makers, Live(), args.quick, args.limit)
            async with servers(programs, IDLE.servers, cores) as running:
                await done.idle(running, args.connections)
            async with servers(programs, programs.names, cores) as running:
                await done.look_for_rate(running)
                for number in range(1, rounds + 1):
                    await done.round(number, running)
        known = machine.versions(redis) | await versions(programs)
    body: dict[str, Any] = {
        "benchmark": "versus",
        "command": shlex.join(["python", "-m", "legato.benchmarks.versus", *args.argv]),
        "machine": found,
        "versions": known,
        "started": started,
        "cores": cores,
        "quick": args.quick,
        "rounds": rounds,
        "servers": programs.names,
        "soketi_rate": done.rate,
        "soketi_rates": msgspec.to_builtins(done.rates, str_keys=True),
        "phases": [_phase(seen) for seen in done.seen],
    }
    known_figures = figures(done.seen)
    rows = [fill(row, known_figures, programs.names) for row in ROWS]
    return body | {"rows": [_row(row) for row in rows], "table": table.document(body, rows, done.seen)}


def _phase(seen: Seen) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(seen.phase, str_keys=True)
    return {"round": seen.round, "server": seen.server, **told}


def _row(found: Found) -> dict[str, Any]:
    row = found.row
    return {
        "label": row.label,
        "over": row.over._asdict(),
        "under": row.under and row.under._asdict(),
        "goal": row.goal and row.goal._asdict(),
        "unit": row.unit,
        "values": found.values,
        "median": found.middle,
        "verdict": found.verdict,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status is as :data:`EPILOG` says."""
    words = list(sys.argv[1:] if argv is None else argv)
    body = program.measured(
        "legato.benchmarks.versus", words, build_parser().parse_args(words), check, _measure
    )
    if isinstance(body, int):
        return body
    sys.stdout.write(body["table"])
    return 1 if any(phase["faults"] for phase in body["phases"]) else 0
