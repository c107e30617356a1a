"""The actions of ``legato config``, without the imports that only a run needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

    from .parsing import CommandParser

PROGRAMS: Final = ("broadcaster", "worker")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    init = _action(actions, "init", "print or write a file with all settings, commented out")
    init.add_argument("file", metavar="FILE", nargs="?", help="where to write it; default: standard output")
    init.add_argument("--force", action="store_true", help="overwrite FILE")
    init.set_defaults(has_settings=False)
    show = _action(actions, "show", "show the settings in force, and where each comes from")
    check = _action(actions, "check", "check the settings, Redis and the database, and warn of dangers")
    for sub in (show, check):
        sub.add_argument("--config", metavar="FILE", help="settings as TOML")
        sub.add_argument(
            "--env-file", metavar="FILE", help="variables as in Laravel's .env; the environment wins"
        )
        sub.add_argument(
            "program",
            metavar="PROGRAM",
            nargs="?",
            choices=PROGRAMS,
            help="broadcaster or worker; default: both",
        )
    check.add_argument("--strict", action="store_true", help="exit with status 1 if there are warnings")
    for sub in (show, check):
        usage = sub.format_usage().removeprefix("usage: ").rstrip()
        sub.usage = f"{usage} [-- OPTION ...]"
        sub.epilog = "OPTION: an option that PROGRAM is started with, such as --processes 4."
        sub.passes_on = "options"


def _action(actions: Any, name: str, summary: str) -> CommandParser:
    parser: CommandParser = actions.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    return parser
