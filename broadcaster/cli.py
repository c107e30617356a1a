"""``legato broadcaster``: runs the server and reports each error in one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from legato.protocol.settings import SettingsError

if TYPE_CHECKING:
    from .config import SettingsSource


def run(source: SettingsSource) -> int:
    """Run the server until it is told to stop.

    :returns: 0 after a clean stop, 2 for wrong settings, 1 if the start failed for another reason.
    """
    try:
        settings = source.read()
    except SettingsError as error:
        return _fail(error, 2)
    from . import process  # noqa: PLC0415 - report wrong settings before the slow imports

    try:
        process.run(settings, source)
    except SettingsError as error:
        return _fail(error, 2)
    except process.StartError as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, status: int) -> int:
    sys.stderr.write(f"legato broadcaster: {error}\n")
    return status
