"""Events as applications send them (protocol section 10): decoded, checked, and made into what goes out."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec

from protocol import messages
from protocol.channels import SERVER_TO_USER, SOCKET_ID, Channel, ChannelError
from protocol.presence import MAX_USER_ID
from protocol.wire import Envelope

from .hub import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocol.apps import App

KNOWN_CHANNELS: Final = 4096
"""Names whose kind is remembered."""

RESERVED: Final = ("pusher:", "pusher_internal:")
QUERY_FIELDS: Final = frozenset(("name", "data", "channel", "channels", "socket_id", "info"))
"""Parameters of an event that may be in the query."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ApiError(Exception):
    """An answer other than 200, with the real status (section 10.2)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Event(msgspec.Struct, frozen=True):
    """Body of ``POST /apps/ID/events``; unknown keys are ignored (section 10.3)."""

    name: Name
    data: Any
    channels: tuple[str, ...] | None = None
    channel: str | None = None
    socket_id: str | None = None
    info: str | None = None


class BatchEvent(msgspec.Struct, frozen=True):
    """One event of a batch (section 10.4)."""

    name: Name
    data: Any
    channel: str
    socket_id: str | None = None
    info: str | None = None


class Batch(msgspec.Struct, frozen=True):
    """Body of ``POST /apps/ID/batch_events``."""

    batch: tuple[BatchEvent, ...]


_event_decoder: Final = msgspec.json.Decoder(Event)
_batch_decoder: Final = msgspec.json.Decoder(Batch)
_object_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder: Final = msgspec.json.Encoder()


def decode_event(params: Mapping[str, str], body: bytes) -> Event:
    """The event of a request.

    :raises ApiError: it is none.
    """
    event: Event = _decode(_event_decoder, _with_query(params, body))
    return event


def decode_batch(body: bytes) -> tuple[BatchEvent, ...]:
    """All events of a request.

    :raises ApiError: it has none.
    """
    batch: Batch = _decode(_batch_decoder, body)
    return batch.batch


def _with_query(params: Mapping[str, str], body: bytes) -> bytes:
    """The body, with what only the query has (section 10.1); there ``channels`` are joined with commas."""
    if QUERY_FIELDS.isdisjoint(params):
        return body
    given = {name: params[name] for name in QUERY_FIELDS if name in params}
    fields: dict[str, Any] = dict(given)
    if "channels" in given:
        fields["channels"] = given["channels"].split(",")
    return _encoder.encode(fields | _decode(_object_decoder, body or b"{}"))


class Publication(NamedTuple):
    """One message on one channel, and what a cache channel keeps of it."""

    key: Key
    envelope: Envelope
    cached: bool
    name: str
    data: str


def publication(app: App, event: Event | BatchEvent, channel: str) -> Publication:
    """What goes out.

    :raises ApiError: a rule of section 10.3 is broken.
    """
    if event.name.startswith(RESERVED):
        raise ApiError(400, f"Event names may not start with {' or '.join(RESERVED)}")
    if event.socket_id is not None and not SOCKET_ID.fullmatch(event.socket_id):
        raise ApiError(400, "socket_id must be two numbers with a dot between them")
    data = _data_text(event.data)
    size = len(data) if data.isascii() else len(data.encode())
    if size > app.max_event_bytes:
        raise ApiError(
            413, f"The data of this event has {size} bytes; at most {app.max_event_bytes} are allowed"
        )
    is_user = channel.startswith(SERVER_TO_USER) and 1 <= len(channel) - len(SERVER_TO_USER) <= MAX_USER_ID
    cached = not is_user and parse_channel(channel).cache
    envelope = Envelope(messages.channel_event(event.name, channel, data), event.socket_id)
    return Publication(Key(app.id, channel), envelope, cached, event.name, data)


@lru_cache(maxsize=KNOWN_CHANNELS)
def parse_channel(name: str) -> Channel:
    try:
        return Channel.parse(name)
    except ChannelError as error:
        raise ApiError(400, str(error)) from error


def _data_text(value: Any) -> str:
    """The event's data string; another JSON value is encoded compactly (section 10.3)."""
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "The body is not valid JSON") from error
