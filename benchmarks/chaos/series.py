"""Runs several seeds, some concurrently, each with a separate `legato chaos`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import legato.deploy.leash

from .errors import BAD_USAGE, ChaosError
from .programs import LEGATO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_SEEDS: Final = 1000
MOST_PARALLEL: Final = 64


class SeedResult(NamedTuple):
    """One seed. ``outcome`` is the JSON of its run, or None with the reason in ``said``."""

    seed: int
    outcome: dict[str, Any] | None
    said: str

    @property
    def clean(self) -> bool:
        """Whether the auditor found no violation."""
        return self.outcome is not None and bool(self.outcome["clean"])


def seeds(text: str) -> list[int]:
    """The seeds that ``1-10``, ``3,5,8`` or ``1-3,7`` names, each once, in that order.

    :raises ChaosError: it names none, or too many.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MOST_SEEDS:
            raise ChaosError(f"--seeds {text}: expected seeds such as 1-10 or 3,5,8", BAD_USAGE)
        found |= dict.fromkeys(range(first, last + 1))
    if len(found) > MOST_SEEDS:
        raise ChaosError(f"--seeds {text}: more than {MOST_SEEDS}", BAD_USAGE)
    return list(found)


async def carry_out(
    numbers: Sequence[int],
    options: Sequence[str],
    parallel: int,
    say: Callable[[str], None],
    done: dict[int, SeedResult],
) -> None:
    """Make a run of each seed, at most ``parallel`` at a time.

    :param options: of every run.
    :param done: gets each result as soon as it is there, by its seed.
    """
    free = asyncio.Semaphore(parallel)

    async def one(seed: int, directory: Path) -> None:
        async with free:
            say(f"seed {seed}: begins")
            done[seed] = result = await _run(seed, options, directory / f"{seed}.json")
            say(f"seed {seed}: {result.said} ({len(done)} of {len(numbers)} seeds done)")

    with tempfile.TemporaryDirectory(prefix="legato-chaos-") as directory:
        await asyncio.gather(*(one(seed, Path(directory)) for seed in numbers))


async def _run(seed: int, options: Sequence[str], file: Path) -> SeedResult:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, legato.deploy.leash.__file__, str(os.getpid()), *LEGATO, "chaos", *options),
        *("--seed", str(seed), "--json", str(file)),
        process_group=0,  # Ctrl-C is for this process, which ends the others
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    lines = printed.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return SeedResult(seed, _outcome(file), lines[-1])


def _outcome(file: Path) -> dict[str, Any] | None:
    try:
        outcome: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if "interrupted" in outcome else outcome
