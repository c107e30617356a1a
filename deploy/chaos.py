"""``legato chaos``: its options, and how it is started."""

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
        "--seed", metavar="N", type=int, default=1, help="what happens, and when, follows from it; default: 1"
    )
    add("--seeds", metavar="LIST", help="a run of each of these, such as 1-10 or 3,5,8")
    add("--parallel", metavar="N", type=int, default=1, help="of --seeds, how many at a time; default: 1")
    add("--report", metavar="FILE", help="of --seeds: write what they come to as Markdown")
    add("--minutes", metavar="M", type=float, default=2.0, help="how long faults happen; default: 2")
    add(
        "--faults",
        metavar="KINDS",
        default="all",
        help="all, none, or some: kill-worker,restart-redis; --plan shows what they do; default: all",
    )
    add("--users", metavar="N", type=int, default=6, help="who write; default: 6")
    add("--readers", metavar="N", type=int, default=2, help="pusher-js clients of each user; default: 2")
    add("--nodes", metavar="N", type=int, default=3, help="broadcasters; default: 3")
    add("--workers", metavar="N", type=int, default=3, help="worker processes; default: 3")
    add("--plan", action="store_true", help="print what would happen, and do nothing")
    add("--redis", metavar="PROGRAM", help="default: redis-server of the PATH, else the embedded Valkey")
    own = "a directory with node_modules/pusher-js; default: one that npm fills once"
    add("--modules", metavar="DIR", help=own)
    add("--json", metavar="FILE", help="write the outcome with all violations to a file")
    told = "keep logs, data, what the readers saw and what webhooks told in this empty directory"
    add("--keep", metavar="DIR", help=told)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make a run; 0 when the auditor has found nothing, else 1.

    :raises CommandError: an option is wrong, or something that is needed is not there.
    """
    from legato.benchmarks.chaos import command  # noqa: PLC0415 - only --help is fast without it

    try:
        return command.run(args, environ)
    except ChaosError as error:
        raise CommandError(str(error), error.status) from error
