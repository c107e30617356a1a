"""``legato config``: makes, shows and checks the settings."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import sample
from .config_loading import load
from .errors import BAD_USAGE, FAILED, CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the action. Returns the exit status.

    :raises CommandError: the file exists or cannot be written.
    """
    return _ACTIONS[args.action](args, environ)


def _init(args: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    text = sample.text(sample.SETTINGS)
    if args.file is None:
        sys.stdout.write(text)
        return 0
    try:
        with Path(args.file).open("w" if args.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{args.file} exists; --force overwrites it") from None
    except OSError as error:
        raise CommandError(f"{args.file} cannot be written: {error.strerror}") from None
    return 0


def _show(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from . import config_show  # noqa: PLC0415 - see legato.deploy.cli.Command

    every = load(args, environ)
    sys.stdout.write(config_show.text([each for each in every if not each.error]))
    for each in every:
        if each.error:
            sys.stderr.write(f"legato config show: {each.program}: {each.error}\n")
    return BAD_USAGE if any(each.error for each in every) else 0


def _check(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from . import config_check  # noqa: PLC0415 - see legato.deploy.cli.Command

    found = asyncio.run(config_check.check(load(args, environ), environ))
    sys.stdout.write("".join(f"{problem.level}: {problem.text}\n" for problem in found))
    errors = sum(problem.level == config_check.ERROR for problem in found)
    warnings = len(found) - errors
    sys.stdout.write(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}\n")
    if errors:
        return BAD_USAGE
    return FAILED if warnings and args.strict else 0


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace, Mapping[str, str]], int]]] = {
    "init": _init,
    "show": _show,
    "check": _check,
}
