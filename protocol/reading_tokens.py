"""Short-lived tokens with which a page reads one reply, where it cannot send a header (``EventSource``).

A token is readable by all, and signed with the secret of the application. It ends up in the logs of proxies:
therefore it lives for minutes, and opens nothing but one reply for reading.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

import msgspec

from .signatures import sign
from .stream import UserId  # noqa: TC001 - msgspec reads the annotation


class ReadingToken(msgspec.Struct, frozen=True, array_like=True):
    """Lets the bearer read a message as the user, before ``until`` (Unix time in seconds)."""

    user_id: UserId
    message_id: str
    until: int

    def seal(self, secret: str) -> str:
        """The token as text, for a URL."""
        body = msgspec.json.encode(self).hex()
        return f"{body}.{_signature(secret, body)}"


def unseal(secret: str, text: str, message_id: str, now: float) -> ReadingToken | None:
    """The token in a text; None if it is not valid for this message now."""
    body, _, signature = text.partition(".")
    if not compare_digest(_signature(secret, body).encode(), signature.encode("utf-8", "replace")):
        return None
    try:
        token = _decoder.decode(bytes.fromhex(body))
    except ValueError:  # signed all the same: by another version
        return None
    return token if token.message_id == message_id and now < token.until else None


_decoder: Final = msgspec.json.Decoder(ReadingToken)


def _signature(secret: str, body: str) -> str:
    return sign(secret, f"legato reading token:{body}")
