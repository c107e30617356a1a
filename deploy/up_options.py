"""The options of ``legato up``, without the imports that only a run needs."""

from __future__ import annotations

import argparse
from pathlib import Path


def port_number(text: str) -> int:
    """An argument type: 1 to 65535."""
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535, got {text!r}")
    return port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``legato up``."""
    parser.add_argument("--port", type=port_number, help="port of the page and the API (PORT; 8080)")
    parser.add_argument("--host", help="address to listen on (HOST; 127.0.0.1)")
    parser.add_argument("--data", type=Path, help="directory for all data (LEGATO_DATA; .legato)")
    parser.add_argument(
        "--agent",
        metavar="MODULE:NAME",
        help="the agent or handler that answers, reloaded when its files change (LEGATO_WORKER_AGENT)",
    )
    parser.add_argument(
        "--scripted", action="store_true", help="scripted replies even with ANTHROPIC_API_KEY"
    )
