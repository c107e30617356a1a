"""Environment variables of Laravel Reverb and soketi, and the rule for each.

A variable is honoured if a setting has the same meaning, and ignored if it has no effect here. It stops the
start if ignoring it would permit something that it forbids. The names are from Reverb's ``config/reverb.php``
and soketi's ``src/cli/cli.ts``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from . import values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIXES: Final = ("REVERB_", "SOKETI_")


class Honoured(NamedTuple):
    """Sets ``table.key``; with the table ``apps``, a field of the application from the environment.

    :ivar read: converts the value; "" leaves the setting unchanged. A ``ValueError`` says what is expected.
    """

    key: str
    read: Callable[[str], str] = str


class Ignored(NamedTuple):
    """Has no effect here, and needs none."""


class Elsewhere(NamedTuple):
    """Needs code of its own, in :mod:`.settings`."""


class UnsupportedSetting(NamedTuple):
    """Stops the start.

    :ivar instead: what the user should do.
    :ivar when: whether a value is refused; a default value may be harmless.
    """

    instead: str
    when: Callable[[str], bool] = bool


Rule = Honoured | Ignored | Elsewhere | UnsupportedSetting

_REVERB: Final[Mapping[str, Rule]] = {
    "REVERB_SERVER": Ignored(),
    "REVERB_SERVER_HOST": Honoured("server.host"),
    "REVERB_SERVER_PORT": Honoured("server.port"),
    "REVERB_SERVER_PATH": Honoured("server.path", values.path),
    "REVERB_HOST": Ignored(),  # these three are for Laravel as a client
    "REVERB_PORT": Ignored(),
    "REVERB_SCHEME": Ignored(),
    "REVERB_MAX_REQUEST_SIZE": Honoured("server.max_request_bytes"),
    "REVERB_SCALING_ENABLED": Elsewhere(),
    "REVERB_SCALING_CHANNEL": UnsupportedSetting(
        "set redis.prefix, of broadcaster and worker, and remove it", lambda text: text != "reverb"
    ),
    "REVERB_PULSE_INGEST_INTERVAL": Ignored(),
    "REVERB_TELESCOPE_INGEST_INTERVAL": Ignored(),
    "REVERB_APP_ID": Honoured("apps.id"),
    "REVERB_APP_KEY": Honoured("apps.key"),
    "REVERB_APP_SECRET": Honoured("apps.secret"),
    "REVERB_APP_PING_INTERVAL": Honoured("apps.activity_timeout"),
    "REVERB_APP_ACTIVITY_TIMEOUT": Honoured("apps.activity_timeout"),
    "REVERB_APP_MAX_CONNECTIONS": Honoured("apps.max_connections", values.limit),
    "REVERB_APP_MAX_MESSAGE_SIZE": Honoured("server.max_message_bytes"),
    "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM": Honoured("apps.client_events", values.accept_client_events_from),
    "REVERB_APP_ALLOWED_ORIGINS": Honoured("apps.allowed_origins"),
    "REVERB_ALLOWED_ORIGINS": Honoured("apps.allowed_origins"),
    "REVERB_APP_RATE_LIMITING_ENABLED": Elsewhere(),
    **{
        f"REVERB_APP_{kind}_{name}": Elsewhere()
        for kind in ("RATE_LIMIT", "RATE_LIMITING")
        for name in ("MAX_ATTEMPTS", "DECAY_SECONDS", "TERMINATE", "TERMINATE_ON_LIMIT")
    },
}

_REDIS_URL: Final = "set redis.url, of the kind redis+cluster:// or redis+sentinel://, and remove it"
_PROXY: Final = "bound requests at a proxy in front, and remove it (-1 means no limit)"

_SOKETI: Final[Mapping[str, Rule]] = {
    "SOKETI_HOST": Honoured("server.host"),
    "SOKETI_PORT": Honoured("server.port"),
    "SOKETI_PATH_PREFIX": Honoured("server.path", values.path),
    "SOKETI_DEFAULT_APP_ID": Honoured("apps.id"),
    "SOKETI_DEFAULT_APP_KEY": Honoured("apps.key"),
    "SOKETI_DEFAULT_APP_SECRET": Honoured("apps.secret"),
    "SOKETI_DEFAULT_APP_ENABLED": Honoured("apps.enabled", values.flag),
    "SOKETI_DEFAULT_APP_MAX_CONNS": Honoured("apps.max_connections", values.limit),
    "SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES": Honoured("apps.client_events", values.flag),
    "SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC": Honoured("apps.client_events_per_second", values.limit),
    "SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC": UnsupportedSetting(_PROXY, values.is_limit),
    "SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC": UnsupportedSetting(_PROXY, values.is_limit),
    "SOKETI_DEFAULT_APP_USER_AUTHENTICATION": UnsupportedSetting(
        "set apps.authorized_seconds to the seconds within which clients have to sign in, and remove it",
        values.is_on,
    ),
    "SOKETI_USER_AUTHENTICATION_TIMEOUT": Ignored(),  # has an effect only with the one above
    "SOKETI_DEFAULT_APP_WEBHOOKS": UnsupportedSetting(
        "set apps.webhooks, and remove it", lambda text: text not in ("", "[]")
    ),
    "SOKETI_EVENT_MAX_BATCH_SIZE": Honoured("apps.max_events_per_batch"),
    "SOKETI_EVENT_MAX_CHANNELS_AT_ONCE": Honoured("apps.max_channels_per_event"),
    "SOKETI_EVENT_MAX_SIZE_IN_KB": Honoured("apps.max_event_bytes", values.kilobytes),
    "SOKETI_EVENT_MAX_NAME_LENGTH": Honoured("apps.max_event_name_length"),
    "SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH": Honoured("apps.max_channel_name_length"),
    "SOKETI_PRESENCE_MAX_MEMBERS": Honoured("apps.max_presence_members"),
    "SOKETI_PRESENCE_MAX_MEMBER_SIZE": Honoured("apps.max_user_info_bytes", values.kilobytes),
    "SOKETI_CHANNEL_CACHE_TTL": Honoured("apps.cache_seconds"),
    "SOKETI_SSL_CERT": Honoured("server.tls_cert"),
    "SOKETI_SSL_KEY": Honoured("server.tls_key"),
    "SOKETI_SSL_PASS": UnsupportedSetting("give server.tls_key a key without a passphrase, and remove it"),
    "SOKETI_SSL_CA": UnsupportedSetting("put the whole chain into server.tls_cert, and remove it"),
    "SOKETI_METRICS_ENABLED": Honoured("metrics.enabled", values.flag),
    "SOKETI_METRICS_HOST": Honoured("metrics.host"),
    "SOKETI_METRICS_SERVER_PORT": Honoured("metrics.port"),
    "SOKETI_METRICS_DRIVER": Ignored(),
    "SOKETI_METRICS_PROMETHEUS_PREFIX": Ignored(),
    "SOKETI_ADAPTER_DRIVER": UnsupportedSetting(
        "set redis.url for several nodes, and remove it", lambda text: text not in ("", "local")
    ),
    "SOKETI_ADAPTER_REDIS_PREFIX": UnsupportedSetting("set redis.prefix, and remove it"),
    "SOKETI_DB_REDIS_KEY_PREFIX": UnsupportedSetting("set redis.prefix, and remove it"),
    "SOKETI_DB_REDIS_SENTINELS": UnsupportedSetting(_REDIS_URL),
    "SOKETI_DB_REDIS_CLUSTER_NODES": UnsupportedSetting(_REDIS_URL, lambda text: text not in ("", "[]")),
    "SOKETI_APP_MANAGER_DRIVER": UnsupportedSetting(
        "set app_source.database_url or app_source.redis_hash, and remove it",
        lambda text: text not in ("", "array"),
    ),
    "SOKETI_MODE": UnsupportedSetting(
        "a broadcaster is what full and server are: remove it", lambda text: text == "worker"
    ),
    "SOKETI_DEBUG": Honoured("log.level", values.debug),
    "SOKETI_SHUTDOWN_GRACE_PERIOD": Honoured("server.drain_seconds", values.milliseconds),
}

_SOKETI_IGNORED: Final = """
    ADAPTER_CLUSTER_REQUESTS_TIMEOUT ADAPTER_REDIS_CLUSTER_MODE ADAPTER_REDIS_REQUESTS_TIMEOUT
    ADAPTER_REDIS_SUB_OPTIONS ADAPTER_REDIS_PUB_OPTIONS ADAPTER_NATS_PREFIX ADAPTER_NATS_SERVERS
    ADAPTER_NATS_USER ADAPTER_NATS_PASSWORD ADAPTER_NATS_TOKEN ADAPTER_NATS_TIMEOUT
    ADAPTER_NATS_REQUESTS_TIMEOUT ADAPTER_NATS_NODES_NUMBER APP_MANAGER_CACHE_ENABLED
    APP_MANAGER_CACHE_TTL APP_MANAGER_DYNAMODB_TABLE APP_MANAGER_DYNAMODB_REGION
    APP_MANAGER_DYNAMODB_ENDPOINT APP_MANAGER_MYSQL_TABLE APP_MANAGER_MYSQL_VERSION
    APP_MANAGER_POSTGRES_TABLE APP_MANAGER_POSTGRES_VERSION APP_MANAGER_MYSQL_USE_V2 CACHE_DRIVER
    CACHE_REDIS_CLUSTER_MODE CACHE_REDIS_OPTIONS CLUSTER_CHECK_INTERVAL CLUSTER_HOST
    CLUSTER_IGNORE_PROCESS CLUSTER_BROADCAST_ADDRESS CLUSTER_KEEPALIVE_INTERVAL CLUSTER_MASTER_TIMEOUT
    CLUSTER_MULTICAST_ADDRESS CLUSTER_NODE_TIMEOUT CLUSTER_PORT CLUSTER_PREFIX CLUSTER_UNICAST_ADDRESSES
    DB_POOLING_ENABLED DB_POOLING_MIN DB_POOLING_MAX DB_MYSQL_HOST DB_MYSQL_PORT DB_MYSQL_USERNAME
    DB_MYSQL_PASSWORD DB_MYSQL_DATABASE DB_POSTGRES_HOST DB_POSTGRES_PORT DB_POSTGRES_USERNAME
    DB_POSTGRES_PASSWORD DB_POSTGRES_DATABASE DB_REDIS_HOST DB_REDIS_PORT DB_REDIS_DB DB_REDIS_USERNAME
    DB_REDIS_PASSWORD DB_REDIS_SENTINEL_PASSWORD DB_REDIS_INSTANCE_NAME
    HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD QUEUE_DRIVER QUEUE_REDIS_CONCURRENCY QUEUE_REDIS_OPTIONS
    QUEUE_REDIS_CLUSTER_MODE QUEUE_SQS_REGION QUEUE_SQS_CLIENT_OPTIONS QUEUE_SQS_URL QUEUE_SQS_ENDPOINT
    QUEUE_SQS_PROCESS_BATCH QUEUE_SQS_BATCH_SIZE QUEUE_SQS_POLLING_WAIT_TIME_MS RATE_LIMITER_DRIVER
    RATE_LIMITER_REDIS_OPTIONS RATE_LIMITER_REDIS_CLUSTER_MODE WEBHOOKS_BATCHING
    WEBHOOKS_BATCHING_DURATION
"""
"""Options of backends that Legato lacks. The variable that selects such a backend stops the start."""

RULES: Final[Mapping[str, Rule]] = {
    **_SOKETI,
    **{f"SOKETI_{name}": Ignored() for name in _SOKETI_IGNORED.split()},
    **_REVERB,
}
"""All variables. Of two for the same setting the later one wins; of two limits the stricter one."""
