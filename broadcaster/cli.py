"""``legato broadcaster``: options, and errors as one line each."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from protocol.settings import SettingsError

from . import config

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command; each overrides the file and the environment."""
    parser.add_argument("--config", metavar="FILE", help="settings as TOML (docs/settings.md)")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, help="port for WebSocket and HTTP; 0 picks a free one (default 8080)"
    )
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="port of /metrics (default 9090)")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="processes that share the port; more than 1 needs Redis (default 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Run one process until it is told to stop.

    :returns: 0 after an orderly end, 2 for bad settings, 1 for anything else that stops the start.
    """
    try:
        settings = config.load(args, os.environ)
    except SettingsError as error:
        return _fail(error, 2)
    from . import server  # noqa: PLC0415 - its libraries are not needed for --help

    try:
        server.run(settings)
    except SettingsError as error:
        return _fail(error, 2)
    except server.StartError as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, status: int) -> int:
    sys.stderr.write(f"legato broadcaster: {error}\n")
    return status
