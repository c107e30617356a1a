"""The application in the environment, merged into those of the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.apps import App
from legato.protocol.settings import SettingsError

from .foreign import settings as foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .foreign.settings import Foreign

APP_FIELDS: Final = ("id", "key", "secret")

_INDEX: Final = re.compile(r"apps\[(\d+)\]\.(.+)")


def merge(
    apps: tuple[App, ...], environ: Mapping[str, str], theirs: Foreign, sources: dict[str, str]
) -> tuple[App, ...]:
    """Merge the application in the environment into those of the file, and put it first.

    It overrides fields of the application with its id, or of the only one in the file. Otherwise it is an
    additional application.

    :param sources: where settings come from. Keys of ``apps[INDEX].`` become ``apps.ID.``.
    """
    for key in [*sources]:
        if match := _INDEX.fullmatch(key):
            sources[f"apps.{apps[int(match[1])].id}.{match[2]}"] = sources.pop(key)
    names = {field: f"LEGATO_APP_{field.upper()}" for field in APP_FIELDS}
    own = {field: text for field, name in names.items() if (text := environ.get(name))}
    values: dict[str, Any] = {**theirs.app, **own}
    if not values:
        return apps
    if values.keys().isdisjoint(APP_FIELDS) and len(apps) != 1:
        fields = ", ".join(f"apps.{field}" for field in values)
        raise SettingsError(
            f"environment: {', '.join(theirs.names)}: of which application? Set {fields} instead"
        )
    known = next((app for app in apps if app.id == values.get("id")), None)
    if known is None and "id" not in values and len(apps) == 1:
        known = apps[0]
    app = _converted((msgspec.to_builtins(known) if known is not None else {}) | values)
    for field in values:
        sources[f"apps.{app.id}.{field}"] = names[field] if field in own else foreign.names_of(field, theirs)
    return (app, *(other for other in apps if other is not known))


def _converted(values: Mapping[str, Any]) -> App:
    for field in APP_FIELDS:
        if field not in values:
            name = field.upper()
            raise SettingsError(
                f"environment: LEGATO_APP_{name} (or REVERB_APP_{name}) is missing; expected text"
            )
    try:
        return msgspec.convert(values, App)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        name = f"LEGATO_APP_{path.rstrip('`').upper()}" if path else "application"
        raise SettingsError(f"environment: {name}: {reason}") from error
