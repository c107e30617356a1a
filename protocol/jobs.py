"""The job of a reply, and the chat request of a browser that leads to one: their fields and bounds."""

from __future__ import annotations

import binascii
import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from .channels import CHANNEL_NAME, MAX_NAME, Channel, ChannelError
from .stream import chat_channel
from .text import decode_json

T = TypeVar("T")

MAX_TEXT: Final = 1_000_000
"""Characters of a message, and of a turn of its history. Settings of the broadcaster ask for less."""

MAX_TURNS: Final = 1000
"""Turns of a history."""

MAX_REQUEST_BYTES: Final = 8_388_608
"""Bytes of a chat request, which is parsed as a whole."""

MAX_REASON: Final = 300
"""Characters of the reason why a body is refused. It may quote the body."""

MAX_METADATA_BYTES: Final = 16_384
"""Bytes of ``metadata`` as JSON."""

MAX_METADATA_DEPTH: Final = 32
"""Objects and lists inside each other in ``metadata``."""

MAX_JOB_BYTES: Final = MAX_REQUEST_BYTES + MAX_METADATA_BYTES + 1024
"""Bytes of a job. The job of a request is its texts, in JSON that is no longer, ids of bounded length, and
``metadata``, whose numbers may become longer (``1E5``)."""

MAX_ATTACHMENTS: Final = 20
"""Attachments of a message."""

MAX_URL: Final = 2048
"""Characters of an attachment's URL."""

MAX_OUTPUT_TOKENS: Final = 1_000_000
"""The largest ``max_tokens`` and ``budget_tokens``."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
MaybeText = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One earlier turn of the conversation."""

    role: Literal["user", "assistant"]
    content: Text


MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Use with ``fullmatch``."""

EXACT: Final = 2**53
"""The largest integer that is exact in every JSON reader (RFC 8259, section 6)."""

LAST_MS: Final = 253_402_300_799_000
"""Milliseconds since the epoch, in the year 9999: the last that dates and databases can have. Other programs
may put a larger number into ``queued_at``."""

Id = Annotated[str, msgspec.Meta(pattern=rf"^{MESSAGE_ID.pattern}\Z")]
ParentId = Annotated[str, msgspec.Meta(pattern=rf"^({MESSAGE_ID.pattern})?\Z")]
"""A message id; empty: the beginning of the conversation."""

History = Annotated[tuple[Turn, ...], msgspec.Meta(max_length=MAX_TURNS)]


MediaType = Literal["image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf"]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_OUTPUT_TOKENS)]


Url = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^https?://[A-Za-z0-9\[][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*\Z", max_length=MAX_URL
    ),
]
"""An ``http`` or ``https`` URL in the characters of RFC 3986. They exclude the backslash, which some readers
take for a slash."""


class ThinkingBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Extended thinking with at most so many tokens."""

    budget_tokens: Tokens


class AttachedFile(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An image, or a document (a PDF), that belongs to the message: by ``url``, or as base64 in ``data``.

    :ivar media_type: needed with ``data``.
    """

    type: Literal["image", "document"]
    media_type: MediaType | None = None
    url: Url | None = None
    data: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    title: Annotated[str, msgspec.Meta(max_length=200)] = ""

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        if (self.url is None) == (self.data is None):
            raise ValueError("Expected either `url` or `data`")
        if self.media_type is None:
            if self.data is not None:
                raise ValueError("Expected `media_type` with `data`")
        elif (self.type == "image") != self.media_type.startswith("image/"):
            raise ValueError(f"Expected another `media_type` for type {self.type!r}, not {self.media_type!r}")
        if self.data is not None:
            _check_base64(self.data)

    @property
    def origin(self) -> str:
        """Scheme, host and port of ``url``, as they stand there; empty without one."""
        scheme, _, rest = (self.url or "").partition("://")
        return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}" if rest else ""

    @property
    def size(self) -> int:
        """Bytes of ``data`` when decoded."""
        data = self.data or ""
        return len(data) // 4 * 3 - data.count("=", -2)


def _check_base64(data: str) -> None:
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        raise ValueError("Expected `data` in base64 (RFC 4648, section 4) without white space") from None


class JobOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a message may ask for besides an answer to its text.

    :ivar thinking: True: as much as the model finds right; False: none, whatever the agent says.
    :ivar reply_channel: ``channel`` in JSON: where the reply goes instead of the user's own channel.
    :ivar metadata: for agents; it goes nowhere else.
    :ivar dialect: in whose words the reply is told on its channel, instead of our own
        (:mod:`.doors.laravel_ai`).
    """

    agent: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")] | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    system: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | None = None
    max_tokens: Tokens | None = None
    thinking: bool | ThinkingBudget | None = None
    reply_channel: str | None = msgspec.field(default=None, name="channel")
    metadata: dict[str, Any] = {}
    dialect: Literal["laravel-ai"] | None = None
    attachments: Annotated[tuple[AttachedFile, ...], msgspec.Meta(max_length=MAX_ATTACHMENTS)] = ()


OPTIONS: Final = {field.encode_name: field.name for field in msgspec.structs.fields(JobOptions)}
"""Name in JSON of each option -> attribute."""


def options_of(asked: JobOptions) -> dict[str, Any]:
    """The options that are set, by their names in JSON."""
    set_ = {name: getattr(asked, attribute) for name, attribute in OPTIONS.items()}
    return {name: value for name, value in set_.items() if value is not None and value not in ({}, ())}


def check_reply_channel(name: str) -> None:
    """Check that replies can be sent on the channel ``name``.

    :raises ValueError: it is not the name of a private or presence channel, or it is an encrypted one.
    """
    try:
        channel = Channel.parse(name)
    except ChannelError as error:
        raise ValueError(str(error)) from error
    if not channel.private or channel.encrypted:
        raise ValueError("Expected a private or presence channel that is not encrypted")


class ChatRequest(JobOptions, frozen=True):
    """Body of ``POST /api/chat/send``. Unknown keys are ignored.

    The bounds are absolute ones, as those of a job; the broadcaster has narrower ones in its settings.
    With ``conversation_id`` the worker reads the history from the database, and ``history`` must be absent.

    :ivar parent_id: as in a :class:`Job`.
    :ivar regenerate: as in a :class:`Job`; ``message`` must be absent then, and only then.
    """

    message: MaybeText = ""
    history: History = ()
    session_id: Id | None = None
    conversation_id: Id | None = None
    parent_id: ParentId | None = None
    regenerate: bool = False

    def __post_init__(self) -> None:
        if self.message and not self.message.strip():
            raise ValueError("Expected text that is not blank")


AppId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
JobUser = (
    Annotated[int, msgspec.Meta(ge=-EXACT, le=EXACT)]
    | Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_\-=@,.;]{1,128}\Z")]
)
TENANT: Final = re.compile(r"[A-Za-z0-9_\-=@,.;]{1,128}")
"""Use with ``fullmatch``."""

Tenant = Annotated[str, msgspec.Meta(pattern=rf"^({TENANT.pattern})?\Z")]


def tenant_name(value: object) -> str:
    """The tenant that the claim of a token names; empty if the claim is absent (None).

    :raises ValueError: it is neither an integer nor a string of 1 to 128 of the characters.
    """
    if value is None:
        return ""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not TENANT.fullmatch(text):
        raise ValueError("expected a number or a text of 1 to 128 characters out of A-Z a-z 0-9 _-=@,.;")
    return text


class JobOwner(msgspec.Struct, frozen=True):
    """Whose a job is: the fields of a :class:`Job` that decide when its turn comes, and who hears of it.

    ``channel`` is always that of the reply.
    """

    message_id: Id
    app_id: AppId
    user_id: JobUser
    tenant: Tenant = ""
    channel: Annotated[str, msgspec.Meta(pattern=rf"^{CHANNEL_NAME.pattern}\Z", max_length=MAX_NAME)] = ""


class Job(JobOptions, frozen=True, omit_defaults=True):
    """A job: one message to answer. Any program may add one to the job stream.

    ``queued_at`` is in milliseconds since the epoch. ``tenant``: whose share of the workers it takes, where
    admission is fair.

    :ivar parent_id: the message whose reply this one follows, in the same conversation; empty: none, it is
        the first. None: the reply that was stored last.
    :ivar regenerate: answer the user's turn of the message ``parent_id`` once more. ``message`` is empty
        then, and only then.
    :ivar history_cut: earlier turns of the conversation are left out, for its length. Readers are told.
    """

    message_id: Id
    app_id: AppId
    user_id: JobUser
    message: MaybeText
    queued_at: Annotated[int, msgspec.Meta(ge=0, le=EXACT)]
    history: History = ()
    session_id: Id | None = None
    conversation_id: Id | None = None
    tenant: Tenant = ""
    parent_id: ParentId | None = None
    regenerate: bool = False
    history_cut: bool = False

    @property
    def channel(self) -> str:
        """The channel that carries the reply."""
        return chat_channel(self.user_id) if self.reply_channel is None else self.reply_channel


class InvalidRequest(ValueError):  # noqa: N818 - reads as what it is where it is caught
    """An invalid body. ``field`` is a dotted path, ``$`` for the whole body."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


_PATH: Final = re.compile(r"^(?P<reason>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_chat_decoder: Final = msgspec.json.Decoder(ChatRequest)
_job_decoder: Final = msgspec.json.Decoder(Job)
_owner_decoder: Final = msgspec.json.Decoder(JobOwner)
_encoder: Final = msgspec.json.Encoder()


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes | str, limit: int, whole: str = "$") -> T:
    """Parse a body. Escapes of lone surrogates become U+FFFD.

    :param limit: its length.
    :param whole: the field that is named where the decoder's error names none.
    :raises InvalidRequest: it is too long or not JSON, or a field is missing, of the wrong type, or over its
        limit.
    """
    if len(body) > limit:
        raise InvalidRequest("$", f"Expected at most {limit} bytes")
    try:
        return decode_json(decoder, body)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        path = (match["path"] or "") if match else ""
        reason = match["reason"] if match else str(error)
        missing = re.search(r"missing required field `(\w+)`", reason)
        whole = "$" if reason.startswith("Expected `object`") else whole
        path = path.replace("[...]", "").replace("[", ".").replace("]", "")  # [...]: of some key
        field = path or (missing[1] if missing else whole)
        raise InvalidRequest(field, reason[:MAX_REASON]) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest("$", "the body is not JSON") from error


def _check(asked: ChatRequest | Job) -> None:
    """Check what types cannot express.

    :raises InvalidRequest: a field is wrong.
    """
    _check_place(asked)
    if asked.conversation_id is not None and asked.history:
        raise InvalidRequest("history", "Expected none with a conversation_id, whose history is known")
    if asked.reply_channel is not None:
        try:
            check_reply_channel(asked.reply_channel)
        except ValueError as error:
            raise InvalidRequest("channel", str(error)) from error
    if asked.metadata:
        _check_metadata(asked.metadata)


def _check_place(asked: ChatRequest | Job) -> None:
    """Check where in its conversation the message belongs."""
    if asked.parent_id is not None and asked.conversation_id is None:
        raise InvalidRequest("parent_id", "Expected a conversation_id with it")
    if not asked.regenerate:
        if not asked.message:
            raise InvalidRequest("message", "Expected `str` of length >= 1")
    elif not asked.parent_id:
        raise InvalidRequest("parent_id", "Expected the id of the message to answer once more")
    elif asked.message:
        raise InvalidRequest("message", "Expected none with regenerate: the text is known")


def _check_metadata(metadata: dict[str, Any]) -> None:
    if _is_deeper(metadata, MAX_METADATA_DEPTH):
        raise InvalidRequest("metadata", f"Expected at most {MAX_METADATA_DEPTH} levels")
    if len(_encoder.encode(metadata)) > MAX_METADATA_BYTES:
        raise InvalidRequest("metadata", f"Expected at most {MAX_METADATA_BYTES} bytes")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether more than ``levels`` objects and lists are inside each other. It recurses no deeper."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_deeper(one, levels - 1) for one in inner)


def decode_chat_request(body: bytes) -> ChatRequest:
    """Parse the body of ``POST /api/chat/send``. Escapes of lone surrogates become U+FFFD.

    :raises InvalidRequest: it is not JSON, or a field is missing, of the wrong type, or over its limit; or it
       has both ``history`` and ``conversation_id``; or its ``parent_id`` lacks a conversation; or a reply
       cannot be sent on its ``channel``.
    """
    request = decode_body(_chat_decoder, body, MAX_REQUEST_BYTES, "message")
    _check(request)
    return request


def decode_job(text: bytes | str) -> Job:
    """Parse the value of :data:`legato.protocol.wire.JOB_FIELD`.

    :raises InvalidRequest: as :func:`decode_chat_request`.
    """
    job = decode_body(_job_decoder, text, MAX_JOB_BYTES, "message")
    _check(job)
    return job


def decode_owner(text: bytes | str) -> JobOwner:
    """Parse of a job what :class:`JobOwner` has. The rest need not be valid.

    :raises InvalidRequest: as :func:`decode_job`, for these fields.
    """
    owner = decode_body(_owner_decoder, text, MAX_JOB_BYTES, "message")
    return owner if owner.channel else msgspec.structs.replace(owner, channel=chat_channel(owner.user_id))


def encode_job(job: Job) -> bytes:
    """Encode a job for :data:`legato.protocol.wire.JOB_FIELD`."""
    return _encoder.encode(job)
