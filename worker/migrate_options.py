"""The options of ``legato migrate``. Does not import SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", metavar="FILE", help="settings as TOML")
    parser.add_argument(
        "--env-file",
        metavar="FILE",
        help="variables from a file such as Laravel's .env; the environment takes precedence",
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; status 1 if a migration is needed"
    )
