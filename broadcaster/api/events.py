"""Events of applications (protocol section 10): decodes and checks them, and builds their frames."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import CACHED_CHANNEL_NAMES
from legato.protocol import messages, refusals
from legato.protocol.channels import SERVER_TO_USER, SOCKET_ID, Channel, ChannelError
from legato.protocol.presence import MAX_USER_ID
from legato.protocol.wire import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.protocol.apps import App
    from legato.protocol.refusals import Refusal

RESERVED: Final = ("pusher:", "pusher_internal:")
QUERY_FIELDS: Final = frozenset(("name", "data", "channel", "channels", "socket_id", "info"))
"""Parameters of an event that are accepted in the query."""

SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escaped surrogate. msgspec accepts only pairs of them."""

Name = Annotated[str, msgspec.Meta(min_length=1)]


_REFUSALS: Final = {
    400: refusals.INVALID_EVENT,
    401: refusals.BAD_AUTH_PARAMETERS,
    403: refusals.API_APP_DISABLED,
    404: refusals.NO_SUCH_ENDPOINT,
    405: refusals.WRONG_METHOD,
    413: refusals.REQUEST_TOO_LARGE,
}


class ApiError(Exception):
    """An error answer, with its HTTP status (section 10.2).

    :param refusal: for the log; by default one for the status.
    """

    def __init__(self, status: int, reason: str, refusal: Refusal | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.refusal = refusal or _REFUSALS[status]


class TooManyFailures(Exception):  # noqa: N818 - an answer to the client, not an internal error
    """The address of the request has sent too many wrong signatures. ``wait`` is in seconds."""

    def __init__(self, wait: int) -> None:
        super().__init__("Too many wrong signatures from your address")
        self.wait = wait


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
    """Decode the event of a request.

    :raises ApiError: the request has no valid event.
    """
    event: Event = _decode(_event_decoder, _with_query(params, body))
    return event


def decode_batch(body: bytes) -> tuple[BatchEvent, ...]:
    """Decode the events of a batch request.

    :raises ApiError: the request has no valid batch.
    """
    batch: Batch = _decode(_batch_decoder, body)
    return batch.batch


def _with_query(params: Mapping[str, str], body: bytes) -> bytes:
    """Add fields from the query to the body (section 10.1). There ``channels`` are separated by commas."""
    if QUERY_FIELDS.isdisjoint(params):
        return body
    given = {name: params[name] for name in QUERY_FIELDS if name in params}
    fields: dict[str, Any] = dict(given)
    if "channels" in given:
        fields["channels"] = given["channels"].split(",")
    return _encoder.encode(fields | _decode(_object_decoder, body or b"{}"))


class Publication(NamedTuple):
    """One message for one channel, with the name and data that a cache channel keeps."""

    key: Key
    envelope: Envelope
    cached: bool
    name: str
    data: str


def publication(app: App, event: Event | BatchEvent, channel: str) -> Publication:
    """Check an event and build its message.

    :raises ApiError: the event breaks a rule of section 10.3.
    """
    if event.name.startswith(RESERVED):
        raise ApiError(400, f"Event names may not start with {' or '.join(RESERVED)}")
    if len(event.name) > app.max_event_name_length:
        raise ApiError(400, f"Event name too long (> {app.max_event_name_length} characters)")
    if event.socket_id is not None and not SOCKET_ID.fullmatch(event.socket_id):
        raise ApiError(400, "socket_id must be two numbers with a dot between them")
    data = _data_text(event.data)
    size = len(data) if data.isascii() else len(data.encode("utf-8", "surrogatepass"))
    if size > app.max_event_bytes:
        limit = app.max_event_bytes
        reason = f"The data content of this event exceeds the allowed maximum ({limit} bytes): it has {size}"
        raise ApiError(413, reason, refusals.EVENT_TOO_LARGE)
    is_user = channel.startswith(SERVER_TO_USER) and 1 <= len(channel) - len(SERVER_TO_USER) <= MAX_USER_ID
    cached = not is_user and parse_channel(channel, app.max_channel_name_length).cache
    try:
        payload = messages.channel_event(event.name, channel, data)
    except UnicodeEncodeError:  # contains a lone surrogate
        payload = _dumped({"event": event.name, "channel": channel, "data": data})
    return Publication(Key(app.id, channel), Envelope(payload, event.socket_id), cached, event.name, data)


@lru_cache(maxsize=CACHED_CHANNEL_NAMES)
def parse_channel(name: str, longest: int) -> Channel:
    try:
        return Channel.parse(name, longest)
    except ChannelError as error:
        raise ApiError(400, str(error)) from error


def _data_text(value: Any) -> str:
    """Return the data string. A JSON value that is no string is encoded compactly (section 10.3)."""
    if isinstance(value, str):
        return value
    try:
        return _encoder.encode(value).decode()
    except UnicodeEncodeError:  # contains a lone surrogate
        return _dumped(value).decode()


def _dumped(value: Any) -> bytes:
    """Encode as JSON with lone surrogates escaped, as they came. JSON's grammar allows them."""
    return json.dumps(value, separators=(",", ":")).encode()


def without_halves(text: str) -> str:
    """Replace lone surrogates by U+FFFD, for text that is stored as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        try:
            return decoder.decode(body)
        except (msgspec.ValidationError, RecursionError):
            raise
        except msgspec.DecodeError:
            if SURROGATE.search(body) is None:
                raise
            return _decode_with_surrogates(decoder.type, body)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error)) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ApiError(400, "The body is not valid JSON") from error


def _decode_with_surrogates(kind: Any, body: bytes) -> Any:
    """Decode JSON with lone surrogates, which JavaScript produces when it cuts a text within an emoji."""

    def refuse(text: str) -> float:
        raise ValueError(text)

    def number(text: str) -> float:
        found = float(text)
        return found if math.isfinite(found) else refuse(text)

    found = json.loads(body.decode(), parse_constant=refuse, parse_float=number)
    return msgspec.convert(found, kind)
