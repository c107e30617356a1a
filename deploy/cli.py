"""The ``legato`` command and its subcommands."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .errors import BAD_USAGE, CommandError
from .parsing import CommandParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from legato.protocol.settings import Log

EPILOG: Final = """\
exit status:
  0    it ended as it was asked to (Ctrl-C, SIGTERM)
  1    something outside is not as it must be: a port is taken, Redis does not answer
  2    an option, an environment variable or a configuration file is wrong
  130  Ctrl-C before it was done
"""


class Command(NamedTuple):
    """One subcommand. Its modules are imported when it runs; ``--help`` imports only its options."""

    summary: str
    examples: str
    options: str
    """The module whose ``add_arguments(parser)`` declares its options."""
    run: Callable[[argparse.Namespace, Sequence[str]], int]
    has_settings: bool = True
    """Whether it reads settings, and so the files of ``NAME_FILE`` variables. An action may say otherwise."""


def _up(args: argparse.Namespace, _argv: Sequence[str]) -> int:
    from . import up  # noqa: PLC0415 - see Command

    return up.run(args, os.environ)


def _broadcaster(args: argparse.Namespace, argv: Sequence[str]) -> int:
    import legato.broadcaster.cli  # noqa: PLC0415 - see Command
    import legato.broadcaster.config  # noqa: PLC0415
    import legato.broadcaster.foreign.settings  # noqa: PLC0415

    from . import logs  # noqa: PLC0415

    def read() -> legato.broadcaster.config.Settings:
        settings = legato.broadcaster.config.load(args, os.environ)
        logs.check_level(settings.log.level)
        return settings

    settings = read()
    _log(settings.log)
    environ = legato.broadcaster.foreign.settings.tell(os.environ)
    if settings.server.processes > 1:
        from . import processes  # noqa: PLC0415

        return processes.run_broadcasters(argv, settings, environ, read)
    return legato.broadcaster.cli.run(legato.broadcaster.config.SettingsSource(read, logs.use_level))


def _worker(args: argparse.Namespace, argv: Sequence[str]) -> int:
    import legato.worker.config  # noqa: PLC0415 - see Command

    if args.action is not None:
        import legato.worker.supervisor.control  # noqa: PLC0415 - as it is, without the database and the model

        return legato.worker.supervisor.control.run(args)
    settings = legato.worker.config.load(args, os.environ)
    _log(settings.log)
    if settings.worker.processes > 1 or settings.worker.balance != "off":
        from . import processes  # noqa: PLC0415

        return processes.run_workers(argv, settings, os.environ)
    import legato.worker.cli  # noqa: PLC0415 - the one that streams needs all of it

    return legato.worker.cli.run(args)


def _migrate(args: argparse.Namespace, _argv: Sequence[str]) -> int:
    import legato.worker.store.migrate  # noqa: PLC0415 - see Command

    _log(legato.worker.store.migrate.load(args, os.environ).log)
    return legato.worker.store.migrate.run(args)


def _conformance(args: argparse.Namespace, _argv: Sequence[str]) -> int:
    from . import conformance  # noqa: PLC0415 - see Command

    return conformance.run(args, os.environ)


def _chaos(args: argparse.Namespace, _argv: Sequence[str]) -> int:
    from . import chaos  # noqa: PLC0415 - see Command

    return chaos.run(args, os.environ)


def _bench(args: argparse.Namespace, argv: Sequence[str]) -> int:
    from . import bench  # noqa: PLC0415 - see Command

    return bench.run(args, argv, os.environ)


def _sample(args: argparse.Namespace, _argv: Sequence[str]) -> int:
    from . import sample  # noqa: PLC0415 - see Command

    return sample.run(args)


def _help(args: argparse.Namespace, _argv: Sequence[str]) -> int:
    return main([*args.words, "--help"])


def _config(args: argparse.Namespace, _argv: Sequence[str]) -> int:
    from . import config_command  # noqa: PLC0415 - see Command

    return config_command.run(args, os.environ)


def _log(settings: Log) -> None:
    from . import logs  # noqa: PLC0415 - see Command

    logs.check_level(settings.level)
    logs.configure(settings)


COMMANDS: Final = {
    "up": Command(
        "run everything for development, with a chat page",
        "  legato up\n  PORT=9000 ANTHROPIC_API_KEY=YOUR-KEY legato up\n  legato up --agent weather:agent",
        "legato.deploy.up_options",
        _up,
    ),
    "broadcaster": Command(
        "serve WebSocket clients and the HTTP API",
        "  legato broadcaster --config legato.toml\n"
        "  legato broadcaster --config legato.toml --host 0.0.0.0 --processes 4",
        "legato.broadcaster.options",
        _broadcaster,
    ),
    "worker": Command(
        "take chat messages from the queue and stream the replies",
        "  legato worker --config legato.toml\n"
        "  REDIS_URL=redis://127.0.0.1:6379 legato worker --processes 8\n"
        "  legato worker --queue urgent,ai-streaming --processes 8 --balance auto\n"
        "  legato worker --agent shop.support:agent\n"
        "  legato worker status\n"
        "  legato worker drain --wait 2m",
        "legato.worker.options",
        _worker,
    ),
    "migrate": Command(
        "upgrade the tables of the worker's database",
        "  legato migrate --config legato.toml\n"
        "  DATABASE_URL=postgresql://legato@127.0.0.1/legato legato migrate --check",
        "legato.worker.migrate_options",
        _migrate,
    ),
    "config": Command(
        "make, show and check the settings",
        "  legato config init legato.toml\n"
        "  legato config show --config legato.toml\n"
        "  legato config check --config legato.toml --strict\n"
        "  legato config show broadcaster -- --port 9000",
        "legato.deploy.config_options",
        _config,
    ),
    "sample": Command(
        "print a sample of the settings, or a unit for systemd",
        "  legato sample > legato.toml\n  legato sample legato-worker.service",
        "legato.deploy.sample",
        _sample,
        has_settings=False,
    ),
    "conformance": Command(
        "test a Pusher server against the protocol, case by case",
        "  legato conformance --url ws://127.0.0.1:8080 --app-id 1 --key app-key --secret app-secret\n"
        "  legato conformance --url wss://ws.example.com --api https://api.example.com --section 10"
        " --format markdown --output report.md",
        "legato.deploy.conformance",
        _conformance,
        has_settings=False,
    ),
    "chaos": Command(
        "prove that faults lose and repeat no token",
        "  legato chaos --seed 7 --minutes 2\n"
        "  legato chaos --seed 7 --minutes 2 --faults zombie,restart-redis --keep evidence\n"
        "  legato chaos --seeds 1-10 --minutes 2 --parallel 2 --report report.md",
        "legato.deploy.chaos",
        _chaos,
        has_settings=False,
    ),
    "bench": Command(
        "load a Pusher server and report how it performs",
        "  legato bench --quick\n"
        "  legato bench fanout streams --html report.html --json legato.json\n"
        "  legato bench fanout --preset soketi --pid 4321 --json soketi.json\n"
        "  legato bench --compare soketi.json legato.json\n"
        "  legato bench hostile --only websocket --seconds 30",
        "legato.deploy.bench",
        _bench,
        has_settings=False,
    ),
    "help": Command(
        "show the help of a command",
        "  legato help\n  legato help worker dead retry",
        "legato.deploy.help_options",
        _help,
        has_settings=False,
    ),
}


BESIDE: Final = ("uvloop", "websockets", "redis")
"""Packages whose versions a report of a mistake should name."""


class _Version(argparse.Action):
    """Prints the versions, and looks them up only then, because that reads the installed packages."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the versions and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version  # noqa: PLC0415
        from platform import python_implementation, python_version  # noqa: PLC0415

        lines = [f"legato {version('legato')}", f"Python {python_version()} ({python_implementation()})"]
        lines += [f"{name} {version(name)}" for name in BESIDE]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        parser.exit()


def build_parser(detailed: Iterable[str]) -> CommandParser:
    """The parser of ``legato``, with the options of the commands in ``detailed``, which it imports."""
    parser = CommandParser(
        prog="legato",
        description="Self-hosted Pusher Channels server, and a worker that streams AI replies through it.",
        epilog=f"`legato help COMMAND` has the options of a command.\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"examples:\n{command.examples}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in detailed:
            importlib.import_module(command.options).add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``legato``; the exit status is as :data:`EPILOG` says."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        parser = build_parser(argv[:1])
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help(sys.stderr)
            return BAD_USAGE
        return _run(COMMANDS[args.command], args, argv[1:])
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(command: Command, args: argparse.Namespace, argv: Sequence[str]) -> int:
    from legato.protocol.settings import SettingsError  # noqa: PLC0415 - see Command

    try:
        if path := getattr(args, "env_file", None):
            from . import env_file  # noqa: PLC0415 - see Command

            env_file.apply(path, os.environ)
        if getattr(args, "has_settings", command.has_settings):
            from . import secret_files  # noqa: PLC0415 - see Command

            args.secret_files = secret_files.apply(os.environ)
        return command.run(args, argv)
    except (SettingsError, CommandError) as error:
        sys.stderr.write(f"legato {args.command}: {error}\n")
        return error.status if isinstance(error, CommandError) else BAD_USAGE


if __name__ == "__main__":
    sys.exit(main())
