"""Values of users' code as JSON: whatever a tool or a handler has answered."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from legato.protocol.text import replace_lone_escapes


def encode_json(value: Any) -> bytes:
    """The value as JSON, with U+FFFD for each lone surrogate.

    :raises ValueError: it is no JSON. One line.
    """
    try:
        return _encode(value)
    except Exception as error:  # noqa: BLE001 - the value's own code may run
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said) from None


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        escaped = json.dumps(msgspec.to_builtins(value, str_keys=True))  # as the encoder, but in ASCII
        return msgspec.json.format(replace_lone_escapes(escaped.encode()), indent=-1)


def is_finite(value: Any) -> bool:
    """Whether no number in a value is infinite or NaN, which JSON does not have.

    Not recursive: the value may be nested as deeply as the encoder allows.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return False
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
    return True
