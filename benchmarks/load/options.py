"""The options of ``legato bench`` and their bounds. Imports little, so that ``--help`` is fast."""

from __future__ import annotations

import argparse
from typing import Final

from legato.benchmarks.errors import BAD_USAGE, BenchmarkError

DESCRIPTION: Final = """\
Loads a Pusher server (Legato, Reverb, soketi, the hosted service) and reports how it performs. Without
--preset and --url it starts a Legato of its own and stops it afterwards; nothing has to be set up.

Every scenario sends by schedule, whether or not the server keeps up, and measures latency from the scheduled
time: a server that stalls cannot hide it. It checks that every event arrives once and in order; the exit
status is 1 if one does not. The report warns if the generator was busy, late, or waited for a core, because
then the figures are not the server's alone.

    1. Check that it works:      legato bench --quick
  2. List the scenarios:       legato bench --list
  3. Measure, twice or more:   legato bench fanout --html report.html --json one.json
  4. Compare another server:   legato bench fanout --preset soketi --pid 4321 --json two.json
                               legato bench --compare two.json one.json

Give the server a core of its own (--pin), and run nothing else.

`legato bench hostile` differs: it starts two Legatos on one Redis, attacks them with one kind of hostile
client after the other, and reports the effects on other clients: delays, lost events, closed connections,
leases, memory. The exit status is 1 if an attack harmed them.
"""

BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "connections": (1, 20_000),
    "rate": (0.1, 100_000),
    "seconds": (0.1, 600),
    "size": (31, 100_000),
    "publishers": (1, 256),
    "generators": (1, 64),
    "publisher_processes": (1, 16),
    "limit": (1, 3600),
    "delay": (1, 60_000),
}
"""Smallest and largest value of every numeric option."""

HOSTILE: Final = "hostile"
"""The name that starts the attacks instead of a scenario. They measure the harm of one client to others."""

OF_HOSTILE: Final = frozenset({"list", "quick", "seconds", "redis", "json", "only", "tls", "delay"})
"""The options for attacks."""

SCENARIOS: Final = ("fanout", "streams", "connect", "idle", "publish", "presence", "churn", "slow")
DIALECTS: Final = ("legato", "reverb", "soketi", "pusher")

LONGEST_RAMP: Final = 600.0
"""Longest time for clients that connect at a rate, in seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "scenario",
        nargs="*",
        metavar="SCENARIO",
        help=f"{', '.join(SCENARIOS)}; all of them if none is named. --list says what each does. Or: "
        f"{HOSTILE}",
    )
    add = parser.add_argument
    add("--list", action="store_true", help="describe each scenario with its size, and run none")
    add("--quick", action="store_true", help="small and short: shows that everything works, measures nothing")
    _add_target(parser.add_argument_group("the server", "Without --preset and --url: a Legato of its own."))
    _add_sizes(
        parser.add_argument_group("how much", "Instead of what the scenario has by itself; see --list.")
    )
    _add_hostile(parser.add_argument_group("hostile", "With --list, --quick, --seconds, --redis and --json."))
    _add_output(parser.add_argument_group("output", "Progress goes to standard error."))


def _add_target(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--preset", choices=DIALECTS, help="the kind of server: its usual address and credentials")
    add("--url", metavar="URL", default="", help="its WebSocket URL: ws://HOST:PORT or wss://HOST:PORT/PATH")
    add("--api", metavar="URL", default="", help="its HTTP API; default: that of --url")
    add("--app-id", metavar="ID", default="", help="the application's id; default: PUSHER_APP_ID")
    add("--key", metavar="KEY", default="", help="its key; default: PUSHER_APP_KEY")
    add("--secret", metavar="SECRET", default="", help="its secret; default: PUSHER_APP_SECRET")
    add("--cluster", metavar="NAME", default="", help="with --preset pusher: the cluster, such as mt1")
    add(
        "--allow-remote",
        metavar="HOST",
        action="append",
        default=[],
        help="allow load on this host, which is not this machine: only your own; repeatable",
    )
    add(
        "--pid",
        metavar="PID",
        type=int,
        action="append",
        default=[],
        help="a process of the server on this machine, to measure its CPU and memory; repeatable",
    )
    add(
        "--over-redis",
        action="store_true",
        help="start Legato with a Redis, and also send streams through it; default: none",
    )
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    add("--pin", metavar="CORE", type=int, help="pin the server to this core, generators to the others")
    add("--label", metavar="TEXT", default="", help="name of the server in reports")


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--connections", metavar="N", type=int, help="clients")
    add("--rate", metavar="R", type=float, help="total events, or new clients, per second")
    add("--seconds", metavar="S", type=float, help="how long events are sent")
    add("--size", metavar="N", type=int, help="characters of an event's data, at least 31")
    add("--publishers", metavar="N", type=int, help="HTTP connections that publish")
    add("--generators", metavar="N", type=int, help="processes with clients; default: one a core, at most 4")
    add(
        "--publisher-processes",
        metavar="N",
        type=int,
        default=1,
        help="processes that publish; default: 1",
    )
    add("--limit", metavar="S", type=int, default=900, help="time-out of a scenario; default: 900")


def _add_hostile(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help="this attack, or this group of attacks; `hostile --list` names them; repeatable",
    )
    add("--tls", action="store_true", help="over wss:// and https://")
    add(
        "--delay",
        metavar="MS",
        type=float,
        help="largest delay for other clients, 99th percentile; default: 100, with --quick 400",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--json",
        metavar="FILE",
        help="everything: figures, histograms, timelines, machine, versions, command",
    )
    add("--html", metavar="FILE", help="a report with plots, in one file that loads no other")
    add("--markdown", metavar="FILE", help="the figures as tables; default: standard output")
    add(
        "--compare",
        metavar="FILE",
        nargs=2,
        help="run nothing; compare the second --json file with the first",
    )


def check(args: argparse.Namespace) -> None:
    """Check names and bounds.

    :raises BenchmarkError: one is invalid.
    """
    hostile = args.scenario == [HOSTILE]
    for name in args.scenario:
        if name == HOSTILE and not hostile:
            raise BenchmarkError(f"{HOSTILE} runs by itself: name no other scenario with it", BAD_USAGE)
        if name not in SCENARIOS and not hostile:
            raise BenchmarkError(f"{name}: expected one of {', '.join((*SCENARIOS, HOSTILE))}", BAD_USAGE)
    for name, (least, most) in BOUNDS.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            option = f"--{name.replace('_', '-')}"
            raise BenchmarkError(f"{option} {value:g}: expected {least:g} to {most:g}", BAD_USAGE)
    if hostile:
        _check_hostile(args)
    else:
        _check_usual(args)


def _check_usual(args: argparse.Namespace) -> None:
    if args.compare and (args.scenario or args.json):
        raise BenchmarkError("--compare runs nothing: give it no scenario and no --json", BAD_USAGE)
    if args.only or args.tls or args.delay is not None:
        raise BenchmarkError(f"--only, --tls and --delay go with {HOSTILE}", BAD_USAGE)
    own = args.preset is None and not args.url
    if (args.over_redis or args.redis) and not own:
        raise BenchmarkError("--over-redis and --redis are for a Legato that this command starts", BAD_USAGE)
    if args.pid and own:
        raise BenchmarkError("--pid is for a server that runs already: add --preset or --url", BAD_USAGE)


def _check_hostile(args: argparse.Namespace) -> None:
    """Check the options of the attacks, which only run on servers of their own and have no sizes."""
    usual = argparse.ArgumentParser()
    add_arguments(usual)
    for action in usual._actions:  # noqa: SLF001 - the only way to ask for the options of a parser
        name = action.dest
        if name in OF_HOSTILE or name in {"help", "scenario"}:
            continue
        if getattr(args, name) != action.default:
            raise BenchmarkError(f"{action.option_strings[0]} does not go with {HOSTILE}", BAD_USAGE)


def check_ramp(scenario: str, connections: int, rate: float) -> None:
    """Check that clients that connect at a rate all connect in time.

    :raises BenchmarkError: they would not.
    """
    if scenario == "connect" and connections / rate > LONGEST_RAMP:
        raise BenchmarkError(
            f"connect: {connections} clients at {rate:g} a second take longer than {LONGEST_RAMP:g} s",
            BAD_USAGE,
        )
