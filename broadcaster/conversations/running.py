"""Messages that wait or run, as the conversations and turns that they will become."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from legato.protocol.conversations import first_words
from legato.protocol.jobs import LAST_MS

from .records import ConversationRecord, TurnPage, TurnRecord, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from legato.broadcaster.replies.open_messages import OpenMessage


def turns(messages: Iterable[OpenMessage], last: str) -> list[TurnRecord]:
    """The turns of these messages, the last one first. The text of a reply is not here but on its channel.

    :param last: the message whose reply was stored last, which a message follows that does not say; or empty.
    """
    return [turn for message in messages for turn in _turns(message, last)]


def _turns(message: OpenMessage, last: str) -> list[TurnRecord]:
    sent, message_id, at = message.sent, message.message_id, _sent_at(message)
    if sent.regenerate:
        return [TurnRecord(message_id, "assistant", sent.parent_id or "", "", message.status, at)]
    before = last if sent.parent_id is None else sent.parent_id
    return [
        TurnRecord(message_id, "assistant", message_id, "", message.status, at),
        TurnRecord(message_id, "user", before, sent.text, "complete", at),
    ]


def conversations(messages: Sequence[OpenMessage]) -> dict[str, ConversationRecord]:
    """What the conversations of these messages are as long as nothing of them is stored, by their ids."""
    records: dict[str, ConversationRecord] = {}
    for message in reversed(messages):  # the oldest one first
        name, at = message.conversation_id, _sent_at(message)
        known = records.pop(name, None)
        if known is None:
            records[name] = ConversationRecord(name, first_words(message.sent.text) or None, at, at)
        else:
            records[name] = msgspec.structs.replace(known, updated_at=at)
    return dict(reversed(records.items()))


def page(messages: Sequence[OpenMessage]) -> TurnPage:
    """The only page of a conversation of which nothing is stored."""
    (record,) = conversations(messages).values()
    return TurnPage(record.id, record.title, record.created_at, record.updated_at, turns(messages, ""), None)


def found(messages: Iterable[OpenMessage], words: Iterable[str]) -> list[OpenMessage]:
    """The messages that have all these words."""
    folded = [word.casefold() for word in words]
    return [one for one in messages if all(word in one.sent.text.casefold() for word in folded)]


def _sent_at(message: OpenMessage) -> str:
    return told(datetime.fromtimestamp(min(message.sent.queued_at, LAST_MS) / 1000, UTC))
