"""Tells all pages of a user what one of them did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from legato.broadcaster.channels.subscriber import Key
from legato.protocol.channels import SOCKET_ID
from legato.protocol.jobs import InvalidRequest
from legato.protocol.stream import chat_channel
from legato.protocol.wire import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from legato.protocol.stream import StreamEvent, UserId

HEADER: Final = "X-Socket-ID"
"""As Laravel's ``toOthers`` reads it: the connection of the page that asks."""


class UserEvents:
    """Publishes events on the channel of a user. Best effort: who misses one reads the conversation again.

    :param app_id: the application of the chat.
    :param post: publishes without waiting.
    """

    def __init__(self, app_id: str, post: Callable[[Key, Envelope], None]) -> None:
        self._app_id = app_id
        self._post = post

    def tell(self, user_id: UserId, event: StreamEvent, except_socket_id: str | None) -> None:
        """Publish the event to all connections of the user but one."""
        channel = chat_channel(user_id)
        self._post(Key(self._app_id, channel), Envelope(event.frame(channel), except_socket_id))


def socket_id_of(request: Request) -> str | None:
    """The connection of the page that asks, if it says so.

    :raises InvalidRequest: it is not the id of a connection.
    """
    socket_id: str | None = request.headers.get(HEADER)
    if socket_id is not None and not SOCKET_ID.fullmatch(socket_id):
        raise InvalidRequest(HEADER, "Expected a socket id, such as 123.456")
    return socket_id
