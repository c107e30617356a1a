"""Decodes the messages of clients and encodes those of the server (protocol section 2)."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from .text import decode_json, replace_lone_escapes

_encoder: Final = msgspec.json.Encoder()

T = TypeVar("T")


class MessageError(ValueError):
    """An invalid message of a client. The text may be sent to the client."""


class ClientMessage(msgspec.Struct, frozen=True):
    """A client's message. ``data`` stays raw JSON until the event's name determines its type."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b"")
    channel: str | None = None


class SubscribeData(msgspec.Struct, frozen=True):
    """``data`` of ``pusher:subscribe``. Absent, null and empty all mean "not given" (section 4.2).

    ``merge_tokens`` is an extension (:data:`.session.MERGE_TOKENS`); anything but true means no.
    """

    channel: str
    auth: str | None = None
    channel_data: str | None = None
    merge_tokens: Any = None


class UnsubscribeData(msgspec.Struct, frozen=True):
    """``data`` of ``pusher:unsubscribe``."""

    channel: str


class SigninData(msgspec.Struct, frozen=True):
    """``data`` of ``pusher:signin`` (section 7.1). Absent and null count as a wrong signature."""

    auth: str | None = None
    user_data: str | None = None


_message_decoder: Final = msgspec.json.Decoder(ClientMessage)
_text_decoder: Final = msgspec.json.Decoder(str)
_data_decoders: Final[dict[type[Any], msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(kind) for kind in (SubscribeData, UnsubscribeData, SigninData)
}


def decode_message(text: str | bytes) -> ClientMessage:
    """Parse one frame. ``data`` keeps its bytes, also escapes of lone surrogates.

    :raises MessageError: it is not JSON, not an object, or has no string ``event``.
    """
    try:
        return _message_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        message = _decode_with_halves(text.encode(errors="replace") if isinstance(text, str) else text)
        if message is None:
            raise MessageError("The message is not JSON of the form {event, data}") from error
        return message


def _decode_with_halves(text: bytes) -> ClientMessage | None:
    """Parse a frame with escapes of lone surrogates, which are valid JSON but refused by msgspec.

    ``data`` is a view into the decoded buffer, and the replacements have the same length, so the original
    bytes can be restored there.
    """
    replaced = replace_lone_escapes(text)
    if replaced == text:
        return None
    buffer = bytearray(replaced)
    try:
        message = _message_decoder.decode(buffer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    buffer[:] = text
    return message


def decode_data(message: ClientMessage, kind: type[T]) -> T:
    """Parse a message's ``data``, which is an object or, from some clients, that object as a JSON string.

    Escapes of lone surrogates become U+FFFD.

    :param kind: one of the structs above.
    :raises MessageError: it does not fit.
    """
    raw = bytes(message.data) or b"null"
    try:
        if raw[:1] == b'"':
            raw = decode_json(_text_decoder, raw).encode()
        decoded: T = decode_json(_data_decoders[kind], raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, msgspec.ValidationError) else "not valid JSON"
        raise MessageError(f"The data of {message.event} is not understood: {reason}") from error
    return decoded


def channel_event(event: str, channel: str, data: str) -> bytes:
    """An event on a channel; ``data`` is sent unchanged, as a JSON string (section 4.7)."""
    return _encoder.encode({"event": event, "channel": channel, "data": data})


def client_event(event: str, channel: str, data: bytes, user_id: str | None) -> bytes:
    """A client event for other subscribers: its data unchanged, without other keys (section 6)."""
    body: dict[str, Any] = {"event": event, "channel": channel}
    if data:
        body["data"] = msgspec.Raw(data)
    if user_id is not None:
        body["user_id"] = user_id
    return _encoder.encode(body)


def subscription_count(channel: str, count: int) -> bytes:
    """The number of subscriptions of a channel (section 8.2)."""
    data = _encoder.encode({"subscription_count": count}).decode()
    return channel_event("pusher_internal:subscription_count", channel, data)


def cache_miss(channel: str) -> bytes:
    """The message for a cache channel without a stored event (section 8.1)."""
    return _encoder.encode({"event": "pusher:cache_miss", "channel": channel})


def connection_established(socket_id: str, activity_timeout: int) -> bytes:
    """The first message on every socket; ``activity_timeout`` in seconds, at least 1 (section 1.5)."""
    data = _encoder.encode({"socket_id": socket_id, "activity_timeout": activity_timeout}).decode()
    return _encoder.encode({"event": "pusher:connection_established", "data": data})


def subscription_succeeded(channel: str, data: str = "{}") -> bytes:
    """Sent for every accepted subscribe (section 4.4)."""
    return channel_event("pusher_internal:subscription_succeeded", channel, data)


def subscription_error(channel: str, type_: str, error: str, status: int) -> bytes:
    """Sent for every refused subscribe; ``data`` is an object here (section 4.5)."""
    data = {"type": type_, "error": error, "status": status}
    return _encoder.encode({"event": "pusher:subscription_error", "channel": channel, "data": data})


def error(message: str, code: int | None = None, channel: str | None = None) -> bytes:
    """``pusher:error``: ``data`` is an object, its ``code`` null unless the socket closes (section 2)."""
    body: dict[str, Any] = {"event": "pusher:error", "data": {"code": code, "message": message}}
    if channel is not None:
        body["channel"] = channel
    return _encoder.encode(body)


PING: Final = _encoder.encode({"event": "pusher:ping", "data": "{}"})
PONG: Final = _encoder.encode({"event": "pusher:pong", "data": "{}"})
