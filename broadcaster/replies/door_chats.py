"""Which reply is the newest of a chat, for clients that know the chat's id only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.broadcaster.door_limits import CHAT_SECONDS, READ_TO_END_SECONDS
from legato.broadcaster.redis_client import ask

if TYPE_CHECKING:
    from legato.protocol.redis.pipeline import Named
    from legato.protocol.stream import UserId


class DoorChats:
    """The newest replies of chats, and which of them a client has read to the end.

    Every method raises :class:`.bus.base.BusError` when Redis does not answer.
    """

    def __init__(self, redis: Named, app_id: str) -> None:
        self._redis = redis
        self._names = redis.names
        self._app_id = app_id

    async def remember(self, user_id: UserId, chat: str, message_id: str) -> None:
        """Note the newest reply of a chat."""
        key = self._names.door_chat_key(self._app_id, str(user_id), chat)
        await ask(self._redis.set(key, message_id, ex=CHAT_SECONDS))

    async def newest(self, user_id: UserId, chat: str) -> str | None:
        """The newest reply of a chat."""
        found = await ask(self._redis.get(self._names.door_chat_key(self._app_id, str(user_id), chat)))
        return None if found is None else str(found.decode())

    async def set_read(self, user_id: UserId, message_id: str) -> None:
        """Note that a client has read a reply to its end."""
        key = self._names.door_read_key(self._app_id, str(user_id), message_id)
        await ask(self._redis.set(key, "1", ex=READ_TO_END_SECONDS))

    async def is_read(self, user_id: UserId, message_id: str) -> bool:
        """Whether a client has read a reply to its end, of late."""
        return bool(
            await ask(self._redis.exists(self._names.door_read_key(self._app_id, str(user_id), message_id)))
        )
