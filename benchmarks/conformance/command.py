"""``legato conformance``, from its parsed options to its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from .cases import every, order
from .hooks import listening
from .http import unreachable
from .report import FORMATS, summary
from .runner import ServerGoneError, SuiteRunner
from .target import ROLES, Application, Target

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from .outcome import Case, Result

FAILED: Final = 1
BAD_USAGE: Final = 2

CREDENTIALS: Final = {
    "app_id": ("--app-id", "PUSHER_APP_ID"),
    "key": ("--key", "PUSHER_APP_KEY"),
    "secret": ("--secret", "PUSHER_APP_SECRET"),
}


class CommandLineError(Exception):
    """One line for the user; ``status`` is the exit status."""

    def __init__(self, line: str, status: int = BAD_USAGE) -> None:
        super().__init__(line)
        self.status = status


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the suite, or list it; 0 if no case failed, 130 if interrupted.

    Cases that are done are reported in any case.

    :raises CommandLineError: an option is invalid, or the server cannot be reached, or no longer.
    """
    cases = select(args.section or [])
    if args.list:
        sys.stdout.write("".join(f"{case.section:<5} {case.name}\n" for case in cases))
        return 0
    done = Progress(cases)
    try:
        asyncio.run(_run(target(args, environ), done, args))
    except KeyboardInterrupt:
        write(done, "interrupted", args)
        return 128 + signal.SIGINT
    except ServerGoneError as gone:
        write(done, str(gone), args)
        raise CommandLineError(f"{gone}; {done.count}", FAILED) from gone
    write(done, "", args)
    return FAILED if any(result.verdict == "fail" for result in done.results) else 0


def select(wanted: list[str]) -> list[Case]:
    """The cases of these sections and their subsections, in the order of the sections; all without any.

    :raises CommandLineError: there is no such section.
    """
    cases = every()
    known = sorted({case.section for case in cases}, key=order)
    for section in wanted:
        if not any(_below(name, section) for name in known):
            raise CommandLineError(f"--section {section}: no such section; there are {', '.join(known)}")
    return [case for case in cases if not wanted or any(_below(case.section, section) for section in wanted)]


def _below(name: str, section: str) -> bool:
    return f"{name}.".startswith(f"{section.rstrip('.')}.")


def target(args: argparse.Namespace, environ: Mapping[str, str]) -> Target:
    """The server that the options describe.

    :raises CommandLineError: an option is missing or invalid.
    """
    if not args.url:
        raise CommandLineError("--url is missing; expected ws://HOST:PORT")
    url = _address("--url", args.url, ("ws", "wss"))
    api = _address("--api", args.api or f"http{url.removeprefix('ws')}", ("http", "https"))
    values = []
    for name, (option, variable) in CREDENTIALS.items():
        value = getattr(args, name) or environ.get(variable)
        if not value:
            raise CommandLineError(f"{option} (or {variable} in the environment) is missing")
        values.append(value)
    if args.timeout <= 0:
        raise CommandLineError(f"--timeout {args.timeout:g}: expected seconds, more than 0")
    return Target(
        url,
        api,
        Application(*values),
        timeout=args.timeout,
        slow=args.slow,
        refused_origin=args.refused_origin or "",
        others=dict(_other(text) for text in args.app or []),
    )


def _address(option: str, text: str, schemes: tuple[str, str]) -> str:
    try:
        parts = urlsplit(text)
        port = 1 if parts.port is None else parts.port
        right = parts.scheme in schemes and bool(parts.hostname) and port > 0
        right = right and not (parts.query or parts.fragment)
    except ValueError:
        right = False
    if not right:
        expected = " or ".join(f"{scheme}://HOST[:PORT][/PATH]" for scheme in schemes)
        raise CommandLineError(f"{option} {text}: expected {expected}")
    return text.rstrip("/")


def _other(text: str) -> tuple[str, Application]:
    role, _, rest = text.partition("=")
    parts = rest.split(":", 2)
    if role not in ROLES or len(parts) != 3 or not all(parts):
        roles = ", ".join(ROLES)
        raise CommandLineError(f"--app {role}=…: expected ROLE=ID:KEY:SECRET with a ROLE of {roles}")
    return role, Application(*parts)


async def _run(aim: Target, done: Progress, args: argparse.Namespace) -> None:
    for address in (aim.url, aim.api):
        if reason := await unreachable(address):
            raise CommandLineError(f"{address} cannot be reached: {reason}", FAILED)
    async with contextlib.AsyncExitStack() as stack:
        hooks = None
        if args.webhook_port is not None:
            try:
                hooks = await stack.enter_async_context(listening(args.webhook_host, args.webhook_port))
            except (OSError, OverflowError) as error:
                address = f"{args.webhook_host}:{args.webhook_port}"
                raise CommandLineError(f"{address} cannot be listened on: {error}", FAILED) from error
        await SuiteRunner(aim, hooks).run(done.cases, done)


class Progress:
    """What is done, and a counter of it on standard error, if that is a terminal."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self._done: dict[str, Result] = {}
        self._show = sys.stderr.isatty()

    def __call__(self, result: Result) -> None:
        """A case is done."""
        self._done[result.id] = result
        if self._show:
            end = "\n" if len(self._done) == len(self.cases) else ""
            sys.stderr.write(f"\r{len(self._done)} of {len(self.cases)}{end}")

    @property
    def results(self) -> list[Result]:
        """What is done, in the order of the cases."""
        return [self._done[case.id] for case in self.cases if case.id in self._done]

    @property
    def count(self) -> str:
        """How much is done, in words."""
        return f"{len(self._done)} of {len(self.cases)} cases were run"


def write(done: Progress, cut: str, args: argparse.Namespace) -> None:
    """The report to standard output, or to a file with one line of counts to standard output.

    :param cut: why not all cases are done; empty if they are.
    :raises CommandLineError: the file cannot be written.
    """
    note = f"{cut}; {done.count}" if cut else ""
    report, output = FORMATS[args.format](done.results, note), args.output
    if output is None:
        sys.stdout.write(report)
        return
    try:
        Path(output).write_text(report, encoding="utf-8")
    except OSError as error:
        raise CommandLineError(f"--output {output}: cannot be written: {error.strerror}", FAILED) from error
    sys.stdout.write(f"{summary(done.results, note)}\n")
