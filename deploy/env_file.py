"""``--env-file``: adds the variables of a ``.env`` file to the environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.protocol import dotenv
from legato.protocol.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

MAX_BYTES: Final = 1_048_576

PREFIXES: Final = ("LEGATO_", "REVERB_", "SOKETI_", "REDIS_", "ANTHROPIC_", "PG")
NAMES: Final = ("DATABASE_URL",)
"""The names that are read from a file. The others concern the application, not our processes."""


def apply(path: str, environ: MutableMapping[str, str]) -> None:
    """Add the variables of a file to an environment, which takes precedence.

    :raises SettingsError: one line for the user, without any value.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{path}: is larger than {MAX_BYTES} bytes")
    if b"\0" in content:
        raise SettingsError(f"{path}: is not text")
    try:
        found = dotenv.parse(content.decode(errors="replace"), environ)
    except dotenv.DotenvError as error:
        raise SettingsError(f"{path}: {error}") from None
    for name, value in found.items():
        if name.startswith(PREFIXES) or name in NAMES:
            environ.setdefault(name, value)
