"""The options of ``legato broadcaster``. Imports nothing that only a running server needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options. Each overrides the settings file and the environment."""
    parser.add_argument("--config", metavar="FILE", help="settings as TOML (docs/settings.md)")
    parser.add_argument(
        "--env-file", metavar="FILE", help="variables as in Laravel's .env; the environment wins"
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, help="port for WebSocket and HTTP; 0 picks a free one (default 8080)"
    )
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="port of /metrics (default 17090)")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="number of processes that share the port; more than 1 needs Redis (default 1)",
    )
