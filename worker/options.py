"""The options of ``legato worker`` and its actions. Loads nothing that only a run needs: help is fast."""

from __future__ import annotations

import argparse
import re
from typing import Any, Final

LISTED: Final = 20
"""Dead letters that are listed unless told otherwise."""

ENV_FILE: Final = "variables as in Laravel's .env; the environment wins"

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Letters behind a time -> seconds."""

_LETTER_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags. What is not given stays None, so that environment and file decide."""
    parser.add_argument("--config", metavar="FILE", help="settings as TOML")
    parser.add_argument("--env-file", metavar="FILE", help=ENV_FILE)
    parser.add_argument("--processes", type=int, metavar="N", help="worker processes, at most (default 1)")
    parser.add_argument(
        "--min-processes", type=int, metavar="N", help="of each queue, when balanced by auto (default 1)"
    )
    parser.add_argument(
        "--balance",
        choices=("auto", "simple", "off"),
        help="how processes are shared out over the queues (default off: each reads all)",
    )
    parser.add_argument(
        "--queue",
        metavar="NAME[,NAME...]",
        help="job queues, the most urgent first (default ai-streaming)",
    )
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="port of /metrics (default 0: none)")
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="replies at once per process (default 16)"
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
    from .config import NAME  # noqa: PLC0415 - the settings take a while to load, and help needs none

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
        metavar="ACTION", title="actions on workers that run anywhere; without one, be a worker"
    )
    status = _action(actions, "status", "show who works on what")
    status.add_argument("--json", action="store_true", help="as JSON")
    pause = _action(actions, "pause", "have workers claim no more jobs; running replies go on")
    resume = _action(actions, "continue", "undo pause")
    for sub in (pause, resume):
        sub.add_argument("names", metavar="QUEUE", nargs="*", type=queue_name, help="default: all queues")
    drain = _action(actions, "drain", "have workers finish what runs, and exit")
    drain.add_argument("targets", metavar="ID|HOST", nargs="*", help="as in status; default: all workers")
    drain.add_argument("--wait", metavar="TIME", type=seconds, help="wait until they are gone, at most TIME")
    _add_dead(actions.add_parser("dead", help="dead letters: jobs given up on"))


def _add_dead(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    listing = _action(actions, "dead list", "list dead letters, the newest first")
    listing.add_argument(
        "--limit", metavar="N", type=int, default=LISTED, help=f"how many of each queue (default {LISTED})"
    )
    listing.add_argument("--json", action="store_true", help="as JSON, with the jobs")
    retry = _action(actions, "dead retry", "put jobs back into their queue")
    retry.add_argument("--all", action="store_true", help="all there are")
    retry.add_argument(
        "--new-message",
        action="store_true",
        help="where a message has told its end already, ask again as a new message with a new id",
    )
    purge = _action(actions, "dead purge", "remove dead letters for good")
    purge.add_argument("--older-than", metavar="TIME", type=seconds, help="all that are older, such as 7d")
    purge.add_argument("--yes", action="store_true", help="all there are")
    for sub in (retry, purge):
        sub.add_argument("ids", metavar="ID", nargs="*", type=letter_id, help="as in dead list")
    for sub in (listing, retry, purge):
        sub.add_argument(
            "--queue", dest="of_queue", metavar="NAME", type=queue_name, help="default: all queues"
        )


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """``name``: as in ``control.ACTIONS``; its last word is what the user says here."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name.rpartition(" ")[2], help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    # SUPPRESS: what was given before the action stands.
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="settings as TOML")
    parser.add_argument("--env-file", metavar="FILE", default=argparse.SUPPRESS, help=ENV_FILE)
    parser.set_defaults(action=name, prog=parser.prog)
    return parser
