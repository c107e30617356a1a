"""One client's session as a pure state machine: what comes in, and the effects that go out.

Two rules on top of the tables:

1. A session is OPEN until it emits :class:`Close`; a CLOSED session has no effects.
2. A channel is the session's own from the :class:`Subscribe` effect on. Whoever runs the effects sends
   the reply when the channel delivers, and nothing of the channel before it (section 4.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from . import errors, messages
from .channels import SERVER_TO_USER, Channel, ChannelError
from .messages import ClientMessage, MessageError, SubscribeData, UnsubscribeData
from .signatures import channel_text, verify_channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from .apps import App
    from .errors import PusherError

ECHO_LIMIT: Final = 300
"""How many characters of a client's own text an error repeats."""


class Send(NamedTuple):
    """Write this message to the client."""

    payload: bytes


class Subscribe(NamedTuple):
    """Deliver the channel to the client, ``reply`` first. Idempotent."""

    channel: str
    reply: bytes


class Unsubscribe(NamedTuple):
    """Deliver the channel no longer."""

    channel: str


class Close(NamedTuple):
    """Send the error, then close with its code."""

    error: PusherError


Effect = Send | Subscribe | Unsubscribe | Close


class Session:
    """The server's side of one connection. Times are seconds on any one steady clock."""

    __slots__ = ("app", "channels", "closed", "last_seen", "pinged_at", "socket_id")

    def __init__(self, app: App, socket_id: str, now: float) -> None:
        self.app = app
        self.socket_id = socket_id
        self.channels: set[str] = set()
        self.last_seen = now
        self.pinged_at: float | None = None
        self.closed = False

    def greeting(self) -> Send:
        """The first message on the socket; nothing may go out before it (section 1.5)."""
        return Send(messages.connection_established(self.socket_id, self.app.activity_timeout))

    def seen(self, now: float) -> None:
        """Any frame arrived, control frames included (section 3.2)."""
        self.last_seen = now
        self.pinged_at = None

    def receive(self, text: bytes, now: float) -> list[Effect]:
        """One text frame from the client. Never raises: a bad message is answered (section 2)."""
        if self.closed:
            return []
        self.seen(now)
        try:
            message = messages.decode_message(text)
            handler = self._HANDLERS.get(message.event)
            if handler is None:
                return [self._unsupported(message)]
            return handler(self, message)
        except MessageError as error:
            return [Send(messages.error(str(error)[:ECHO_LIMIT]))]

    def check(self, now: float) -> list[Effect]:
        """Liveness: a silent client is pinged, and closed only if nothing comes back (section 3.2)."""
        if self.closed or now < self.deadline:
            return []
        if self.pinged_at is None:
            self.pinged_at = now
            return [Send(messages.PING)]
        return [self.close(errors.PONG_TIMEOUT)]

    @property
    def deadline(self) -> float:
        """When :meth:`check` has something to do unless a frame comes first."""
        if self.pinged_at is None:
            return self.last_seen + self.app.activity_timeout
        return self.pinged_at + self.app.pong_timeout

    def close(self, error: PusherError) -> Close:
        """Close for a reason of the server's."""
        self.closed = True
        return Close(error)

    def _ping(self, _message: ClientMessage) -> list[Effect]:
        return [Send(messages.PONG)]

    def _pong(self, _message: ClientMessage) -> list[Effect]:
        return []

    def _subscribe(self, message: ClientMessage) -> list[Effect]:
        data = messages.decode_data(message, SubscribeData)
        try:
            channel = self._authorize(data)
        except ChannelError as error:
            refusal = messages.subscription_error(
                data.channel[:ECHO_LIMIT], error.type, str(error), error.status
            )
            return [Send(refusal)]
        self.channels.add(channel.name)
        return [Subscribe(channel.name, messages.subscription_succeeded(channel.name))]

    def _authorize(self, data: SubscribeData) -> Channel:
        """The channel that ``data`` may subscribe.

        :raises ChannelError: a case of section 4.5.
        """
        if data.channel.startswith(SERVER_TO_USER):
            raise ChannelError("AuthError", "Not signed in as this user", 401)
        channel = Channel.parse(data.channel)
        if channel.presence or channel.cache:
            raise ChannelError("InvalidChannel", "This server does not serve presence and cache channels yet")
        limit = self.app.max_channels_per_connection
        if 0 < limit <= len(self.channels) and channel.name not in self.channels:
            raise ChannelError("LimitReached", f"The connection has {limit} channels already", 4100)
        if channel.private:
            self._verify(channel, data.auth or "", data.channel_data or None)
        return channel

    def _verify(self, channel: Channel, auth: str, channel_data: str | None) -> None:
        text = channel_text(self.socket_id, channel.name, channel_data)
        if not verify_channel(self.app.keys, auth, text):
            reason = f"Invalid signature: Expected HMAC SHA256 hex digest of {text[:ECHO_LIMIT]}"
            raise ChannelError("AuthError", f"{reason}, but got {auth[:ECHO_LIMIT]}", 401)

    def _unsubscribe(self, message: ClientMessage) -> list[Effect]:
        name = messages.decode_data(message, UnsubscribeData).channel
        if name not in self.channels:
            return []
        self.channels.remove(name)
        return [Unsubscribe(name)]

    def _unsupported(self, message: ClientMessage) -> Send:
        if message.event.startswith("client-"):
            text = (
                "To send client events, you must enable this feature in the Settings page of your dashboard."
            )
            channel = None if message.channel is None else message.channel[:ECHO_LIMIT]
            return Send(messages.error(text, channel=channel))
        return Send(messages.error(f"Unsupported event received on socket: {message.event[:ECHO_LIMIT]}"))

    _HANDLERS: ClassVar[dict[str, Callable[[Session, ClientMessage], list[Effect]]]] = {
        "pusher:ping": _ping,
        "pusher:pong": _pong,
        "pusher:subscribe": _subscribe,
        "pusher:unsubscribe": _unsubscribe,
    }
