"""Checks the JSON Schema of a tool: what a model's API would refuse is told at the start, not in each reply.

Type hints make correct schemas; mistakes come with ``Meta(extra_json_schema=...)``, with bounds that exclude
each other, and with defaults that JSON does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.worker.limits import TOOL_MAX_SCHEMA_BYTES

from .errors import AgentError
from .values import is_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def check(schema: Mapping[str, Any]) -> None:
    """Check a schema whose definitions are within it.

    :raises AgentError: it is too long, is no JSON, or has a keyword with a value that it cannot have.
    """
    try:
        length = len(msgspec.json.encode(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise AgentError(f"its schema is no JSON: {error}") from None
    if length > TOOL_MAX_SCHEMA_BYTES:
        raise AgentError(f"its schema has more than {TOOL_MAX_SCHEMA_BYTES} bytes")
    if not is_finite(schema):
        raise AgentError("its schema has a number that JSON does not have, such as a default of nan or inf")
    for one in _schemas(schema):
        _check_keywords(one)
        _check_bounds(one)
        reference = one.get("$ref")
        if reference is not None and not _is_found(schema, reference):
            raise AgentError(f"its schema refers to {reference!r}, which is not in it")


def _schemas(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema and those within it. What is no schema where one should be is left to the other checks."""
    waiting: list[Any] = [schema]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, Mapping):
            continue
        yield one
        waiting += (one[keyword] for keyword in _ONE_SCHEMA if keyword in one)
        for keyword in _SCHEMAS_BY_NAME:
            if isinstance(found := one.get(keyword), Mapping):
                waiting += found.values()
        for keyword in _LISTED_SCHEMAS:
            if isinstance(found := one.get(keyword), list | tuple):
                waiting += found


def _check_keywords(schema: Mapping[str, Any]) -> None:
    for keyword, value in schema.items():
        allowed = _KEYWORDS.get(keyword)
        if allowed is not None and not allowed[0](value):
            raise AgentError(f"its schema has {keyword} {str(value)[:50]!r}; expected {allowed[1]}")


def _check_bounds(schema: Mapping[str, Any]) -> None:
    for low, high, may_be_equal in _BOUNDS:
        least, most = schema.get(low), schema.get(high)
        if least is None or most is None or least < most or (may_be_equal and least == most):
            continue
        raise AgentError(f"its schema has {low} {least} and {high} {most}: no value fits")


def _is_found(schema: Mapping[str, Any], reference: str) -> bool:
    """Whether a reference within the schema leads anywhere (RFC 6901)."""
    if not reference.startswith("#"):
        return False
    found: Any = schema
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    return reference == "#" or reference.startswith("#/")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_schema(value: Any) -> bool:
    return isinstance(value, Mapping | bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(map(_is_text, value))


def _are_types(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return _is_list(names) and bool(names) and all(name in _TYPES for name in names)


def _are_schemas(value: Any) -> bool:
    return _is_list(value) and bool(value) and all(map(_is_schema, value))


def _are_named_schemas(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_schema, value.values()))


_TYPES: Final = ("string", "integer", "number", "boolean", "object", "array", "null")

_ONE_SCHEMA: Final = (
    *("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"),
    "unevaluatedProperties",
)
_SCHEMAS_BY_NAME: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED_SCHEMAS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_TEXTS: Final = ("title", "description", "pattern", "format", "$ref", "$comment", "contentEncoding")
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS: Final = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)

_KEYWORDS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "type": (_are_types, f"one or several of {', '.join(_TYPES)}"),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    "enum": (lambda value: _is_list(value) and bool(value), "a list of values"),
    "required": (_are_texts, "a list of names"),
    **dict.fromkeys(_TEXTS, (_is_text, "a text")),
    **dict.fromkeys(_NUMBERS, (_is_number, "a number")),
    **dict.fromkeys(_COUNTS, (_is_count, "a whole number of 0 or more")),
    **dict.fromkeys(_ONE_SCHEMA, (_is_schema, "a schema")),
    **dict.fromkeys(_LISTED_SCHEMAS, (_are_schemas, "a list of schemas")),
    **dict.fromkeys(_SCHEMAS_BY_NAME, (_are_named_schemas, "schemas by name")),
}
"""Keyword -> whether a value is one that it can have, and how that is told. Others may have any JSON."""

_BOUNDS: Final[Sequence[tuple[str, str, bool]]] = (
    ("minimum", "maximum", True),
    ("minimum", "exclusiveMaximum", False),
    ("exclusiveMinimum", "maximum", False),
    ("exclusiveMinimum", "exclusiveMaximum", False),
    ("minLength", "maxLength", True),
    ("minItems", "maxItems", True),
    ("minProperties", "maxProperties", True),
    ("minContains", "maxContains", True),
)
"""Keywords of a lower and of an upper bound, and whether the two may be equal."""
