"""Close and error codes as one table (protocol section 9).

A code tells a Pusher client what to do next, so it is chosen here and never retyped.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Reconnect(enum.Enum):
    """How a client reconnects after a close code."""

    NEVER = "never"
    BACK_OFF = "back off"
    AT_ONCE = "at once"


class PusherError(NamedTuple):
    """One row of the table: the content of ``pusher:error`` and of the close frame."""

    code: int
    message: str
    reconnect: Reconnect


TLS_REQUIRED: Final = PusherError(
    4000, "Application only accepts SSL connections, reconnect using wss://", Reconnect.NEVER
)
UNKNOWN_APP: Final = PusherError(4001, "Application does not exist", Reconnect.NEVER)
APP_DISABLED: Final = PusherError(4003, "Application disabled", Reconnect.NEVER)
OVER_QUOTA: Final = PusherError(4004, "Application is over connection quota", Reconnect.NEVER)
OVER_QUOTA_FOR_NOW: Final = PusherError(
    4100, "Application is over connection quota, try again later", Reconnect.BACK_OFF
)
PATH_NOT_FOUND: Final = PusherError(4005, "Path not found", Reconnect.NEVER)
INVALID_VERSION: Final = PusherError(4006, "Invalid version string format", Reconnect.NEVER)
UNSUPPORTED_VERSION: Final = PusherError(4007, "Unsupported protocol version", Reconnect.NEVER)
UNAUTHORIZED: Final = PusherError(4009, "Origin not allowed", Reconnect.NEVER)
NOT_AUTHORIZED: Final = PusherError(4009, "Connection not authorized within timeout.", Reconnect.NEVER)
TERMINATED: Final = PusherError(4009, "The application has terminated this connection", Reconnect.NEVER)
OVER_CAPACITY: Final = PusherError(4100, "Over capacity", Reconnect.BACK_OFF)
TOO_SLOW: Final = PusherError(4100, "Over capacity: this client reads too slowly", Reconnect.BACK_OFF)
TOO_MUCH_AT_ONCE: Final = PusherError(
    4100, "Over capacity: too much waits for this client's subscriptions", Reconnect.BACK_OFF
)
TOO_MANY_MESSAGES: Final = PusherError(4100, "Over capacity: too many messages", Reconnect.BACK_OFF)
DRAINING: Final = PusherError(1012, "The server restarts, reconnect", Reconnect.BACK_OFF)
GO_ELSEWHERE: Final = PusherError(4200, "The server restarts, another one is there", Reconnect.AT_ONCE)
RESTARTS: Final = frozenset({DRAINING, GO_ELSEWHERE})
"""Closes for no fault of the client: it first receives everything that is queued for it."""

LEASE_LAPSED: Final = PusherError(  # with a pause: all clients of the node reconnect together
    4100, "Over capacity: this node was cut off from the others", Reconnect.BACK_OFF
)
RECONNECT: Final = PusherError(4200, "The application asks this connection to reconnect", Reconnect.AT_ONCE)
PONG_TIMEOUT: Final = PusherError(4201, "Pong reply not received in time", Reconnect.AT_ONCE)

ERRORS: Final = (
    TLS_REQUIRED,
    UNKNOWN_APP,
    APP_DISABLED,
    OVER_QUOTA,
    OVER_QUOTA_FOR_NOW,
    PATH_NOT_FOUND,
    INVALID_VERSION,
    UNSUPPORTED_VERSION,
    UNAUTHORIZED,
    NOT_AUTHORIZED,
    TERMINATED,
    OVER_CAPACITY,
    TOO_SLOW,
    TOO_MUCH_AT_ONCE,
    TOO_MANY_MESSAGES,
    DRAINING,
    GO_ELSEWHERE,
    LEASE_LAPSED,
    RECONNECT,
    PONG_TIMEOUT,
)

OVER_LIMIT: Final = 4301
"""Code of an error about a message beyond a limit. The message has no effect; the connection stays open."""

WATCHLIST_CUT: Final = 4302
"""Code of the error about a watchlist that is too long. The connection stays open."""

MESSAGE_RATE: Final = "Rate limit exceeded"
"""Text of :data:`OVER_LIMIT` for an ignored message."""

CLIENT_EVENT_RATE: Final = "Client event rejected due to rate limit"
"""Text of :data:`OVER_LIMIT` for a client event (section 6)."""

WATCHLIST_LIMIT: Final = "The watchlist has more than 100 users; the first 100 are watched"
"""Text of :data:`WATCHLIST_CUT` (section 7.4)."""
