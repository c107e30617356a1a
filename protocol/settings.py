"""From TOML text and an environment to one frozen struct of settings, or one line that says what is wrong.

Broadcaster and worker read the same file: each takes its own tables and leaves the other's alone, but a
table that neither knows is an error, as is an unknown key. Precedence: command line, ``LEGATO_TABLE_KEY``,
an alias such as ``REVERB_APP_ID``, the file, the default.
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
"""Every table that a configuration file may have, whoever reads it."""

PREFIX: Final = "LEGATO_"

SUPERVISOR_NAME: Final = "LEGATO_SUPERVISOR"
"""Where a supervisor gives the processes that it starts its id."""

OTHER_NAMES: Final = frozenset(
    {"LEGATO_DATA", "LEGATO_APP_ID", "LEGATO_APP_KEY", "LEGATO_APP_SECRET", SUPERVISOR_NAME}
)
"""``LEGATO_`` names that stand for no single key of a table."""

NO_FILE: Final = "settings"
"""What errors name as the source when there is no file."""

Queue = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
"""The name of a job stream, which broadcaster and worker have to agree on."""

Prefix = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{0,64}\Z")]
"""What may stand before every name in Redis. A brace would move the hash tag, ``*`` would be a pattern."""

T = TypeVar("T", bound=msgspec.Struct)


class SettingsError(ValueError):
    """One line for the user: source, key, what is expected."""


class Redis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[redis]``: ``url`` is an address as :mod:`legato.protocol.redis_url` knows them; empty for none.

    :ivar prefix: stands before every name in Redis, see :mod:`legato.protocol.names`.
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
    """Build a ``kind``, whose fields are tables: structs, or lists of structs.

    :param path: the configuration file, or None without one; ``read`` gives its text, or raises OSError
        or UnicodeDecodeError.
    :param aliases: environment name -> ``table.key``.
    :param overrides: ``table.key`` -> value from the command line; None means not given.
    :raises SettingsError: anything that does not fit.
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
    """Settings out of the environment, aliases first so that the ``LEGATO_`` name wins."""
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
    """A misspelt name would otherwise do nothing, silently."""
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
    """The value of a type that an environment variable says; lists are separated by commas.

    :raises SettingsError: it is none. The line names the variable.
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
    if isinstance(section, dict):  # anything else is a mistake in the file, which convert() names
        section[name] = value
