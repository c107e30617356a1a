"""Private files and directories of ``legato up``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UMASK: Final = 0o077

MARK: Final = ".gitignore"
IGNORE_ALL: Final = "*\n"
"""The first file of a data directory: excludes it from version control, and marks it as ours."""

_OURS: Final = (
    "jwt-secret*",
    "legato.db*",
    "valkey.*",
    "appendonlydir",
    "appendonlydir/*",
    "*.rdb",
    "*.aof",
    "*.log",
)
"""Files that earlier versions may have left readable."""


def directory(path: Path) -> None:
    """Create a private data directory. An existing one becomes private if it is ours alone.

    :raises OSError: it cannot be used.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = path / MARK
    ours = not any(path.iterdir()) or (mark.is_file() and mark.read_bytes() == IGNORE_ALL.encode())
    if not mark.exists():  # a directory with other files may belong to the user
        mark.write_text(IGNORE_ALL)
    for found in [*([path] if ours else []), *([mark] if ours else []), *_files(path)]:
        _tighten(found)


def _files(path: Path) -> Iterator[Path]:
    for pattern in _OURS:
        yield from path.glob(pattern)


def _tighten(path: Path) -> None:
    """Remove the permissions of group and others. Links and files of other owners stay unchanged."""
    try:
        found = path.lstat()
        shared = stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX
        if not shared and found.st_uid == os.geteuid() and found.st_mode & UMASK:
            path.chmod(stat.S_IMODE(found.st_mode) & ~UMASK)
    except FileNotFoundError:  # removed by another `legato up`
        return
