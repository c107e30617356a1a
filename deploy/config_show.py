"""``legato config show``: all settings as TOML, without secrets, each with its source as a comment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.redaction import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .config_loading import LoadedSettings

_WIDTH: Final = 48
"""Column of the sources."""


def text(every: Iterable[LoadedSettings]) -> str:
    """The settings of the programs; a table that they share appears once."""
    sections: dict[str, None] = {}
    for each in every:
        sections |= dict.fromkeys(_sections(each.settings, each.sources))
    return "\n".join(sections)


def _sections(settings: Any, sources: Mapping[str, str]) -> Iterator[str]:
    for table in settings.__struct_fields__:
        value = getattr(settings, table)
        if isinstance(value, msgspec.Struct):
            yield _section(f"[{table}]", value, table, sources)
        else:
            yield from (_section(f"[[{table}]]", one, f"{table}.{one.id}", sources) for one in value)


def _section(heading: str, value: msgspec.Struct, place: str, sources: Mapping[str, str]) -> str:
    lines = [heading]
    for key, each in shown(value, type(value)).items():
        line = f"{key} = {toml(each)}"
        lines.append(f"{line:<{_WIDTH}}  # {sources.get(f'{place}.{key}', 'default')}")
    return "\n".join([*lines, ""])


def toml(value: Any) -> str:
    """A value in one line of TOML. Its strings are those of JSON."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
