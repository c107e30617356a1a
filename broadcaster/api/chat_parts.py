"""Wires what the endpoints of the chat use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.broadcaster.bus.best_effort import BestEffort
from legato.broadcaster.doors.kit import DoorParts
from legato.broadcaster.doors.reader import LogReaders

from .conversations import ChatParts
from .live import UserEvents

if TYPE_CHECKING:
    from legato.broadcaster.background import Background
    from legato.broadcaster.bus.base import Bus
    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.conversations.archive import Conversations
    from legato.broadcaster.doors.answers import OpenAnswers
    from legato.broadcaster.replies.store import Replies


def chat_parts(
    replies: Replies | None,
    conversations: Conversations | None,
    bus: Bus,
    hub: Hub,
    background: Background,
    answers: OpenAnswers,
) -> ChatParts:
    """Make the parts of the chat.

    :param replies: None when chat is off.
    """
    if replies is None:
        return ChatParts(None, conversations, None)
    events = UserEvents(replies.app_id, BestEffort(bus, background.spawn).post)
    doors = DoorParts(LogReaders(replies, hub), answers, background.spawn, background.spawn_later)
    return ChatParts(replies, conversations, events, doors)
