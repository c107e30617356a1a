"""Reads settings from the environment variables of Laravel Reverb and soketi (:mod:`.names`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

from legato.protocol import settings
from legato.protocol.apps import App
from legato.protocol.settings import SettingsError

from . import values
from .names import PREFIXES, RULES, Honoured, Ignored, UnsupportedSetting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger: Final = logging.getLogger("legato.settings")

ALIASES: Final = {
    name: rule.key
    for name, rule in RULES.items()
    if isinstance(rule, Honoured) and not rule.key.startswith("apps.")
}
"""Variables that set ``table.key``, except fields of an application."""

TIGHTEST: Final = frozenset({"activity_timeout"})
"""Fields of an application that two variables limit: the smaller value counts."""

_RATE_LIMIT: Final = "REVERB_APP_RATE_LIMITING_ENABLED"

_RATE: Final = (
    ("max_messages", "MAX_ATTEMPTS", "60"),
    ("max_messages_seconds", "DECAY_SECONDS", "60"),
    ("close_over_max_messages", "TERMINATE", "false"),
    ("close_over_max_messages", "TERMINATE_ON_LIMIT", "false"),
)


class Foreign(NamedTuple):
    """The settings in the variables of other products.

    :ivar environ: variables of :data:`ALIASES`, with converted values.
    :ivar app: fields of one application.
    :ivar names: the variables from which ``app`` comes.
    """

    environ: Mapping[str, str]
    app: Mapping[str, Any]
    names: tuple[str, ...]


def read(environ: Mapping[str, str]) -> Foreign:
    """Convert the variables that are set.

    :raises SettingsError: a variable cannot be honoured, and ignoring it would permit what it forbids.
    """
    texts = {name: text for name in RULES if (text := values.plain(environ.get(name, "")))}
    app: dict[str, Any] = {}
    tables: dict[str, str] = {}
    names: list[str] = []
    for name, text in texts.items():
        rule = RULES[name]
        if isinstance(rule, UnsupportedSetting) and rule.when(text):
            raise SettingsError(f"environment: {name}: cannot be honoured: {rule.instead}")
        if not isinstance(rule, Honoured) or not (ours := _read(name, rule, text)):
            continue
        table, _, field = rule.key.partition(".")
        if table == "apps":
            _put(app, field, _value(name, ours, field))
            names.append(name)
        else:
            tables[name] = ours
    limits = _rate_limit(texts)
    return Foreign(tables, app | limits, (*names, *([_RATE_LIMIT] if limits else [])))


def scales(environ: Mapping[str, str]) -> bool | None:
    """Whether Reverb would use Redis; None if the variable is not set."""
    text = values.plain(environ.get("REVERB_SCALING_ENABLED", ""))
    return values.is_on(text) if text else None


def tell(environ: Mapping[str, str]) -> dict[str, str]:
    """Log which variables are ignored, and which are unknown.

    :returns: the other variables, for child processes, which then do not log this again.
    """
    without_meaning, strange = ignored(environ), unknown(environ)
    if without_meaning:
        logger.info("environment: no effect here: %s", ", ".join(without_meaning))
    if strange:
        logger.warning("environment: ignored, since unknown: %s", ", ".join(strange))
    return {name: text for name, text in environ.items() if name not in {*without_meaning, *strange}}


def names_of(field: str, found: Foreign) -> str:
    """The variables from which a field of the application comes."""
    honoured = ((name, RULES.get(name)) for name in found.names)
    names = [name for name, rule in honoured if isinstance(rule, Honoured) and rule.key == f"apps.{field}"]
    return ", ".join(names or [_RATE_LIMIT])


def ignored(environ: Mapping[str, str]) -> list[str]:
    """Variables that are set and have no effect."""
    return [name for name, rule in RULES.items() if isinstance(rule, Ignored) and environ.get(name)]


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Variables with the prefix of these products that are unknown."""
    return sorted(name for name in environ if name.startswith(PREFIXES) and name not in RULES)


def _read(name: str, rule: Honoured, text: str) -> str:
    try:
        return rule.read(text)
    except ValueError as error:
        raise SettingsError(f"environment: {name}: {error}") from None


def _value(name: str, text: str, field: str) -> Any:
    return settings.from_text(name, text, get_type_hints(App, include_extras=True)[field])


def _put(app: dict[str, Any], field: str, value: Any) -> None:
    app[field] = min(app[field], value) if field in TIGHTEST and field in app else value


def _rate_limit(texts: Mapping[str, str]) -> dict[str, Any]:
    """Convert Reverb's rate limit of messages, if it is enabled."""
    if not values.is_on(texts.get(_RATE_LIMIT, "")):
        return {}
    found: dict[str, Any] = {}
    for field, ending, default in _RATE:
        for name in _names(ending):
            if name in texts:
                kind = Honoured("", values.flag if default == "false" else values.count)
                found[field] = _value(name, _read(name, kind, texts[name]), field)
        if field not in found:
            found[field] = _value("", default, field)
    return found


def _names(ending: str) -> Iterator[str]:
    yield f"REVERB_APP_RATE_LIMITING_{ending}"
    yield f"REVERB_APP_RATE_LIMIT_{ending}"
