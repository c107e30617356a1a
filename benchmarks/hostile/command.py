"""Runs ``legato bench hostile``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from legato.benchmarks import interrupts, machine, stage
from legato.benchmarks.errors import BAD_USAGE, BenchmarkError

from . import catalogue, report
from .run import HostilePlan, rows
from .verdict import HostileLimits

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from .attack import Attack

SECONDS: Final = 5.0
QUICK_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0
QUIET: Final = 0.4
"""Duration of the quiet run before an attack, as a share of the attack's; at least a second."""

QUICK: Final = HostileLimits(p99=400.0, longest=1200.0, newcomer=2000.0)
"""The limits of ``--quick``: too high for users, but far below the delay of a successful attack."""


def run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run the attacks; 0 if the server withstood all, 1 if not, 130 if interrupted.

    :raises BenchmarkError: an option is invalid, or something that is needed is missing.
    """
    if args.list:
        sys.stdout.write(catalogue.listed())
        return 0
    attacks = catalogue.chosen(args.only)
    plan = _plan(args)
    found = report.HostileReport(
        report.SCHEMA,
        shlex.join(["legato", "bench", *argv]),
        machine.machine(),
        machine.versions(plan.redis),
        *(plan.seconds, plan.tls, plan.limits, []),
    )
    _say(report.head())
    try:
        interrupts.run(_attack(attacks, plan, found))
        found.whole = True
    except KeyboardInterrupt:
        pass
    finally:
        if args.json:
            _write(args.json, found)
    _say(report.summary(found.rows, len(attacks)))
    if not found.whole:
        return interrupts.INTERRUPTED
    return 1 if any(row.faults for row in found.rows) else 0


def _plan(args: argparse.Namespace) -> HostilePlan:
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    if seconds > LONGEST_SECONDS:
        raise BenchmarkError(f"--seconds {seconds:g}: expected at most {LONGEST_SECONDS:g}", BAD_USAGE)
    limits = QUICK if args.quick else HostileLimits()
    if args.delay is not None:
        limits = msgspec.structs.replace(limits, p99=args.delay)
    return HostilePlan(stage.redis_server(args.redis), seconds, max(1.0, QUIET * seconds), args.tls, limits)


async def _attack(attacks: Sequence[Attack], plan: HostilePlan, found: report.HostileReport) -> None:
    _progress(attacks, 0)
    async for row in rows(attacks, plan):
        found.rows.append(row)
        _progress([], 0)
        _say(report.line(row))
        _progress(attacks, len(found.rows))


def _progress(attacks: Sequence[Attack], done: int) -> None:
    """Which attack runs, on standard error if that is a terminal; nothing after the last one."""
    if sys.stderr.isatty():
        text = f"attack {done + 1} of {len(attacks)}: {attacks[done].name}" if done < len(attacks) else ""
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _write(path: str, found: report.HostileReport) -> None:
    try:
        Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror}") from error
