"""The options of ``legato migrate``, without SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--config", metavar="FILE", help="settings as TOML")
    parser.add_argument(
        "--env-file", metavar="FILE", help="variables as in Laravel's .env; the environment wins"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; status 1 when there is something to change"
    )
