"""Types of a streamed reply: the events on its channel, the job, the chat request.

Event names and the fields of the first three are fixed, because stock front ends rely on them. ``data`` of
each event is a JSON string inside the frame, as for every Pusher event (protocol section 2).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from .channels import CHANNEL_NAME
from .messages import channel_event
from .text import decode_json

UserId = int | str

FAILED_TEXT: Final = "Response unavailable. Please try again."
"""The text for users when a reply fails, for any reason."""

End = Literal["complete", "failed", "cancelled"]
State = Literal["queued", "streaming", "complete", "failed", "cancelled"]
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


class _StreamEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    event: ClassVar[str]

    def frame(self, channel: str) -> bytes:
        """The Pusher message of this event, UTF-8 JSON."""
        return channel_event(self.event, channel, msgspec.json.encode(self).decode())


class Started(_StreamEvent, frozen=True):
    """The model has accepted the request; ``attempt`` counts from 1."""

    event = "stream.started"
    message_id: str
    attempt: int
    model: str


class TokenReceived(_StreamEvent, frozen=True):
    """One token. ``token_index`` counts from 0 without gaps over all attempts."""

    event = "token.received"
    user_id: UserId
    message_id: str
    token: str
    token_index: int


class _Frame(msgspec.Struct):
    data: str


class _Token(msgspec.Struct):
    token: str


_frame_decoder: Final = msgspec.json.Decoder(_Frame)
_token_decoder: Final = msgspec.json.Decoder(_Token)


def token_of(frame: bytes) -> str:
    """The text in a frame of :class:`TokenReceived`.

    :raises msgspec.DecodeError: it is not such a frame.
    """
    return _token_decoder.decode(_frame_decoder.decode(frame).data).token


class Completed(_StreamEvent, frozen=True):
    """The reply is complete and stored. ``total_tokens`` is the number of ``token.received`` events."""

    event = "stream.completed"
    user_id: UserId
    message_id: str
    total_tokens: int
    stop_reason: str | None = None
    usage: Usage | None = None


class Failed(_StreamEvent, frozen=True):
    """The reply failed. ``partial``: some text was sent. ``code`` is for programs."""

    event = "stream.failed"
    user_id: UserId
    message_id: str
    error: str
    partial: bool
    code: str


class Cancelled(_StreamEvent, frozen=True):
    """The user cancelled the reply after ``total_tokens``."""

    event = "stream.cancelled"
    message_id: str
    total_tokens: int


class Decision(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How a reply ends. Its JSON is the final marker in the log, so that any worker can finish the reply.

    :ivar stop_reason: as the model reported it; None if the model did not finish.
    :ivar code: for programs, with ``failed`` only.
    """

    stop_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    state: End = "complete"
    code: str = ""

    def unsaved(self) -> Decision:
        """The decision for turns that cannot be stored: a complete reply becomes a failed one."""
        if self.state != "complete":
            return self
        return msgspec.structs.replace(self, state="failed", code="internal")


def ending(
    decision: Decision, user_id: UserId, message_id: str, tokens: int
) -> Completed | Failed | Cancelled:
    """The terminal event of a message with this number of ``tokens``."""
    if decision.state == "complete":
        return Completed(user_id, message_id, tokens, decision.stop_reason, decision.usage)
    if decision.state == "failed":
        return Failed(user_id, message_id, FAILED_TEXT, tokens > 0, decision.code)
    return Cancelled(message_id, tokens)


class Snapshot(_StreamEvent, frozen=True):
    """The text so far, for a client that subscribes to a running reply."""

    event = "stream.snapshot"
    message_id: str
    text: str
    next_index: int
    status: State


MAX_TEXT: Final = 1_000_000
"""Characters of a message, and of a turn of its history. Settings of the broadcaster ask for less."""

MAX_TURNS: Final = 1000
"""Turns of a history."""

MAX_REQUEST_BYTES: Final = 8_388_608
"""Bytes of a chat request, which is parsed as a whole."""

MAX_JOB_BYTES: Final = MAX_REQUEST_BYTES + 1024
"""Bytes of a job. The job of a request is its texts, in JSON that is no longer, and ids of bounded length."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One earlier turn of the conversation."""

    role: Literal["user", "assistant"]
    content: Text


MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Use with ``fullmatch``."""

EXACT: Final = 2**53
"""The largest integer that is exact in every JSON reader (RFC 8259, section 6)."""

Id = Annotated[str, msgspec.Meta(pattern=rf"^{MESSAGE_ID.pattern}\Z")]
History = Annotated[tuple[Turn, ...], msgspec.Meta(max_length=MAX_TURNS)]


class ChatRequest(msgspec.Struct, frozen=True):
    """Body of ``POST /api/chat/send``. Unknown keys are ignored.

    The bounds are absolute ones, as those of a job; the broadcaster has narrower ones in its settings.
    With ``conversation_id`` the worker reads the history from the database, and ``history`` must be absent.
    """

    message: Text
    history: History = ()
    session_id: Id | None = None
    conversation_id: Id | None = None

    def __post_init__(self) -> None:
        if not self.message.strip():
            raise ValueError("Expected text that is not blank")


class Job(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job: one message to answer. Any program may add one to the job stream.

    ``queued_at`` is in milliseconds since the epoch.
    """

    message_id: Id
    app_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    user_id: (
        Annotated[int, msgspec.Meta(ge=-EXACT, le=EXACT)]
        | Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_\-=@,.;]{1,128}\Z")]
    )
    message: Text
    queued_at: Annotated[int, msgspec.Meta(ge=0, le=EXACT)]
    history: History = ()
    session_id: Id | None = None
    conversation_id: Id | None = None

    @property
    def channel(self) -> str:
        """The channel that carries the reply."""
        return chat_channel(self.user_id)


class InvalidRequest(ValueError):  # noqa: N818 - reads as what it is where it is caught
    """An invalid body. ``field`` is a dotted path, ``$`` for the whole body."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


_PATH: Final = re.compile(r"^(?P<reason>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_chat_decoder: Final = msgspec.json.Decoder(ChatRequest)
_job_decoder: Final = msgspec.json.Decoder(Job)
_encoder: Final = msgspec.json.Encoder()


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | str, limit: int) -> Any:
    if len(body) > limit:
        raise InvalidRequest("$", f"Expected at most {limit} bytes")
    try:
        return decode_json(decoder, body)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        path = (match["path"] or "") if match else ""
        reason = match["reason"] if match else str(error)
        missing = re.search(r"missing required field `(\w+)`", reason)
        whole = "$" if reason.startswith("Expected `object`") else "message"
        field = path.replace("[", ".").replace("]", "") or (missing[1] if missing else whole)
        raise InvalidRequest(field, reason) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest("$", "the body is not JSON") from error


def _refuse_two_histories(asked: ChatRequest | Job) -> None:
    if asked.conversation_id is not None and asked.history:
        raise InvalidRequest("history", "Expected none with a conversation_id, whose history is known")


def decode_chat_request(body: bytes) -> ChatRequest:
    """Parse the body of ``POST /api/chat/send``. Escapes of lone surrogates become U+FFFD.

    :raises InvalidRequest: it is not JSON, or a field is missing, of the wrong type, or over its limit; or it
       has both ``history`` and ``conversation_id``.
    """
    request: ChatRequest = _decode(_chat_decoder, body, MAX_REQUEST_BYTES)
    _refuse_two_histories(request)
    return request


def decode_job(text: bytes | str) -> Job:
    """Parse the value of :data:`legato.protocol.wire.JOB_FIELD`.

    :raises InvalidRequest: as :func:`decode_chat_request`.
    """
    job: Job = _decode(_job_decoder, text, MAX_JOB_BYTES)
    _refuse_two_histories(job)
    return job


def encode_job(job: Job) -> bytes:
    """Encode a job for :data:`legato.protocol.wire.JOB_FIELD`."""
    return _encoder.encode(job)
