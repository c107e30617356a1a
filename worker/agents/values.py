"""Values of users' code as JSON: whatever a tool or a handler has answered."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from legato.protocol.text import replace_lone_escapes
from legato.worker.limits import HANDLER_MAX_ONCE_BYTES


def encode_json(value: Any) -> bytes:
    """The value as JSON, with U+FFFD for each lone surrogate.

    :raises ValueError: it is no JSON, such as one with an infinite number. One line.
    """
    try:
        return _encode(value)
    except Exception as error:  # noqa: BLE001 - the value's own code may run
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said) from None


def _encode(value: Any) -> bytes:
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        escaped = json.dumps(_finite(value))  # as the encoder, but in ASCII
        return msgspec.json.format(replace_lone_escapes(escaped.encode()), indent=-1)
    # The encoder writes null for what is not finite. What is longer than that is refused for its length.
    if b"null" in encoded and len(encoded) <= HANDLER_MAX_ONCE_BYTES:
        _finite(value)
    return encoded


def _finite(value: Any) -> Any:
    """The value in Python's own types."""
    plain = msgspec.to_builtins(value, str_keys=True)
    if not is_finite(plain):
        raise ValueError("JSON has no number for nan or inf")
    return plain


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
