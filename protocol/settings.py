"""Loads settings from TOML and the environment into one frozen struct.

Broadcaster and worker read the same file. Each uses its own tables and ignores the other's; an unknown table
or key is an error. Precedence: command line, ``LEGATO_TABLE_KEY``, an alias such as ``REVERB_APP_ID``, the
file, the default.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_origin, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TABLES: Final = frozenset(
    {
        "server",
        "metrics",
        "apps",
        "redis",
        "auth",
        "chat",
        "dev",
        "app_source",
        "worker",
        "provider",
        "database",
        "log",
    }
)
"""Every table of a configuration file, of either program."""

PREFIX: Final = "LEGATO_"

SUPERVISOR_NAME: Final = "LEGATO_SUPERVISOR"
"""The variable with which a supervisor passes its id to its processes."""

OTHER_NAMES: Final = frozenset(
    {"LEGATO_DATA", "LEGATO_APP_ID", "LEGATO_APP_KEY", "LEGATO_APP_SECRET", SUPERVISOR_NAME}
)
"""``LEGATO_`` names that are not ``LEGATO_TABLE_KEY``."""

NO_FILE: Final = "settings"
"""The source in errors if there is no file."""

Queue = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
"""A name of a job stream, shared by broadcaster and worker."""

Prefix = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{0,64}\Z")]
"""A prefix of Redis names. A brace would change the hash tag; ``*`` would be a pattern."""

T = TypeVar("T", bound=msgspec.Struct)


class SettingsError(ValueError):
    """An invalid setting. One line for the user: source, key, expected value."""


class Redis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[redis]``: ``url`` is a URL of :mod:`legato.protocol.redis_url`, or empty.

    :ivar prefix: prefix of every name in Redis, see :mod:`legato.protocol.names`.
    """

    url: str = ""
    prefix: Prefix = ""


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: ``level`` is debug, info, warning or error."""

    level: str = "info"


def load(
    kind: type[T],
    *,
    path: str | None,
    read: Callable[[str], str],
    environ: Mapping[str, str],
    aliases: Mapping[str, str],
    overrides: Mapping[str, Any],
) -> T:
    """Load a ``kind``, whose fields are tables: structs, or lists of structs.

    :param path: the configuration file, or None; ``read`` returns its text, or raises OSError
        or UnicodeDecodeError.
    :param aliases: environment name -> ``table.key``.
    :param overrides: ``table.key`` -> value from the command line; None means not given.
    :raises SettingsError: a setting is unknown or invalid.
    """
    tables = get_type_hints(kind)
    source = path or NO_FILE
    tree = _parse(_text(path, read), source, tables)
    for key, value in _environment(tables, environ, aliases):
        _put(tree, key, value)
    for key, value in overrides.items():
        if value is not None:
            _put(tree, key, value)
    try:
        return msgspec.convert(tree, kind, str_keys=True)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        raise SettingsError(f"{source}: {path.rstrip('`') or 'file'}: {reason}") from error


def _text(path: str | None, read: Callable[[str], str]) -> str:
    if path is None:
        return ""
    try:
        return read(path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text") from error


def _parse(text: str, source: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{source}: not valid TOML: {error}") from error
    for name in tree:
        if name not in TABLES:
            known = ", ".join(sorted(TABLES))
            raise SettingsError(f"{source}: {name}: no such table; expected one of {known}")
    return {name: value for name, value in tree.items() if name in tables}


def _environment(
    tables: Mapping[str, Any], environ: Mapping[str, str], aliases: Mapping[str, str]
) -> list[tuple[str, Any]]:
    """The settings in the environment, aliases first, so that ``LEGATO_`` names take precedence."""
    _refuse_unknown_tables(environ)
    names = dict(aliases)
    for table, kind in tables.items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            own = {
                f"{PREFIX}{table}_{field.name}".upper(): f"{table}.{field.name}"
                for field in msgspec.structs.fields(kind)
            }
            _refuse_unknown(f"{PREFIX}{table}_".upper(), own, environ)
            names |= own
    return [
        (key, from_text(name, environ[name], _field_type(tables, key)))
        for name, key in names.items()
        if environ.get(name)
    ]


def _refuse_unknown(prefix: str, known: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Refuse unknown ``LEGATO_`` names, so that a misspelt one is not ignored."""
    for name in environ:
        if name.startswith(prefix) and name not in known:
            raise SettingsError(f"environment: {name}: no such setting; expected one of {', '.join(known)}")


def _refuse_unknown_tables(environ: Mapping[str, str]) -> None:
    prefixes = tuple(f"{PREFIX}{table}_".upper() for table in TABLES - {"apps"})
    for name in environ:
        if name.startswith(PREFIX) and name not in OTHER_NAMES and not name.startswith(prefixes):
            raise SettingsError(f"environment: {name}: no such setting; expected LEGATO_TABLE_KEY")


def _field_type(tables: Mapping[str, Any], key: str) -> Any:
    table, _, name = key.partition(".")
    return get_type_hints(tables[table], include_extras=True)[name]


def from_text(name: str, text: str, kind: Any) -> Any:
    """Convert the text of an environment variable to a type; lists are separated by commas.

    :raises SettingsError: it does not fit. The line names the variable.
    """
    value: Any = text
    if get_origin(kind) in (list, tuple):
        value = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.to_builtins(msgspec.convert(value, kind, strict=False))
    except msgspec.ValidationError as error:
        raise SettingsError(f"environment: {name}: {error}") from error


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    table, _, name = key.partition(".")
    section = tree.setdefault(table, {})
    if isinstance(section, dict):  # convert() reports anything else
        section[name] = value
