"""``legato sample``: prints files of the package to begin with: the settings, and units for systemd."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

SETTINGS: Final = "legato.toml"

FILES: Final = {
    SETTINGS: "legato.sample.toml",
    "legato-broadcaster.service": "systemd/legato-broadcaster.service",
    "legato-worker.service": "systemd/legato-worker.service",
}
"""What it is called where it is used, and where it is in this package."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the argument."""
    names = ", ".join(FILES)
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        choices=FILES,
        default=SETTINGS,
        help=f"{names}; default: {SETTINGS}",
    )


def run(args: argparse.Namespace) -> int:
    """Print the file."""
    sys.stdout.write(text(args.file))
    return 0


def text(name: str) -> str:
    """The text of one of :data:`FILES`."""
    return (Path(__file__).parent / FILES[name]).read_text(encoding="utf-8")
