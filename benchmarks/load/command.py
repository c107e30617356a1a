"""Runs ``legato bench``."""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from legato.benchmarks import interrupts, machine, stage
from legato.benchmarks.errors import BAD_USAGE, BenchmarkError

from . import compare, html, local, markdown, options
from .agents import generators
from .result import SCHEMA, LoadReport
from .run import ScenarioRun
from .scenarios import SCENARIOS, sized
from .targets import DIALECTS, Wanted, resolve
from .watch import Live

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Mapping, Sequence

    from .agents import Generators
    from .orders import LoadTarget
    from .run import Sizes

SIZES: Final = ("connections", "rate", "seconds", "size", "publishers")
SECRET_OPTIONS: Final = ("--secret",)


def run(args: argparse.Namespace, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command; 0 if every delivery arrived in order, 130 if interrupted, else 1.

    What was measured is written in any case, also if a scenario fails.

    :raises BenchmarkError: an option is invalid, or something that is needed is missing.
    """
    options.check(args)
    if args.list:
        sys.stdout.write(listed())
        return 0
    if args.compare:
        first, second = (load(path) for path in args.compare)
        if args.html:
            _write(args.html, html.comparison(first, second))
        if args.markdown or not args.html:
            _write(args.markdown, compare.markdown(first, second))
        return 0
    measured: list[LoadReport] = []
    try:
        interrupts.run(_measure(args, argv, environ, measured))
    except KeyboardInterrupt:
        _write_all(args, measured, "interrupted")
        return interrupts.INTERRUPTED
    except BenchmarkError as error:
        _write_all(args, measured, str(error))
        raise
    _write_all(args, measured)
    return 1 if any(phase.faults for report in measured for phase in report.phases) else 0


def _write_all(args: argparse.Namespace, measured: Sequence[LoadReport], cut: str = "") -> None:
    """Write the report, if the run came so far that there is one.

    :param cut: why it is not complete; empty if it is.
    """
    for report in measured:
        if cut and not report.phases:
            return
        report.cut = cut
        if args.json:
            _write(args.json, msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")
        if args.html:
            _write(args.html, html.page(report))
        _write(args.markdown, markdown.document(report))


def listed() -> str:
    """The table of scenarios."""
    lines = []
    for name, scenario in SCENARIOS.items():
        s = scenario.sizes
        lines.append(f"{name:<10}{scenario.summary}")
        lines.append(
            f"{'':<10}N {s.connections}, R {s.rate:g}, {s.seconds:g} s, {s.size} characters, "
            f"{s.publishers} publishers"
        )
    lines += ["", "presets:"]
    for dialect, preset in DIALECTS.items():
        lines.append(
            f"{dialect:<10}{preset.url.format('CLUSTER')}" + (f"; {preset.hint}" if preset.hint else "")
        )
    return "\n".join(lines) + "\n"


def load(path: str) -> LoadReport:
    """Read a report written with ``--json``.

    :raises BenchmarkError: it is not one.
    """
    try:
        report = msgspec.json.decode(Path(path).read_bytes(), type=LoadReport)
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror}", BAD_USAGE) from error
    except msgspec.DecodeError as error:
        raise BenchmarkError(f"{path} is no report of legato bench: {error}", BAD_USAGE) from error
    if report.schema != SCHEMA:
        raise BenchmarkError(f"{path}: schema {report.schema}, expected {SCHEMA}", BAD_USAGE)
    return report


def _write(path: str | None, text: str) -> None:
    if not path:
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror}") from error


def redacted(argv: Sequence[str]) -> str:
    """The command line without the secret."""
    words = list(argv)
    for place, word in enumerate(words):
        option, equals, _ = word.partition("=")
        # argparse accepts any unambiguous prefix of an option.
        if len(option) > 3 and any(name.startswith(option) for name in SECRET_OPTIONS):
            if equals:
                words[place] = f"{option}=SECRET"
            elif place + 1 < len(words):
                words[place + 1] = "SECRET"
    return shlex.join(["legato", "bench", *words])


class TestedServer(NamedTuple):
    """The server, its processes, those of its Redis, and versions of what was started."""

    target: LoadTarget
    pids: Sequence[int]
    redis: Sequence[int]
    versions: dict[str, str]


@asynccontextmanager
async def _server(args: argparse.Namespace, environ: Mapping[str, str]) -> AsyncIterator[TestedServer]:
    if args.preset or args.url:
        wanted = Wanted(
            args.preset or "legato",
            *(args.url, args.api, args.app_id, args.key, args.secret, args.cluster, args.allow_remote),
        )
        yield TestedServer(resolve(wanted, environ), args.pid, [], {})
        return
    redis = stage.redis_server(args.redis) if args.over_redis else ""
    versions = (
        machine.versions(redis) if redis else {"legato": version("legato"), "uvloop": version("uvloop")}
    )
    async with stage.stage(redis, stage.Cast(config=local.CONFIG, alone=not args.over_redis)) as on:
        of_redis = [on.pids["redis"]] if redis else []
        target = local.legato(on, over_redis=args.over_redis)
        yield TestedServer(target, [on.pids["broadcaster"]], of_redis, versions)


async def _measure(
    args: argparse.Namespace, argv: Sequence[str], environ: Mapping[str, str], measured: list[LoadReport]
) -> None:
    """Add a report to ``measured``, and its phases to that as they are done."""
    wanted = {name: getattr(args, name) for name in SIZES}
    todo = {name: sized(name, wanted, quick=args.quick) for name in args.scenario or SCENARIOS}
    for name, sizes in todo.items():
        options.check_ramp(name, sizes.connections, sizes.rate)
    cores = local.cores(args.pin)
    count = args.generators or max(1, min(4, (os.cpu_count() or 1) - 1))
    found = machine.machine()
    async with _server(args, environ) as server:
        report = _report(server.target, args.label, redacted(argv), found, server.versions)
        report.cores = cores
        measured.append(report)
        of_generators = cores.get("generators", [])
        for pids, kept in ((server.pids, cores.get("server", [])), (server.redis, of_generators)):
            for pid in pids if kept else ():
                local.keep(pid, kept)
        async with generators(count, args.publisher_processes, of_generators) as load_makers:
            await load_makers.aim(server.target)
            await _all(report, load_makers, todo, server, args.limit)


def _report(
    target: LoadTarget, label: str, command: str, found: dict[str, Any], versions: dict[str, str]
) -> LoadReport:
    where = {"dialect": target.dialect, "host": target.host, "port": target.port, "tls": target.tls}
    return LoadReport(
        label or target.name,
        command,
        where,
        found,
        {"python": platform.python_version(), "generator": f"legato {version('legato')}", **versions},
        datetime.now(UTC).isoformat(timespec="seconds"),
        {},
        [],
    )


async def _all(
    report: LoadReport, load_makers: Generators, todo: Mapping[str, Sizes], server: TestedServer, limit: int
) -> None:
    """Run the scenarios in order; one that takes too long ends the run."""
    over_redis = bool(server.redis)
    live = Live(of=sum(SCENARIOS[name].phases(over_redis=over_redis) for name in todo))
    for name, sizes in todo.items():
        run = ScenarioRun(name, load_makers, sizes, server.pids, live, server.redis)
        try:
            async with asyncio.timeout(limit):
                await SCENARIOS[name].run(run)
            await load_makers.leave()
            await asyncio.sleep(0.2)
        except TimeoutError:
            raise BenchmarkError(f"{name}: not done after {limit} s: see --limit") from None
        finally:  # interrupted, too
            report.phases += run.phases
            report.left_out += run.left_out
            for phase in run.phases:
                live.say(markdown.line(phase))
