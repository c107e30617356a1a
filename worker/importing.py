"""Imports what settings name by ``MODULE:NAME``, and says where in the user's code that failed."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

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


def where(error: BaseException, *ours: str) -> str:
    """The innermost line of the user's code in the traceback, with a space before it; empty if there is none.

    :param ours: files or folders that are not the user's.
    """
    not_theirs = ("<", __file__, importlib.__file__, *ours)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(not_theirs)]
    return f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
