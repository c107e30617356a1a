"""The options of ``legato worker`` and its actions.

Imports only what parsing needs, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import re
from typing import Any, Final

from .limits import DEAD_LETTERS_LISTED

ENV_FILE: Final = "variables from a file such as Laravel's .env; the environment takes precedence"

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Suffix of a time -> seconds."""

_LETTER_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options. None as default leaves the value to environment and file."""
    parser.add_argument("--config", metavar="FILE", help="settings as TOML")
    parser.add_argument("--env-file", metavar="FILE", help=ENV_FILE)
    parser.add_argument(
        "--agent", metavar="MODULE:NAME", help="the agent or handler that answers (default: the model alone)"
    )
    parser.add_argument(
        "--reload", action="store_true", help="reload agents when their files change, for development"
    )
    parser.add_argument("--processes", type=int, metavar="N", help="maximum number of processes (default 1)")
    parser.add_argument(
        "--min-processes", type=int, metavar="N", help="minimum per queue, with --balance auto (default 1)"
    )
    parser.add_argument(
        "--balance",
        choices=("auto", "simple", "off"),
        help="how queues share the processes (default off: each process reads all queues)",
    )
    parser.add_argument(
        "--queue",
        metavar="NAME[,NAME...]",
        help="job queues, the most urgent first (default ai-streaming)",
    )
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="port of /metrics (default 0: none)")
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="concurrent replies per process (default 16)"
    )
    _add_actions(parser)


def seconds(text: str) -> float:
    """An argument type: ``90``, ``90s``, ``15m``, ``12h`` or ``7d``."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 15m, 12h or 7d, got {text!r}")
    return float(match[1]) * UNITS[match[2] or "s"]


def queue_name(text: str) -> str:
    """An argument type: the name of a queue."""
    from .config import NAME  # noqa: PLC0415 - slow to import, and help does not need it

    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError(f"expected the name of a queue, got {text!r}")
    return text


def letter_id(text: str) -> str:
    """An argument type: the id of a dead letter."""
    if not _LETTER_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"expected an id as `legato worker dead list` shows it, got {text!r}"
        )
    return text


def _add_actions(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands. Without one, ``action`` is None."""
    parser.set_defaults(action=None)
    actions = parser.add_subparsers(
        metavar="ACTION", title="actions on running workers; without an action, start a worker"
    )
    status = _action(actions, "status", "show queues, supervisors and processes")
    status.add_argument("--json", action="store_true", help="as JSON")
    pause = _action(actions, "pause", "stop claiming jobs; running replies continue")
    resume = _action(actions, "continue", "end a pause")
    for sub in (pause, resume):
        sub.add_argument("names", metavar="QUEUE", nargs="*", type=queue_name, help="default: all queues")
    drain = _action(actions, "drain", "finish running replies and exit")
    drain.add_argument("targets", metavar="ID|HOST", nargs="*", help="as in status; default: all workers")
    drain.add_argument("--wait", metavar="TIME", type=seconds, help="wait up to TIME until they have exited")
    _add_dead(actions.add_parser("dead", help="dead letters: jobs that could not be answered"))


def _add_dead(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    listing = _action(actions, "dead list", "list dead letters, newest first")
    listing.add_argument(
        "--limit",
        metavar="N",
        type=int,
        default=DEAD_LETTERS_LISTED,
        help=f"maximum per queue (default {DEAD_LETTERS_LISTED})",
    )
    listing.add_argument("--json", action="store_true", help="as JSON, with the jobs")
    retry = _action(actions, "dead retry", "put jobs back into their queue")
    retry.add_argument("--all", action="store_true", help="all dead letters")
    retry.add_argument(
        "--new-message",
        action="store_true",
        help="retry a message that has ended as a new message with a new id",
    )
    purge = _action(actions, "dead purge", "delete dead letters permanently")
    purge.add_argument(
        "--older-than", metavar="TIME", type=seconds, help="all that are older than TIME, such as 7d"
    )
    purge.add_argument("--yes", action="store_true", help="all dead letters")
    for sub in (retry, purge):
        sub.add_argument("ids", metavar="ID", nargs="*", type=letter_id, help="as in dead list")
    for sub in (listing, retry, purge):
        sub.add_argument(
            "--queue", dest="of_queue", metavar="NAME", type=queue_name, help="default: all queues"
        )


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Add the action ``name`` of ``control.ACTIONS``; its last word is the subcommand."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name.rpartition(" ")[2], help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    # SUPPRESS keeps a value that was given before the action.
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="settings as TOML")
    parser.add_argument("--env-file", metavar="FILE", default=argparse.SUPPRESS, help=ENV_FILE)
    parser.set_defaults(action=name, prog=parser.prog)
    return parser
