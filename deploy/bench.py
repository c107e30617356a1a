"""``legato bench``: its options and its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load import options
from legato.benchmarks.load.options import HOSTILE
from legato.benchmarks.load.options import add_arguments as add_arguments  # noqa: PLC0414 - the command line asks here

from .errors import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence


def run(args: argparse.Namespace, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Load a server. 0 if all deliveries arrived in order and no attack harmed others, else 1.

    :raises CommandError: an option is invalid, or something that is needed is missing.
    """
    from legato.benchmarks.load import command  # noqa: PLC0415 - only --help is fast without it

    try:
        if args.scenario == [HOSTILE]:
            options.check(args)
            from legato.benchmarks.hostile import command as hostile  # noqa: PLC0415 - as above

            return hostile.run(args, argv)
        return command.run(args, argv, environ)
    except BenchmarkError as error:
        raise CommandError(str(error), error.status) from error
