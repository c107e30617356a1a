"""Why clients and requests are refused, as one table: the lines of the log have these reasons.

``docs/troubleshooting.md`` says of each reason what it means and what to do. The texts are constant; what a
client has sent is never part of them.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Level = Literal["debug", "info", "warning"]

DEBUG: Final = "debug"
WARNING: Final = "warning"


class Refusal(NamedTuple):
    """One row of the table.

    :ivar reason: identifies it in the log.
    :ivar text: the log line, without what is particular to the case.
    :ivar level: ``warning`` where the operator has to act, ``info`` for a mistake in an application or its
        clients, ``debug`` for what happens without a mistake.
    """

    reason: str
    text: str
    level: Level = "info"


# --- connections

UNKNOWN_KEY: Final = Refusal("unknown_key", "connection refused: no application has this key")
APP_DISABLED: Final = Refusal("app_disabled", "connection refused: the application is disabled")
OVER_QUOTA: Final = Refusal(
    "over_quota", "connection refused: the application has apps.max_connections", WARNING
)
WRONG_PATH: Final = Refusal("wrong_path", "connection refused: the path is not /app/KEY")
BAD_VERSION: Final = Refusal("bad_version", "connection refused: protocol is not a number")
UNSUPPORTED_VERSION: Final = Refusal("unsupported_version", "connection refused: protocol is not 4 to 7")
ORIGIN_NOT_ALLOWED: Final = Refusal(
    "origin_not_allowed", "connection refused: apps.allowed_origins does not list the page's origin"
)
OVER_CAPACITY: Final = Refusal("over_capacity", "connection refused: the server takes no more", WARNING)
STOPPING: Final = Refusal("stopping", "connection refused: the server is stopping", DEBUG)
QUOTA_UNKNOWN: Final = Refusal(
    "quota_unknown", "connection refused: Redis did not say in time how many there are", WARNING
)
LEASE_LAPSED: Final = Refusal("lease_lapsed", "connection refused: the node was cut off from Redis", WARNING)
ADDRESS_LIMIT: Final = Refusal(
    "address_limit", "connection or request refused: its address has reached a limit", WARNING
)
BAD_HANDSHAKE: Final = Refusal("bad_handshake", "connection refused: the upgrade to WebSocket is not valid")

# --- connections that the server closes for what the client does

NOT_AUTHORIZED: Final = Refusal(
    "not_authorized", "connection closed: no private channel, and no sign-in, in time"
)
TOO_SLOW: Final = Refusal("too_slow", "connection closed: the client reads too slowly")
TOO_MUCH_AT_ONCE: Final = Refusal(
    "too_much_at_once", "connection closed: too much waits for its subscriptions"
)
TOO_MANY_MESSAGES: Final = Refusal(
    "too_many_messages", "connection closed: it sent more than apps.max_messages"
)
BAD_FRAME: Final = Refusal("bad_frame", "connection closed: the client sent an invalid frame")

# --- subscriptions and sign-ins

BAD_CHANNEL_SIGNATURE: Final = Refusal("bad_channel_signature", "subscription refused: auth does not verify")
BAD_CHANNEL_DATA: Final = Refusal("bad_channel_data", "subscription refused: channel_data is not valid")
BAD_CHANNEL_NAME: Final = Refusal("bad_channel_name", "subscription refused: the channel's name is not valid")
NOT_SIGNED_IN: Final = Refusal(
    "not_signed_in", "subscription refused: the client is not signed in as the user"
)
TOO_MANY_CHANNELS: Final = Refusal(
    "too_many_channels", "subscription refused: the connection has apps.max_channels_per_connection"
)
CHANNEL_FULL: Final = Refusal(
    "channel_full", "subscription refused: the channel has apps.max_presence_members"
)
TOO_MANY_SUBSCRIPTIONS: Final = Refusal(
    "too_many_subscriptions", "subscription refused: the server has server.max_subscriptions", WARNING
)
BAD_SIGN_IN: Final = Refusal("bad_sign_in", "sign-in refused")

# --- messages of clients

BAD_MESSAGE: Final = Refusal("bad_message", "message refused: it is not understood")
MESSAGE_RATE: Final = Refusal("message_rate", "message refused: the client sends more than apps.max_messages")
BAD_CLIENT_EVENT: Final = Refusal("bad_client_event", "client event refused")
CLIENT_EVENT_RATE: Final = Refusal(
    "client_event_rate", "client event refused: more than apps.client_events_per_second"
)

# --- requests to the HTTP API

UNKNOWN_AUTH_KEY: Final = Refusal(
    "unknown_auth_key", "API request refused: the application has no such auth_key"
)
BAD_REQUEST_SIGNATURE: Final = Refusal(
    "bad_request_signature", "API request refused: auth_signature does not verify"
)
EXPIRED_TIMESTAMP: Final = Refusal(
    "expired_timestamp", "API request refused: auth_timestamp is more than 10 minutes off"
)
BAD_AUTH_PARAMETERS: Final = Refusal("bad_auth_parameters", "API request refused: it is not signed correctly")
UNKNOWN_APP: Final = Refusal("unknown_app", "API request refused: no application has the id in the path")
API_APP_DISABLED: Final = Refusal("api_app_disabled", "API request refused: the application is disabled")
NO_SUCH_ENDPOINT: Final = Refusal("no_such_endpoint", "API request refused: there is no such endpoint")
WRONG_METHOD: Final = Refusal("wrong_method", "API request refused: wrong method")
REQUEST_TOO_LARGE: Final = Refusal(
    "request_too_large", "API request refused: the body is larger than allowed"
)
EVENT_TOO_LARGE: Final = Refusal(
    "event_too_large", "API request refused: an event is larger than apps.max_event_bytes"
)
INVALID_EVENT: Final = Refusal("invalid_request", "API request refused: it is not valid")
BAD_HTTP: Final = Refusal("bad_http", "HTTP request refused before it was read")

# --- requests of browsers: the chat, the doors, the authorisation endpoints

NO_TOKEN: Final = Refusal("no_token", "request refused: no bearer token, or one that is too long")
NO_TOKEN_KEY: Final = Refusal(
    "no_token_key", "request refused: [auth] has no key, so no token can be verified", WARNING
)
TOKEN_EXPIRED: Final = Refusal("token_expired", "request refused: the token has expired")
TOKEN_SIGNATURE: Final = Refusal("token_signature", "request refused: the token is signed with another key")
TOKEN_CLAIMS: Final = Refusal("token_claims", "request refused: the claims of the token are not accepted")
TOKEN_INVALID: Final = Refusal("token_invalid", "request refused: the token cannot be verified")
READING_TOKEN: Final = Refusal(
    "reading_token", "request refused: the token in the URL has expired or is for another message"
)
TOKEN_KEYS_UNAVAILABLE: Final = Refusal(
    "token_keys_unavailable", "request refused: the keys of auth.jwks_url cannot be fetched", WARNING
)
CHANNEL_NOT_ALLOWED: Final = Refusal(
    "channel_not_allowed", "request refused: auth.channels does not allow this user the channel"
)
FORBIDDEN: Final = Refusal("forbidden", "request refused: forbidden")
FOREIGN_PAGE: Final = Refusal("foreign_page", "request refused: only this server's own pages may ask")
CORS_ORIGIN: Final = Refusal(
    "cors_origin", "a browser keeps the answer from the page: server.cors_origins does not list its origin"
)
INVALID_REQUEST: Final = Refusal("invalid_chat_request", "request refused: it is not valid")
BODY_TOO_LARGE: Final = Refusal("body_too_large", "request refused: the body is larger than allowed")
NOT_FOUND: Final = Refusal("not_found", "request refused: there is no such thing", DEBUG)
CONFLICT: Final = Refusal("conflict", "request refused: it contradicts an earlier one")
LOG_EXPIRED: Final = Refusal(
    "log_expired", "request refused: the reply is older than worker.retention", DEBUG
)
TOO_MANY_OPEN: Final = Refusal("too_many_open", "request refused: the user has chat.max_open_per_user")
TOO_MANY_READERS: Final = Refusal("too_many_readers", "request refused: too many replies are being read")
QUEUE_FULL: Final = Refusal(
    "queue_full", "request refused: chat.max_queued messages wait for a worker", WARNING
)
UNAVAILABLE: Final = Refusal("unavailable", "request refused: the server lacks what it needs", WARNING)

REFUSALS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Refusal))
"""All rows."""
