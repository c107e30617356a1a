"""Loads settings from TOML and the environment into one frozen struct.

Broadcaster and worker read the same file. Each uses its own tables and ignores the other's; an unknown table
or key is an error. Precedence: command line, ``LEGATO_TABLE_KEY``, an alias such as ``REVERB_APP_ID``, the
file, the default.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, get_origin, get_type_hints

import msgspec

from .nearest import hint, nearest
from .redaction import SecretUrl, text_of
from .unknown_keys import unknown_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TABLES: Final = frozenset(
    {
        "server",
        "metrics",
        "apps",
        "redis",
        "auth",
        "chat",
        "doors",
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

COMMAND_LINE: Final = "command line"
"""The source of a setting that is an option."""

NO_FILE: Final = "settings"
"""The source in errors if there is no file."""

Queue = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
"""A name of a job stream, shared by broadcaster and worker."""

Prefix = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{0,64}\Z")]
"""A prefix of Redis names. A brace would change the hash tag; ``*`` would be a pattern."""

Money = Annotated[float, msgspec.Meta(ge=0)]

T = TypeVar("T", bound=msgspec.Struct)


class SettingsError(ValueError):
    """An invalid setting. One line for the user: source, key, expected value."""


class Redis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[redis]``: ``url`` is a URL of :mod:`legato.protocol.redis_url`, or empty.

    :ivar prefix: prefix of every name in Redis, see :mod:`legato.protocol.names`.
    """

    url: SecretUrl = ""
    prefix: Prefix = ""

    def __repr__(self) -> str:
        """Without the password."""
        return text_of(self)


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: ``level`` is debug, info, warning or error.

    :ivar format: ``console``: lines for people; ``json``: one object a line.
    :ivar time: ``short``: the time of day; ``full``: also date and zone; ``auto``: short on a terminal.
    """

    level: str = "info"
    format: Literal["console", "json"] = "console"
    time: Literal["auto", "short", "full"] = "auto"


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cost of a model per million tokens, in any currency."""

    input: Money = 0
    output: Money = 0
    cache_read: Money = 0
    cache_write: Money = 0


def load(  # noqa: PLR0913 - all that settings come from, by name
    kind: type[T],
    *,
    path: str | None,
    read: Callable[[str], str],
    environ: Mapping[str, str],
    aliases: Mapping[str, str],
    overrides: Mapping[str, Any],
    sources: dict[str, str] | None = None,
) -> T:
    """Load a ``kind``, whose fields are tables: structs, or lists of structs.

    :param path: the configuration file, or None; ``read`` returns its text, or raises OSError
        or UnicodeDecodeError.
    :param aliases: environment name -> ``table.key``.
    :param overrides: ``table.key`` -> value from the command line; None means not given.
    :param sources: is filled with ``table.key``, in a list ``table[0].key``, -> the file, the variable or
        :data:`COMMAND_LINE`, for what is not the default.
    :raises SettingsError: a setting is unknown or invalid.
    """
    sources = {} if sources is None else sources
    tables = get_type_hints(kind)
    source = path or NO_FILE
    tree = _parse(_text(path, read), source, tables)
    _refuse_unknown_keys(tree, source, tables)
    sources |= dict.fromkeys(_keys(tree), source)
    for name, key, value in _environment(tables, environ, aliases):
        _put(tree, key, value)
        sources[key] = name
    for key, value in overrides.items():
        if value is not None:
            _put(tree, key, value)
            sources[key] = COMMAND_LINE
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
            raise SettingsError(f"{source}: {name}: no such table; {hint(name, sorted(TABLES))}")
    return {name: value for name, value in tree.items() if name in tables}


def _refuse_unknown_keys(tree: Mapping[str, Any], source: str, tables: Mapping[str, Any]) -> None:
    for name, value in tree.items():
        for table, key, known in unknown_keys(value, tables[name], name):
            raise SettingsError(f"{source}: {table}.{key}: no such setting; {hint(key, known)}")


def _environment(
    tables: Mapping[str, Any], environ: Mapping[str, str], aliases: Mapping[str, str]
) -> list[tuple[str, str, Any]]:
    """Variable, key and value of the settings in the environment.

    Aliases come first, so that ``LEGATO_`` names take precedence.
    """
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
        (name, key, from_text(name, environ[name], _field_type(tables, key)))
        for name, key in names.items()
        if environ.get(name)
    ]


def _refuse_unknown(prefix: str, known: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Refuse unknown ``LEGATO_`` names, so that a misspelt one is not ignored."""
    for name in environ:
        if name.startswith(prefix) and name not in known:
            meant = nearest(name.removeprefix(prefix), [each.removeprefix(prefix) for each in known])
            expected = f"did you mean {prefix}{meant}?" if meant else f"expected one of {', '.join(known)}"
            raise SettingsError(f"environment: {name}: no such setting; {expected}")


def _refuse_unknown_tables(environ: Mapping[str, str]) -> None:
    prefixes = tuple(f"{PREFIX}{table}_".upper() for table in TABLES - {"apps"})
    for name in environ:
        if name.startswith(PREFIX) and name not in OTHER_NAMES and not name.startswith(prefixes):
            expected = _meant(name) or "expected LEGATO_TABLE_KEY"
            raise SettingsError(f"environment: {name}: no such setting; {expected}")


def _meant(name: str) -> str:
    """The nearest name or beginning of a name; empty if none is near."""
    word = name.removeprefix(PREFIX)
    others = [other.removeprefix(PREFIX) for other in OTHER_NAMES - {SUPERVISOR_NAME}]
    if whole := nearest(word, others):
        return f"did you mean {PREFIX}{whole}?"
    table = nearest(word.partition("_")[0], TABLES - {"apps"})
    return f"did you mean {PREFIX}{table.upper()}_...?" if table else ""


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


def _keys(tree: Mapping[str, Any]) -> Iterator[str]:
    """The keys in a file, as ``table.key`` and ``table[0].key``."""
    for table, value in tree.items():
        sections = enumerate(value) if isinstance(value, list) else [("", value)]
        for index, section in sections:
            place = table if index == "" else f"{table}[{index}]"
            yield from (f"{place}.{key}" for key in section) if isinstance(section, dict) else ()


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    table, _, name = key.partition(".")
    section = tree.setdefault(table, {})
    if isinstance(section, dict):  # convert() reports anything else
        section[name] = value
