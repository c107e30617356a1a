"""``NAME_FILE`` variables: the path of a file with the value of ``NAME``, as Docker's secrets are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from legato.protocol.settings import PREFIX, SettingsError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

ENDING: Final = "_FILE"

OTHER_NAMES: Final = ("ANTHROPIC_API_KEY", "DATABASE_URL", "REDIS_PASSWORD", "REDIS_URL", "REVERB_APP_SECRET")
"""Names besides ``LEGATO_TABLE_KEY`` that a file can set."""

MAX_BYTES: Final = 65_536


def apply(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Replace each ``NAME_FILE`` by ``NAME`` with the content of the file, without line breaks at its end.

    Child processes inherit the value, so that a supervisor reads the files once.

    :returns: ``NAME`` -> ``NAME_FILE`` of those that were set.
    :raises SettingsError: a file cannot be used, or ``NAME`` is set, too. The line repeats no content.
    """
    found = {}
    for variable in [*environ]:
        name = variable.removesuffix(ENDING)
        if name == variable or not (name.startswith(PREFIX) or name in OTHER_NAMES):
            continue
        if path := environ[variable]:
            if environ.get(name):
                raise SettingsError(f"environment: {name} and {variable} are both set; expected one of them")
            environ[name] = _content(variable, Path(path))
            found[name] = variable
        del environ[variable]
    return found


def _content(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"environment: {variable}: {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"environment: {variable}: {path} is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SettingsError(f"environment: {variable}: {path} is not text")
    if not text:
        raise SettingsError(f"environment: {variable}: {path} is empty")
    return text
