"""Decodes the JSON of a model's events, which may end in the middle of a character, and cleans it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from legato.protocol.text import well_formed
from legato.worker.limits import MAX_CONTENT_DEPTH

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """``decoder.decode(data)``, with half a surrogate pair kept: the next event may have the other half.

    :raises ValueError: it is invalid, nested too deeply, or of another type. msgspec's errors are among them.
    """
    try:
        try:
            return decoder.decode(data)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # msgspec refuses half a pair
            return msgspec.convert(json.loads(data), decoder.type)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def clean(value: Any, depth: int = 0) -> Any:
    """JSON with all text well-formed.

    :raises ValueError: it is nested deeper than other programs may read.
    """
    if isinstance(value, str):
        return well_formed(value)
    if not isinstance(value, dict | list):
        return value
    if depth == MAX_CONTENT_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    return {well_formed(key): clean(item, depth + 1) for key, item in value.items()}
