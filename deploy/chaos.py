"""``legato chaos``: its options and its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.benchmarks.chaos.errors import ChaosError

from .errors import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "--seed", metavar="N", type=int, default=1, help="determines which faults happen and when; default: 1"
    )
    add("--seeds", metavar="LIST", help="one run per seed, such as 1-10 or 3,5,8")
    add("--parallel", metavar="N", type=int, default=1, help="with --seeds: concurrent runs; default: 1")
    add("--report", metavar="FILE", help="with --seeds: write the result as Markdown")
    add("--minutes", metavar="M", type=float, default=2.0, help="how long faults happen; default: 2")
    add(
        "--faults",
        metavar="KINDS",
        default="all",
        help="all, none, or some: kill-worker,restart-redis; --plan shows what they do; default: all",
    )
    add("--users", metavar="N", type=int, default=6, help="users who write; default: 6")
    add("--readers", metavar="N", type=int, default=2, help="pusher-js clients of each user; default: 2")
    add("--nodes", metavar="N", type=int, default=3, help="broadcasters; default: 3")
    add("--workers", metavar="N", type=int, default=3, help="worker processes; default: 3")
    add("--pace", metavar="X", type=float, default=1.0, help="X times as many faults; default: 1")
    add("--plan", action="store_true", help="print the plan and do nothing")
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    own = "a directory with node_modules/pusher-js; default: one that npm fills once"
    add("--modules", metavar="DIR", help=own)
    add("--json", metavar="FILE", help="write the outcome with all violations to a file")
    told = "keep logs, data, what the readers saw and what webhooks told in this empty directory"
    add("--keep", metavar="DIR", help=told)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make a run. 0 if the auditor found no violation, else 1.

    :raises CommandError: an option is invalid, or something that is needed is missing.
    """
    from legato.benchmarks.chaos import command  # noqa: PLC0415 - only --help is fast without it

    try:
        return command.run(args, environ)
    except ChaosError as error:
        raise CommandError(str(error), error.status) from error
