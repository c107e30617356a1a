"""Reads error messages of providers: makes them fit for the log, and classifies them."""

from __future__ import annotations

import re
from typing import Final

from legato.protocol.text import well_formed
from legato.worker.limits import MAX_REASON_CHARACTERS

_HIDDEN: Final = "[hidden]"

# A gateway may repeat the key that it refuses, or its beginning.
_SECRETS: Final = re.compile(
    r"(?i)\bbearer\s+\S+|\b(?:sk|pk|key|api[-_]?key)[-_][A-Za-z0-9_.*-]{6,}|\beyJ[A-Za-z0-9_.-]{10,}"
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")

# The API has one error type for all invalid requests; only the message says more.
_TOO_LONG: Final = re.compile(
    r"(?i)\b(?:prompt|input) is too long\b|\bexceeds?\b.{0,40}\bcontext (?:limit|window|length|size)\b"
    r"|\bmaximum context (?:limit|window|length|size)\b|\blonger than the maximum model length\b"
)


def said_by(body: object, *secrets: str) -> str:
    """The message in an error's JSON body, as one line without secrets; empty if there is none.

    The rest of the body is not logged: it may contain text of users.
    """
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return one_line(message, *secrets) if isinstance(message, str) else ""


def one_line(message: str, *secrets: str) -> str:
    """A message fit for the log: in one line, of bounded length, without secrets."""
    message = _UNPRINTABLE.sub(" ", well_formed(message[: 10 * MAX_REASON_CHARACTERS])).strip()
    for secret in filter(None, secrets):
        message = message.replace(secret, _HIDDEN)
    message = _SECRETS.sub(_HIDDEN, message)
    return message if len(message) <= MAX_REASON_CHARACTERS else f"{message[: MAX_REASON_CHARACTERS - 1]}…"


def is_too_long(said: str) -> bool:
    """Whether the request was refused because the conversation exceeds the context window."""
    return _TOO_LONG.search(said) is not None
