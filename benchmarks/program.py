"""The common frame of the measuring programs: options, result, time-out, exit status."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BAD_USAGE, FAILED, BenchmarkError
from .machine import machine, versions
from .stage import redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence


def parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser without options. ``name``: name of the module below ``benchmarks``."""
    return argparse.ArgumentParser(
        prog=f"python -m legato.benchmarks.{name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def head(name: str, kind: str, args: argparse.Namespace, redis: str) -> dict[str, Any]:
    """The first fields of every result.

    :param kind: name of the kind of result.
    """
    return {
        "benchmark": kind,
        "command": shlex.join(["python", "-m", f"legato.benchmarks.{name}", *args.argv]),
        "machine": machine(),
        "versions": versions(redis),
    }


def check_bounds(args: argparse.Namespace, bounds: Mapping[str, tuple[int, int]]) -> None:
    """Check options that are numbers, or lists of them. One that is not given has no bound.

    :param bounds: least and most, by the name of the option's attribute.
    :raises BenchmarkError: one is out of bounds.
    """
    for name, (least, most) in bounds.items():
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not least <= value <= most:
                option = f"--{name.replace('_', '-')}"
                raise BenchmarkError(f"{option} {value}: expected {least} to {most}", BAD_USAGE)


@asynccontextmanager
async def limited(seconds: float, done: Callable[[], str] = str) -> AsyncIterator[None]:
    """Abort the block after this time.

    :param done: describes the progress, if known.
    :raises BenchmarkError: the time is over.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        so_far = f" ({text})" if (text := done()) else ""
        raise BenchmarkError(f"not done after {seconds} s{so_far}: see --seconds") from None


def measured(
    name: str,
    words: Sequence[str],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], None],
    measure: Callable[[argparse.Namespace, str], Awaitable[dict[str, Any]]],
) -> dict[str, Any] | int:
    """The result, also written to ``args.json`` if given; or, after a line for the user, the exit status.

    :param measure: gets the path of the Redis to run.
    """
    args.argv = words
    try:
        check(args)
        body: dict[str, Any] = asyncio.run(_awaited(measure(args, redis_server(args.redis))))
        if args.json:
            Path(args.json).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    except BenchmarkError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return error.status
    except OSError as error:
        sys.stderr.write(f"{name}: {error.filename or 'a process'}: {error.strerror}\n")
        return FAILED
    return body


async def _awaited(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return await work
