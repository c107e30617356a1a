"""Applications: their settings, and who may connect to them (protocol section 1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from . import errors
from .channels import LONGEST_NAME
from .origins import origins
from .redaction import SecretValues, hidden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .errors import PusherError

PROTOCOLS: Final = range(4, 8)
"""Supported protocol versions (section 1.2)."""

SUBPROTOCOL: Final = re.compile(r"pusher-channels-protocol-[4-7]")
"""Supported WebSocket sub-protocols (section 1.3); use with ``fullmatch``."""

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Secret = Annotated[str, hidden("all", min_length=1, max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Length = Annotated[int, msgspec.Meta(ge=1, le=LONGEST_NAME)]

ANY_ORIGIN: Final = ("*",)
"""Default of ``allowed_origins``."""

WebhookEvent = Literal[
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
]
"""Names of webhook events (section 11.2)."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_OWN_HEADERS: Final = frozenset(
    {
        "content-type",
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
    }
)
"""Headers that a webhook's settings must not contain: ours (section 11.1), and those that frame a request."""

_OVERRIDDEN_HEADERS: Final = frozenset({"x-pusher-key", "x-pusher-signature"})
"""Headers that settings may contain, as soketi's do, without effect: Legato signs the request itself."""


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[apps.webhooks]]``: a receiver of webhooks, with its events and channels.

    ``batch`` lets one request carry up to ``max_events``. ``timeout`` is in seconds, for the whole request.
    :raises ValueError: a value is invalid; the text is one line.
    """

    url: Annotated[str, hidden("path")]
    events: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
    channel_prefix: str = ""
    channel_suffix: str = ""
    headers: SecretValues = {}
    batch: bool = True
    max_events: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10

    def __post_init__(self) -> None:
        """Check what types alone cannot tell."""
        if not _is_http_url(self.url):
            raise ValueError("url: expected http:// or https:// with a host")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError("headers: expected names of letters, digits and dashes")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"headers: {name} is set by Legato")
            if not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"headers: expected printable ASCII as the value of {name}")

    def __repr__(self) -> str:
        """Without path, query and headers, which may hold a password or a token."""
        return f"Webhook(host={self.host!r})"

    @property
    def host(self) -> str:
        """Host and port, to identify the webhook in logs."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def overridden(self) -> tuple[str, ...]:
        """Configured headers that have no effect."""
        return tuple(name for name in self.headers if name.lower() in _OVERRIDDEN_HEADERS)

    @property
    def batch_size(self) -> int:
        """Largest number of events in one request."""
        return self.max_events if self.batch else 1


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - the check is in the property
    except ValueError:
        return False
    printable = url.isascii() and url.isprintable() and " " not in url
    return printable and parts.scheme in ("http", "https") and bool(parts.hostname)


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[apps]]``: one application. A limit of 0 means none.

    ``allowed_origins`` are patterns of :mod:`legato.protocol.origins`. Sizes are in bytes, times in seconds.
    ``over_quota``: whether clients beyond ``max_connections`` are refused for good or told to back off.
    """

    id: Name
    key: Name
    secret: Secret
    enabled: bool = True
    allowed_origins: tuple[str, ...] = ANY_ORIGIN
    max_connections: Count = 0
    over_quota: Literal["refuse", "back_off"] = "refuse"
    max_channels_per_connection: Count = 1_000
    max_channel_name_length: Length = 200
    max_event_name_length: Length = 200
    max_event_bytes: Positive = 10_240
    max_channels_per_event: Positive = 100
    max_events_per_batch: Positive = 10
    max_presence_members: Positive = 100
    max_user_info_bytes: Positive = 1024
    client_events: bool = True
    client_events_per_second: Positive = 10
    max_messages: Count = 0
    max_messages_seconds: Positive = 60
    close_over_max_messages: bool = False
    subscription_count: bool = False
    watchlist: bool = True
    authorized_seconds: Count = 0
    cache_seconds: Positive = 1800
    activity_timeout: Positive = 120
    pong_timeout: Positive = 30
    webhooks: tuple[Webhook, ...] = ()
    old_keys: dict[str, Secret] = {}

    def __post_init__(self) -> None:
        """Check what types cannot express.

        :raises ValueError: a value is invalid; the text is one line.
        """
        try:
            origins(self.allowed_origins)
        except ValueError as error:
            raise ValueError(f"allowed_origins: {error}") from error

    def __repr__(self) -> str:
        """Without the secret, because an error's text may contain an application."""
        return f"App(id={self.id!r}, key={self.key!r})"

    @property
    def keys(self) -> Mapping[str, str]:
        """Accepted keys -> secrets, the old pairs included, so that secrets can be rotated."""
        return {**self.old_keys, self.key: self.secret}


_OVER_QUOTA: Final = {"refuse": errors.OVER_QUOTA, "back_off": errors.OVER_QUOTA_FOR_NOW}


def over_quota(app: App) -> PusherError:
    """The error for a client beyond ``max_connections``."""
    return _OVER_QUOTA[app.over_quota]


def refuse(app: App | None, params: Mapping[str, str], origin: str) -> PusherError | None:
    """Why a handshake is refused, or None. Checks in the order of section 1.5; the quota comes after these.

    :param app: the application by the key in the path, None if there is none.
    :param params: the query, keys lower-cased.
    :param origin: the ``Origin`` header, empty if absent (only browsers send it).
    """
    if app is None:
        return errors.UNKNOWN_APP
    if not app.enabled:
        return errors.APP_DISABLED
    version = params.get("protocol")
    if version is not None and not (version.isascii() and version.isdigit()):
        return errors.INVALID_VERSION
    if version is not None and (len(version) > 3 or int(version) not in PROTOCOLS):
        return errors.UNSUPPORTED_VERSION
    if origin and "*" not in app.allowed_origins and not origins(app.allowed_origins).allow(origin):
        return errors.UNAUTHORIZED
    return None
