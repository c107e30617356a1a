"""Messages of conversations whose reply has not ended, so that nothing of them is stored yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

import msgspec

from legato.broadcaster.database_limits import (
    MAX_OPEN_MESSAGES,
    OPEN_MESSAGES_AT_ONCE,
    OPEN_MESSAGES_BYTES,
)
from legato.broadcaster.redis_client import ask
from legato.protocol import stream
from legato.protocol.conversations import SentMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from legato.protocol.redis.pipeline import Named
    from legato.protocol.stream import State, UserId

_FIELDS: Final = ("conversation", "state", "sent")

_decoder: Final = msgspec.json.Decoder(SentMessage)


class OpenMessage(NamedTuple):
    """A message whose reply has not ended."""

    conversation_id: str
    message_id: str
    status: State
    sent: SentMessage


class OpenMessages:
    """The open messages of each user whose replies go to the user's own channel.

    Every method raises :class:`.bus.base.BusError` when Redis does not answer.
    """

    def __init__(self, redis: Named, app_id: str) -> None:
        self._redis = redis
        self._app_id = app_id

    async def ids(self, user_id: UserId, conversation_id: str) -> list[str]:
        """The open messages of a conversation."""
        ids = await self._all_ids(user_id)
        found = await self._fields(user_id, ids, "conversation")
        return [
            message_id
            for message_id, (conversation,) in zip(ids, found, strict=True)
            if conversation == conversation_id.encode()
        ]

    async def read(self, user_id: UserId, conversation_id: str | None = None) -> list[OpenMessage]:
        """The open messages of a conversation (None: of all), the one that was sent last first.

        Read them before the database: what is not open any more is stored.
        """
        messages: list[OpenMessage] = []
        size = 0
        for ids in _parts(await self._all_ids(user_id)):
            for message_id, fields in zip(ids, await self._fields(user_id, ids, *_FIELDS), strict=True):
                message = _open(message_id, *fields)
                if message is not None and conversation_id in (None, message.conversation_id):
                    messages.append(message)
                    size += len(fields[-1] or b"")
            if size > OPEN_MESSAGES_BYTES:
                break
        return sorted(messages, key=lambda message: message.sent.queued_at, reverse=True)

    async def _all_ids(self, user_id: UserId) -> list[str]:
        """What waits or runs on the user's channel, also jobs of other programs once they run."""
        key = (self._app_id, stream.chat_channel(user_id))
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.zrange(self._redis.names.open_key(*key), 0, MAX_OPEN_MESSAGES - 1, desc=True)
        pipeline.srandmember(self._redis.names.active_key(*key), MAX_OPEN_MESSAGES)
        waiting, running = await ask(pipeline.execute())
        return [message_id.decode() for message_id in dict.fromkeys([*waiting, *running])]

    async def _fields(self, user_id: UserId, ids: Sequence[str], *fields: str) -> list[list[bytes | None]]:
        """These fields of each message."""
        key = (self._app_id, stream.chat_channel(user_id))
        pipeline = self._redis.pipeline(transaction=False)
        for message_id in ids:
            pipeline.hmget(self._redis.names.message_key(*key, message_id), list(fields))
        return await ask(pipeline.execute()) if ids else []


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), OPEN_MESSAGES_AT_ONCE):
        yield ids[first : first + OPEN_MESSAGES_AT_ONCE]


def _open(
    message_id: str, conversation: bytes | None, state: bytes | None, sent: bytes | None
) -> OpenMessage | None:
    """The message with these fields; None if it has ended, or belongs to no conversation."""
    if conversation is None or state is None or sent is None or state.decode() in stream.ENDS:
        return None
    status = cast("State", state.decode())
    return OpenMessage(conversation.decode(), message_id, status, _decoder.decode(sent))
