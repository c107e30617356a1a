"""Imports what settings name by ``MODULE:NAME``, and says how and where in the user's code that failed."""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.protocol.text import well_formed

if TYPE_CHECKING:
    from types import ModuleType

IMPORT_PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""Use with ``fullmatch``."""


def import_module(name: str) -> ModuleType:
    """Import a module. Those of the working directory are found too, after all others.

    Raises whatever the module's code raises.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    importlib.invalidate_caches()
    return importlib.import_module(name)


def text_of(error: BaseException) -> str:
    """The text of an error of the user's code; empty if it has none that can be had."""
    try:
        return well_formed(str(error))
    except BaseException:  # noqa: BLE001 - the error's own code runs
        return ""


def where(error: BaseException, *ours: str) -> str:
    """The innermost line of the user's code in the traceback, with a space before it; empty if there is none.

    That of an installed package only if there is no other: the user's own code may be installed, too.

    :param ours: files or folders that are not the user's.
    """
    not_theirs = ("<", __file__, *ours)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(not_theirs) and not _is_pythons(Path(frame.filename))
    ]
    theirs = [frame for frame in frames if not is_installed(Path(frame.filename))] or frames
    return f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    return not _INSTALLED.isdisjoint(path.parts) or _is_pythons(path)


def _is_pythons(path: Path) -> bool:
    """Whether a file belongs to the standard library, below which packages may be installed."""
    return path.is_relative_to(_STANDARD_LIBRARY) and _INSTALLED.isdisjoint(path.parts)


_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_STANDARD_LIBRARY: Final = sysconfig.get_paths()["stdlib"]
