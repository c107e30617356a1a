"""Types of a streamed reply: the events on its channel, and who gets them.

Event names and the fields of the first three are fixed, because stock front ends rely on them. ``data`` of
each event is a JSON string inside the frame, as for every Pusher event (protocol section 2).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final, Literal

import msgspec

from .channels import CHANNEL_NAME
from .messages import channel_event

UserId = int | str

FAILED_TEXT: Final = "Response unavailable. Please try again."
"""The text for users when a reply fails, for any reason."""

End = Literal["complete", "failed", "cancelled"]
State = Literal["queued", "streaming", "waiting", "complete", "failed", "cancelled"]
ENDS: Final[frozenset[str]] = frozenset({"complete", "failed", "cancelled"})

_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,14}")  # exact in every JSON reader: below 2**53


def parse_user_id(sub: object) -> UserId:
    """The user id in a token's ``sub``: an integer if it looks like one, else the string.

    :raises ValueError: ``sub`` is neither an integer nor a string of 1 to 128 characters of a channel name.
       (It becomes part of ``private-ai-chat.{userId}``.)
    """
    text = str(sub) if isinstance(sub, int) and not isinstance(sub, bool) else sub
    if not isinstance(text, str) or not 1 <= len(text) <= 128 or not CHANNEL_NAME.fullmatch(text):
        raise ValueError("sub must be a number or a text of 1 to 128 characters out of A-Z a-z 0-9 _-=@,.;")
    return int(text) if _INTEGER.fullmatch(text) else text


def chat_channel(user_id: UserId) -> str:
    """The channel for the replies to a user."""
    return f"private-ai-chat.{user_id}"


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """Numbers of tokens as the provider counts them."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Begun(msgspec.Struct, frozen=True, omit_defaults=True):
    """When and how the model first accepted the request of a reply. Empty if that is not known.

    :ivar model: as the provider reports it.
    :ivar provider: as the worker's settings name it.
    :ivar at: Unix time in seconds.
    :ivar dialect: in whose words the reply is told on its channel; empty for our own.
    :ivar history_cut: see :class:`Started`.
    """

    model: str = ""
    provider: str = ""
    at: int = 0
    attempt: int = 1
    dialect: str = ""
    history_cut: bool = False


_begun_decoder: Final = msgspec.json.Decoder(Begun)


def decode_begun(value: bytes | None) -> Begun:
    """The value of the field ``begun`` of a message; an empty one if there is none, or an invalid one."""
    try:
        return _begun_decoder.decode(value or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Begun()


class StreamEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An event on a channel with replies. Its fields are the event's data."""

    event: ClassVar[str]

    def frame(self, channel: str) -> bytes:
        """The Pusher message of this event, UTF-8 JSON."""
        return channel_event(self.event, channel, msgspec.json.encode(self).decode())


class Queued(StreamEvent, frozen=True):
    """The message waits for its turn; ``position`` jobs are estimated to come before it."""

    event = "reply.queued"
    message_id: str
    position: int


class Started(StreamEvent, frozen=True):
    """The model has accepted the request; ``attempt`` counts from 1.

    :ivar history_cut: the model does not get all turns before the message, for they are too long.
    """

    event = "stream.started"
    message_id: str
    attempt: int
    model: str
    history_cut: bool = False


class TokenReceived(StreamEvent, frozen=True):
    """One token. ``token_index`` counts from 0 without gaps over all attempts.

    :ivar token_count: more than 1 for successive tokens in one, from ``token_index`` on (:mod:`.merging`).
    """

    event = "token.received"
    user_id: UserId
    message_id: str
    token: str
    token_index: int
    token_count: int = 1


class Completed(StreamEvent, frozen=True):
    """The reply is complete and stored. ``total_tokens`` is the number of ``token.received`` events."""

    event = "stream.completed"
    user_id: UserId
    message_id: str
    total_tokens: int
    stop_reason: str | None = None
    usage: Usage | None = None


class Failed(StreamEvent, frozen=True):
    """The reply failed. ``partial``: some text was sent. ``code`` is for programs."""

    event = "stream.failed"
    user_id: UserId
    message_id: str
    error: str
    partial: bool
    code: str


class Cancelled(StreamEvent, frozen=True):
    """The user cancelled the reply after ``total_tokens``."""

    event = "stream.cancelled"
    message_id: str
    total_tokens: int


class Decision(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How a reply ends. Its JSON is the final marker in the log, so that any worker can finish the reply.

    :ivar stop_reason: as the model reported it; None if the model did not finish.
    :ivar code: for programs, with ``failed`` only.
    :ivar tokens: the number of tokens; None if all entries of the log are tokens.
    """

    stop_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    state: End = "complete"
    code: str = ""
    tokens: int | None = None

    def unsaved(self) -> Decision:
        """The decision for turns that cannot be stored: a complete reply becomes a failed one."""
        if self.state != "complete":
            return self
        return msgspec.structs.replace(self, state="failed", code="internal")


def ending(
    decision: Decision, user_id: UserId, message_id: str, entries: int
) -> Completed | Failed | Cancelled:
    """The terminal event of a message with this number of ``entries`` in its log."""
    tokens = entries if decision.tokens is None else decision.tokens
    if decision.state == "complete":
        return Completed(user_id, message_id, tokens, decision.stop_reason, decision.usage)
    if decision.state == "failed":
        return Failed(user_id, message_id, FAILED_TEXT, tokens > 0, decision.code)
    return Cancelled(message_id, tokens)


class Snapshot(StreamEvent, frozen=True):
    """The reply so far, for a client that subscribes while it runs.

    :ivar offset: the number of entries of the log that it covers; None in a reply of nothing but text, where
        it is ``next_index``.
    :ivar parts: the other parts, in order, each with the data of its event and the event's name as ``event``.
        Successive pieces of reasoning or of one input are joined. Absent in a reply of nothing but text.
    """

    event = "stream.snapshot"
    message_id: str
    text: str
    next_index: int
    status: State
    offset: int | None = None
    parts: tuple[dict[str, Any], ...] = ()
