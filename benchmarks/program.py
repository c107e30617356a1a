"""What every measuring program does between its options and its exit status."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FAILED, BenchmarkError
from .stage import redis_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence


def measured(
    name: str,
    words: Sequence[str],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], None],
    measure: Callable[[argparse.Namespace, str], Awaitable[dict[str, Any]]],
) -> dict[str, Any] | int:
    """The result, written to ``args.json`` too if given; or, after a line for the user, the exit status.

    :param measure: is given the path of the Redis to run.
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
