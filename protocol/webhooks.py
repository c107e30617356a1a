"""Encodes and signs webhooks (protocol sections 11.1 and 11.2)."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .text import decode_json, well_formed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .apps import App, Webhook, WebhookEvent

CACHE_MISS_SECONDS: Final = 3.0
"""Interval between two ``cache_miss`` events of a channel: misses within it are one event."""

_encoder: Final = msgspec.json.Encoder()
_text_decoder: Final = msgspec.json.Decoder(str)


def event(name: WebhookEvent, channel: str, **fields: Any) -> bytes:
    """One entry of ``events``. Lone surrogates become U+FFFD, because UTF-8 cannot encode them."""
    content = {"name": name, "channel": channel} | fields
    try:
        return _encoder.encode(content)
    except UnicodeEncodeError:
        return _encoder.encode({key: _sayable(value) for key, value in content.items()})


def client_event(channel: str, name: str, data: bytes | None, socket_id: str, user_id: str | None) -> bytes:
    """The entry for a relayed client event.

    :param data: JSON as it was relayed, or None.
    :param user_id: the sender on a presence channel, else None.
    """
    sender = {} if user_id is None else {"user_id": user_id}
    return event("client_event", channel, event=name, data=_data_text(data), socket_id=socket_id, **sender)


def _data_text(data: bytes | None) -> str:
    """The text of a JSON string; of any other value the JSON, because SDKs expect a string (section 11.2)."""
    if data is None:
        return ""
    try:
        return decode_json(_text_decoder, data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data.decode("utf-8", "replace")


def _sayable(value: Any) -> Any:
    return well_formed(value) if isinstance(value, str) else value


def body(time_ms: int, events: Iterable[bytes]) -> bytes:
    """The request's body. ``time_ms`` is the time of the first attempt, Unix time in milliseconds."""
    return b'{"time_ms":%d,"events":[%b]}' % (time_ms, b",".join(events))


def headers(app: App, webhook: Webhook, content: bytes) -> dict[str, str]:
    """The request's headers, with the signature of ``content`` by the application's oldest key."""
    key, secret = next(iter(app.keys.items()))
    theirs = {name: value for name, value in webhook.headers.items() if name not in webhook.overridden}
    return theirs | {
        "Content-Type": "application/json",  # exactly: two SDKs compare the whole value
        "X-Pusher-Key": key,
        "X-Pusher-Signature": hmac.new(secret.encode(), content, hashlib.sha256).hexdigest(),
    }


def wants(webhook: Webhook, name: WebhookEvent, channel: str) -> bool:
    """Whether a webhook receives an event. Events of ``#server-to-user-`` are for none (section 7.2)."""
    return (
        name in webhook.events
        and channel.startswith(webhook.channel_prefix)
        and channel.endswith(webhook.channel_suffix)
        and not channel.startswith("#")
    )


class Misses:
    """Limits the ``cache_miss`` events of each channel."""

    def __init__(self, seconds: float = CACHE_MISS_SECONDS) -> None:
        self._seconds = seconds
        self._told: dict[tuple[str, str], float] = {}

    def tell(self, app_id: str, channel: str, now: float) -> bool:
        """Whether to report this miss. ``now`` is in seconds of any monotonic clock."""
        self._forget(now)
        key = (app_id, channel)
        if key in self._told:
            return False
        self._told[key] = now
        return True

    def _forget(self, now: float) -> None:
        # Ordered by time, the oldest first.
        while self._told:
            key = next(iter(self._told))
            if now - self._told[key] < self._seconds:
                return
            del self._told[key]
