"""The session of one client: a pure state machine from messages to effects.

Two rules on top of the tables:

1. A session is OPEN until it emits :class:`Close`; a CLOSED session has no effects.
2. The session has a channel from the :class:`Subscribe` effect on. The caller, who carries out the effects,
  sends the reply once the channel delivers, and nothing of the channel before it (section 4.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from . import errors, messages, presence, refusals, users
from .channels import LONGEST_NAME, SERVER_TO_USER, Channel, ChannelError
from .messages import ClientMessage, MessageError, SigninData, SubscribeData, UnsubscribeData
from .signatures import channel_text, user_text, verify_channel, why_refused
from .token_bucket import TokenBucket
from .users import User, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .apps import App
    from .errors import PusherError
    from .presence import Member
    from .refusals import Refusal

ECHO_LIMIT: Final = 300
"""Largest number of characters of a client's text that an error repeats."""


MERGE_TOKENS: Final = "legato:merge_tokens"
"""Message by which a client asks for merged tokens on its ``channel`` (:mod:`.merging`).

An extension, for clients that cannot add a field to ``pusher:subscribe``. Other servers ignore or refuse it.
"""

MERGING_CHANNELS: Final = 64
"""Most channels of one connection with merged tokens. Further requests have no effect."""

CLIENT_EVENT: Final = "client-"
SHORTEST_CLIENT_EVENT: Final = len(CLIENT_EVENT) + 1
CLIENT_EVENTS_OFF: Final = (
    "To send client events, you must enable this feature in the Settings page of your dashboard."
)


class Send(NamedTuple):
    """Write this message to the client."""

    payload: bytes


class Refuse(NamedTuple):
    """Answer with ``payload``, and take note of the refusal.

    :ivar detail: what the table of refusals does not say. Never what the client has signed, or a signature.
    """

    payload: bytes
    refusal: Refusal
    channel: str = ""
    detail: str = ""


class Subscribe(NamedTuple):
    """Deliver the channel to the client, the reply first (section 4.4). Idempotent.

    ``member`` is the joining member, on presence channels only. ``first`` is false if the session already has
    the channel.
    """

    channel: Channel
    member: Member | None = None
    first: bool = True


class Unsubscribe(NamedTuple):
    """Stop delivering the channel to the client."""

    channel: str


class Relay(NamedTuple):
    """Send a client event to all other subscribers (section 6). ``data`` is its JSON, or empty."""

    channel: str
    event: str
    data: bytes
    user_id: str | None


class SignIn(NamedTuple):
    """Sign the client in as this user. Send ``reply`` first."""

    user: User
    reply: bytes


class ShortenBuffers(NamedTuple):
    """Let little wait outside of the client's queue: only there are tokens merged. Idempotent."""


class Close(NamedTuple):
    """Send the error, then close with its code."""

    error: PusherError


Effect = Send | Refuse | Subscribe | Unsubscribe | Relay | SignIn | ShortenBuffers | Close


def _bad_message(reason: str) -> Refuse:
    reason = reason[:ECHO_LIMIT]
    return Refuse(messages.error(reason), refusals.BAD_MESSAGE, detail=reason)


class Session:
    """The server's side of one connection. Times are in seconds of any monotonic clock.

    :ivar opened: when the connection was admitted.
    :ivar merging: the channels on which the client takes merged tokens. Replaced when it changes.
    """

    __slots__ = (
        "_bucket",
        "_messages",
        "app",
        "channels",
        "closed",
        "last_seen",
        "merging",
        "opened",
        "pinged_at",
        "socket_id",
        "user",
    )

    def __init__(self, app: App, socket_id: str, now: float) -> None:
        self.app = app
        self.socket_id = socket_id
        self.channels: dict[str, Member | None] = {}
        self.merging: frozenset[str] = frozenset()
        self.user: User | None = None
        self.opened = now
        self._bucket: TokenBucket | None = None
        self._messages: TokenBucket | None = None
        self.last_seen = now
        self.pinged_at: float | None = None
        self.closed = False

    def greeting(self) -> Send:
        """The first message on the socket; nothing may be sent before it (section 1.5)."""
        return Send(messages.connection_established(self.socket_id, self.app.activity_timeout))

    def seen(self, now: float) -> None:
        """Record that a frame arrived, control frames included (section 3.2)."""
        self.last_seen = now
        self.pinged_at = None

    def receive(self, text: bytes, now: float) -> list[Effect]:
        """Process one text frame. Never raises: an invalid message is answered with an error (section 2)."""
        if self.closed:
            return []
        self.seen(now)
        if self.app.max_messages and not self._within_rate(now):
            return [self._over_rate()]
        try:
            message = messages.decode_message(text)
            handler = self._HANDLERS.get(message.event)
            if handler is not None:
                return handler(self, message)
            if message.event.startswith(CLIENT_EVENT):
                return [self._client_event(message, now)]
            return [_bad_message(f"Unsupported event received on socket: {message.event}")]
        except MessageError as error:
            return [_bad_message(str(error))]

    def _within_rate(self, now: float) -> bool:
        """Whether one more message is within ``max_messages``."""
        app = self.app
        if self._messages is None:
            self._messages = TokenBucket(app.max_messages / app.max_messages_seconds, now, app.max_messages)
        return self._messages.take(now)

    def _over_rate(self) -> Effect:
        if self.app.close_over_max_messages:
            return self.close(errors.TOO_MANY_MESSAGES)
        payload = messages.error(errors.MESSAGE_RATE, errors.OVER_LIMIT)
        return Refuse(payload, refusals.MESSAGE_RATE)

    def check(self, now: float) -> list[Effect]:
        """Ping a silent client, and close it if it does not answer (section 3.2).

        Also closes a client that has not authorised in time, if the application requires it (section 7.3).
        """
        if self.closed:
            return []
        if self._unauthorized and now >= self.opened + self.app.authorized_seconds:
            return [self.close(errors.NOT_AUTHORIZED)]
        if now < self._silence_deadline:
            return []
        if self.pinged_at is None:
            self.pinged_at = now
            return [Send(messages.PING)]
        return [self.close(errors.PONG_TIMEOUT)]

    @property
    def deadline(self) -> float:
        """When to call :meth:`check`, unless a frame arrives first."""
        if self._unauthorized:
            return min(self._silence_deadline, self.opened + self.app.authorized_seconds)
        return self._silence_deadline

    @property
    def _silence_deadline(self) -> float:
        if self.pinged_at is None:
            return self.last_seen + self.app.activity_timeout
        return self.pinged_at + self.app.pong_timeout

    @property
    def _unauthorized(self) -> bool:
        if not self.app.authorized_seconds or self.user is not None:
            return False
        return not any(Channel.parse(name, LONGEST_NAME).private for name in self.channels)

    def close(self, error: PusherError) -> Close:
        """Close the session for a reason of the server."""
        self.closed = True
        return Close(error)

    def _ping(self, _message: ClientMessage) -> list[Effect]:
        return [Send(messages.PONG)]

    def _pong(self, _message: ClientMessage) -> list[Effect]:
        return []

    def _subscribe(self, message: ClientMessage) -> list[Effect]:
        data = messages.decode_data(message, SubscribeData)
        try:
            if data.channel.startswith(SERVER_TO_USER):
                return [self._subscribe_to_user(data.channel)]
            channel, member = self._authorize(data)
        except ChannelError as error:
            name = data.channel[:ECHO_LIMIT]
            payload = messages.subscription_error(name, error.type, str(error), error.status)
            return [Refuse(payload, error.refusal, name, error.detail)]
        first = channel.name not in self.channels
        if first:
            self.channels[channel.name] = member
        merging = self._merge(channel.name) if data.merge_tokens is True else ()
        return [*merging, Subscribe(channel, self.channels[channel.name], first)]

    def _subscribe_to_user(self, name: str) -> Send:
        """Answer without subscribing: the sign-in already delivers the user's events (section 7.2)."""
        if self.user is None or name != users.user_channel(self.user.id):
            raise ChannelError("AuthError", "Not signed in as this user", 401, refusals.NOT_SIGNED_IN)
        return Send(messages.subscription_succeeded(name))

    def _authorize(self, data: SubscribeData) -> tuple[Channel, Member | None]:
        """The channel to which ``data`` may subscribe, and the member.

        :raises ChannelError: a case of section 4.5.
        """
        channel = Channel.parse(data.channel, self.app.max_channel_name_length)
        limit = self.app.max_channels_per_connection
        if 0 < limit <= len(self.channels) and channel.name not in self.channels:
            reason, code = f"The connection has {limit} channels already", errors.OVER_CAPACITY.code
            raise ChannelError("LimitReached", reason, code, refusals.TOO_MANY_CHANNELS)
        channel_data = data.channel_data or None
        if channel.private:
            self._verify(channel, data.auth or "", channel_data)
        return channel, self._member(channel_data) if channel.presence else None

    def _verify(self, channel: Channel, auth: str, channel_data: str | None) -> None:
        text = channel_text(self.socket_id, channel.name, channel_data)
        if not verify_channel(self.app.keys, auth, text):
            reason = f"Invalid signature: Expected HMAC SHA256 hex digest of {text[:ECHO_LIMIT]}"
            reason = f"{reason}, but got {auth[:ECHO_LIMIT]}"
            detail = why_refused(self.app.keys, auth)
            raise ChannelError("AuthError", reason, 401, refusals.BAD_CHANNEL_SIGNATURE, detail)

    def _member(self, channel_data: str | None) -> Member:
        if channel_data is not None:
            return presence.parse_member(channel_data, self.app.max_user_info_bytes)
        if self.user is None:
            reason = "A presence channel needs channel_data or a signed-in user"
            raise ChannelError("AuthError", reason, 401, refusals.NOT_SIGNED_IN)
        return self.user.member()

    def _unsubscribe(self, message: ClientMessage) -> list[Effect]:
        name = messages.decode_data(message, UnsubscribeData).channel
        if name not in self.channels:
            return []
        del self.channels[name]
        self._unmerge(name)
        return [Unsubscribe(name)]

    def _merge_tokens(self, message: ClientMessage) -> list[Effect]:
        name = message.channel or ""
        if name not in self.channels:
            reason = "Merged tokens need a subscription to their channel"
            name = name[:ECHO_LIMIT]
            return [Refuse(messages.error(reason, channel=name), refusals.BAD_MESSAGE, name, reason)]
        return list(self._merge(name))

    def _merge(self, name: str) -> Sequence[Effect]:
        if len(self.merging) == MERGING_CHANNELS:
            return ()
        begins, self.merging = not self.merging, self.merging | {name}
        return (ShortenBuffers(),) if begins else ()

    def _unmerge(self, name: str) -> None:
        if name in self.merging:
            self.merging -= {name}

    def dropped(self, channel: str, member: Member | None) -> None:
        """Undo a :class:`Subscribe` that the caller could not carry out.

        ``member`` is that of the effect. If it differs from the session's, the client has subscribed again.
        """
        if self.channels.get(channel) is member:
            self.channels.pop(channel, None)
            self._unmerge(channel)

    def _client_event(self, message: ClientMessage, now: float) -> Effect:
        """Apply the rules of section 6 in order. No violation closes the connection."""
        name, data = message.channel or "", bytes(message.data)
        checks = (
            (not self.app.client_events, CLIENT_EVENTS_OFF),
            (
                not SHORTEST_CLIENT_EVENT <= len(message.event) <= self.app.max_event_name_length,
                "Invalid event name",
            ),
            (
                not name.startswith(("private-", "presence-")),
                "Client events need a private or presence channel",
            ),
            (name not in self.channels, "Client events need a subscription to their channel"),
            (
                len(data) > self.app.max_event_bytes,
                f"The data is larger than {self.app.max_event_bytes} bytes",
            ),
        )
        for wrong, reason in checks:
            if wrong:
                name = name[:ECHO_LIMIT]
                return Refuse(messages.error(reason, channel=name), refusals.BAD_CLIENT_EVENT, name, reason)
        if self._bucket is None:
            self._bucket = TokenBucket(self.app.client_events_per_second, now)
        if not self._bucket.take(now):
            payload = messages.error(errors.CLIENT_EVENT_RATE, errors.OVER_LIMIT, name)
            return Refuse(payload, refusals.CLIENT_EVENT_RATE, name)
        member = self.channels[name]
        return Relay(name, message.event, data, None if member is None else member.id)

    def _signin(self, message: ClientMessage) -> list[Effect]:
        data = messages.decode_data(message, SigninData)
        try:
            user = self._authenticate(data)
        except UserError as error:
            payload = messages.error(str(error), errors.UNAUTHORIZED.code)
            return [Refuse(payload, refusals.BAD_SIGN_IN, detail=str(error))]
        reply = users.signin_success(data.user_data or "")
        if self.user is not None:
            return [Send(reply)]
        self.user = user
        cut = [Send(messages.error(errors.WATCHLIST_LIMIT, errors.WATCHLIST_CUT))] if user.cut else []
        return [SignIn(user, reply), *cut]

    def _authenticate(self, data: SigninData) -> User:
        """Verify a sign-in and return the user.

        :raises UserError: the signature or the data is wrong, or the session is another user's.
        """
        user_data = data.user_data or ""
        if not verify_channel(self.app.keys, data.auth or "", user_text(self.socket_id, user_data)):
            raise UserError("Invalid signature of the user_data")
        user = users.parse_user(user_data, self.app.max_user_info_bytes)
        if self.user is not None and self.user.id != user.id:
            raise UserError("Already signed in as another user")
        return user

    _HANDLERS: ClassVar[dict[str, Callable[[Session, ClientMessage], list[Effect]]]] = {
        "pusher:ping": _ping,
        "pusher:pong": _pong,
        "pusher:subscribe": _subscribe,
        "pusher:unsubscribe": _unsubscribe,
        "pusher:signin": _signin,
        MERGE_TOKENS: _merge_tokens,
    }
