"""Reads error messages of providers: makes them fit for the log, and classifies them."""

from __future__ import annotations

import re
from typing import Final

from legato.protocol.text import well_formed

MAX_REASON: Final = 300
"""Characters of a provider's message that are logged."""

_HIDDEN: Final = "[hidden]"

# A gateway may repeat the key that it refuses, or its beginning.
_SECRETS: Final = re.compile(
    r"(?i)\bbearer\s+\S+|\b(?:sk|pk|key|api[-_]?key)[-_][A-Za-z0-9_.*-]{6,}|\beyJ[A-Za-z0-9_.-]{10,}"
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")

# The API has one error type for all invalid requests; only the message says more.
_TOO_LONG: Final = re.compile(
    r"(?i)\b(?:prompt|input) is too long\b|\bexceeds?\b.{0,40}\bcontext (?:limit|window|length)\b"
    r"|\bmaximum context (?:limit|window|length)\b"
)


def said_by(body: object, api_key: str) -> str:
    """The message in an error's JSON body, as one line without secrets; empty if there is none.

    The rest of the body is not logged: it may contain text of users.
    """
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str):
        return ""
    message = _UNPRINTABLE.sub(" ", well_formed(message[: 10 * MAX_REASON])).strip()
    if api_key:
        message = message.replace(api_key, _HIDDEN)
    message = _SECRETS.sub(_HIDDEN, message)
    return message if len(message) <= MAX_REASON else f"{message[: MAX_REASON - 1]}…"


def is_too_long(said: str) -> bool:
    """Whether the request was refused because the conversation exceeds the context window."""
    return _TOO_LONG.search(said) is not None
