"""Cursors of pages: where the next page begins, as text that nobody but this server need understand."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from legato.protocol.jobs import InvalidRequest

LONGEST: Final = 128
"""Characters of a cursor. None that this server makes is as long."""

Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class ConversationPlace(NamedTuple):
    """Below this conversation, in the order of their last use."""

    updated_at: Aware
    number: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class TurnPosition(NamedTuple):
    """Below this position of a conversation."""

    position: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


_conversations: Final = msgspec.json.Decoder(ConversationPlace)
_turns: Final = msgspec.json.Decoder(TurnPosition)


def encode(place: ConversationPlace | TurnPosition) -> str:
    """The cursor of a place."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def conversation_place(cursor: str | None) -> ConversationPlace | None:
    """The place of a cursor of conversations; None without one.

    :raises InvalidRequest: it is not one.
    """
    place: ConversationPlace | None = _decoded(_conversations, cursor)
    return place


def turn_position(cursor: str | None) -> TurnPosition | None:
    """The place of a cursor of turns; None without one.

    :raises InvalidRequest: it is not one.
    """
    place: TurnPosition | None = _decoded(_turns, cursor)
    return place


def _decoded(decoder: msgspec.json.Decoder[Any], cursor: str | None) -> Any:
    if cursor is None:
        return None
    try:
        return decoder.decode(urlsafe_b64decode(cursor[:LONGEST] + "=" * (-len(cursor) % 4)))
    except (ValueError, msgspec.MsgspecError):  # binascii.Error is a ValueError
        raise InvalidRequest("before", "Expected a cursor out of `next`") from None
