"""Which settings are secret, and what may be shown of their values.

A secret is marked at its type: ``Annotated[str, hidden("all")]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

HIDDEN: Final = "***"
"""What stands for a secret."""

How = Literal["all", "credentials", "path", "values"]
"""``credentials``: of a URL, with its query; ``path``: of a URL, too; ``values``: of a dict."""


def hidden(how: How, **constraints: Any) -> msgspec.Meta:
    """Mark a type as secret; ``constraints`` are those of ``msgspec.Meta``."""
    return msgspec.Meta(extra={"hide": how}, **constraints)


SecretText = Annotated[str, hidden("all")]
SecretUrl = Annotated[str, hidden("credentials")]
SecretValues = Annotated[dict[str, str], hidden("values")]


def mark(kind: Any) -> How | None:
    """How values of a type are hidden; None if they are not secret themselves."""
    for meta in getattr(kind, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.extra and "hide" in meta.extra:
            how: How = meta.extra["hide"]
            return how
    return None


def shown(value: Any, kind: Any) -> Any:
    """The value of a setting as plain data, without secrets."""
    if how := mark(kind):
        return _HIDERS[how](value) if value else value
    if get_origin(kind) is Annotated:
        return shown(value, get_args(kind)[0])
    if isinstance(value, msgspec.Struct):
        kinds = get_type_hints(type(value), include_extras=True)
        return {name: shown(getattr(value, name), kinds[name]) for name in value.__struct_fields__}
    if isinstance(value, tuple) and get_args(kind):
        return [shown(each, get_args(kind)[0]) for each in value]
    if isinstance(value, dict) and get_args(kind):
        return {name: shown(each, get_args(kind)[1]) for name, each in value.items()}
    return value


def text_of(settings: msgspec.Struct) -> str:
    """The text that ``repr`` answers for settings, without secrets."""
    kind = type(settings)
    told = ", ".join(f"{name}={value!r}" for name, value in shown(settings, kind).items())
    return f"{kind.__name__}({told})"


def without_credentials(url: str) -> str:
    """A URL without user, password and query, which may contain a password."""
    scheme, found, rest = url.partition("://")
    if not found:
        return HIDDEN
    user, at, place = rest.rpartition("@")
    place, query, _ = place.partition("?")
    return f"{scheme}://{HIDDEN if user else ''}{at}{place}{f'?{HIDDEN}' if query else ''}"


def _without_path(url: str) -> str:
    scheme, found, rest = without_credentials(url).partition("://")
    host, slash, _ = rest.partition("/")
    return f"{scheme}{found}{host.partition('?')[0]}{slash}{HIDDEN if slash else ''}"


_HIDERS: Final[dict[How, Callable[[Any], Any]]] = {
    "all": lambda _: HIDDEN,
    "credentials": without_credentials,
    "path": _without_path,
    "values": lambda values: dict.fromkeys(values, HIDDEN),
}
