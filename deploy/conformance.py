"""``legato conformance``: its options and its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--url", metavar="URL", help="WebSocket address of the server, ws://HOST:PORT or wss://"
    )
    parser.add_argument("--api", metavar="URL", help="address of its HTTP API; default: that of --url")
    parser.add_argument("--app-id", metavar="ID", help="the application's id; default: PUSHER_APP_ID")
    parser.add_argument("--key", metavar="KEY", help="its key; default: PUSHER_APP_KEY")
    parser.add_argument("--secret", metavar="SECRET", help="its secret; default: PUSHER_APP_SECRET")
    parser.add_argument(
        "--section",
        metavar="N",
        action="append",
        help="only cases of this section, such as 4 or 10.3; repeatable",
    )
    parser.add_argument("--list", action="store_true", help="list the cases and run none")
    parser.add_argument(
        "--slow", action="store_true", help="include cases that wait for the server's timers or fill channels"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=5.0,
        help="time-out of each answer; default: 5",
    )
    parser.add_argument(
        "--format", choices=("text", "json", "markdown"), default="text", help="report format; default: text"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write the report to a file; default: standard output"
    )
    parser.add_argument(
        "--webhook-port", metavar="PORT", type=int, help="listen for the server's webhooks and check them"
    )
    parser.add_argument(
        "--webhook-host", metavar="HOST", default="127.0.0.1", help="address to listen on; default: 127.0.0.1"
    )
    parser.add_argument(
        "--refused-origin", metavar="ORIGIN", help="an Origin that the application does not allow"
    )
    parser.add_argument(
        "--app",
        metavar="ROLE=ID:KEY:SECRET",
        action="append",
        help="a further application: disabled, full (one connection), strict or quiet; repeatable",
    )


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the suite. 0 if no case failed, else 1.

    :raises CommandError: an option is invalid, or the server cannot be reached.
    """
    from legato.benchmarks.conformance import command  # noqa: PLC0415 - only --help is fast without it

    try:
        return command.run(args, environ)
    except command.CommandLineError as error:
        raise CommandError(str(error), error.status) from error
