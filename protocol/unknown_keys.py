"""Finds the keys of a configuration file that no table has, at any depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class UnknownKey(NamedTuple):
    """A key that its table does not have.

    :ivar table: the table, such as ``apps[0].webhooks[1]``.
    :ivar known: the keys that it has.
    """

    table: str
    key: str
    known: tuple[str, ...]


def unknown_keys(value: Any, kind: Any, table: str) -> Iterator[UnknownKey]:
    """Every unknown key below ``value``, which is read as a ``kind``. What has another shape is skipped."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if isinstance(value, dict):
            yield from _of_struct(value, kind, table)
        return
    inner, origin = get_args(kind), get_origin(kind)
    if origin in (tuple, list) and isinstance(value, list):
        for index, each in enumerate(value):
            yield from unknown_keys(each, inner[0], f"{table}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for name, each in value.items():
            yield from unknown_keys(each, inner[1], f"{table}.{name}")


def _of_struct(value: dict[str, Any], kind: type[msgspec.Struct], table: str) -> Iterator[UnknownKey]:
    kinds = get_type_hints(kind)
    names = kind.__struct_fields__
    for key, each in value.items():
        if key in names:
            yield from unknown_keys(each, kinds[key], f"{table}.{key}")
        elif kind.__struct_config__.forbid_unknown_fields:
            yield UnknownKey(table, key, names)
