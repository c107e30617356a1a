"""``legato broadcaster``: errors as one line each."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from legato.protocol.settings import SettingsError

from . import config

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> int:
    """Run one process until it is told to stop.

    :returns: 0 after an orderly end, 2 for bad settings, 1 for anything else that stops the start.
    """
    try:
        settings = config.load(args, os.environ)
    except SettingsError as error:
        return _fail(error, 2)
    from . import (  # noqa: PLC0415 - who has made a mistake is told before its libraries are loaded
        composition as server,
    )

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
