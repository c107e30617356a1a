"""Settings of the broadcaster. ``docs/settings.md`` describes each one for users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple

import msgspec

from legato.protocol import settings
from legato.protocol.apps import ANY_ORIGIN, App, Count, Positive
from legato.protocol.jobs import (
    MAX_ATTACHMENTS,
    MAX_REQUEST_BYTES,
    MAX_TEXT,
    MAX_TURNS,
    OPTIONS,
    check_reply_channel,
)
from legato.protocol.origins import Origins
from legato.protocol.redaction import SecretText, SecretUrl, text_of
from legato.protocol.redis_env import source_of_url, with_redis_url
from legato.protocol.settings import SettingsError

from . import app_environment
from .address_limits import MAX_TRUSTED_PROXIES
from .addresses import callers
from .doors.settings import Door, DoorSettings
from .foreign import settings as foreign
from .limits import LEASE_SECONDS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

NO_APP: Final = "apps: no application; expected [[apps]] with id, key and secret, or REVERB_APP_ID/KEY/SECRET"

LOCAL_HOSTS: Final = ("localhost", "*.localhost", "127.0.0.1", "[::1]")
"""Host names of this machine."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
TableName = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9_-]{1,63}\.)?[A-Za-z0-9_-]{1,63}\Z")]
UrlPath = Annotated[str, msgspec.Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*\Z")]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file."""

    def __repr__(self) -> str:
        """Without secrets."""
        return text_of(self)


class Server(Table, frozen=True):
    """``[server]``: address and limits. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: Port = 8080
    path: UrlPath = ""
    fallback: bool = True
    fallback_path: UrlPath = "/pusher"
    processes: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    stall_seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 15
    reuse_port: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_connections: Count = 0
    max_connections_per_address: Count = 0
    max_new_connections_per_address: Count = 0
    max_failed_tokens_per_address: Count = 0
    max_failed_signatures_per_address: Count = 0
    max_subscriptions: Count = 500_000
    max_message_bytes: Positive = 65_536
    max_request_bytes: Positive = 1_048_576
    send_queue_bytes: Positive = 1_048_576
    keep_alive: Seconds = 75
    request_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 20
    notice_seconds: Seconds = 0
    drain_seconds: Seconds = 5
    lease_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = LEASE_SECONDS

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        try:
            Origins(self.cors_origins, scheme=True)
        except ValueError as error:
            raise ValueError(f"cors_origins: {error}") from error
        if len(self.trusted_proxies) > MAX_TRUSTED_PROXIES:
            raise ValueError(f"trusted_proxies: expected at most {MAX_TRUSTED_PROXIES}")
        try:
            callers.networks(self.trusted_proxies)
        except ValueError as error:
            raise ValueError(f"trusted_proxies: {error}") from error


class Metrics(Table, frozen=True):
    """``[metrics]``: Prometheus metrics on a separate port; ``enabled = false`` turns them off.

    The default port is none of Prometheus (9090), its exporters (from 9100) or temporary ones (from 32768).
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 17090


Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512", "EdDSA"
]


class Auth(Table, frozen=True):
    """``[auth]``: how JWTs are verified, and which channels their claims allow.

    At most one of ``jwt_secret`` (HS*), ``jwt_public_key`` (a PEM file) and ``jwks_url``.
    """

    jwt_secret: SecretText = ""
    jwt_public_key: str = ""
    jwks_url: SecretUrl = ""
    jwks_seconds: Annotated[float, msgspec.Meta(ge=10, le=86_400)] = 300
    require_exp: bool = True
    algorithms: tuple[Algorithm, ...] = ()
    issuer: str = ""
    audience: str = ""
    channels: tuple[str, ...] = ("private-ai-chat.{sub}",)
    user_info: tuple[str, ...] = ()
    encryption_master_key: SecretText = ""
    app: str = ""


class Chat(Table, frozen=True):
    """``[chat]``: the application and the job stream of chat messages, and their limits."""

    queue: settings.Queue = "ai-streaming"
    app: str = ""
    idempotency_seconds: Positive = 86_400
    unclaimed_seconds: Positive = 86_400
    max_open_per_user: Count = 10
    max_queued: Count = 10_000
    max_message_characters: Annotated[int, msgspec.Meta(ge=1, le=MAX_TEXT)] = 100_000
    max_history_turns: Annotated[int, msgspec.Meta(ge=1, le=MAX_TURNS)] = 100
    max_history_characters: Annotated[int, msgspec.Meta(ge=1, le=MAX_REQUEST_BYTES)] = 160_000
    allow: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    max_attachments: Annotated[int, msgspec.Meta(ge=0, le=MAX_ATTACHMENTS)] = 5
    attachment_hosts: tuple[str, ...] = ()
    max_attachment_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_REQUEST_BYTES)] = 524_288
    tenant_claim: str = ""
    database_url: SecretUrl = ""
    prices: dict[str, settings.Price] = {}
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")] = "USD"
    doors: tuple[Door, ...] = ()

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        for name in self.allow:
            if name not in OPTIONS:
                raise ValueError(f"allow: {name!r}: expected some of {', '.join(OPTIONS)}")
        for values, name in ((self.agents, "agent"), (self.models, "model")):
            if values and name not in self.allow:
                raise ValueError(f"{name}s: expected {name!r} in allow with it")
        for pattern in self.channels:
            try:
                check_reply_channel(pattern.removesuffix("*"))
            except ValueError as error:
                raise ValueError(f"channels: {pattern!r}: {error}") from error
        try:
            Origins(self.attachment_hosts)
        except ValueError as error:
            raise ValueError(f"attachment_hosts: {error}") from error


class AppSource(Table, frozen=True):
    """``[app_source]``: a store of applications that may change while the server runs."""

    redis_hash: str = ""
    database_url: SecretUrl = ""
    database_table: TableName = "legato_apps"
    seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10


class Dev(Table, frozen=True):
    """``[dev]``: enabled by ``legato up``. Never for production: it issues tokens for any user.

    Pages of ``hosts`` may fetch these tokens, and connect to applications without ``allowed_origins``.
    """

    enabled: bool = False
    hosts: tuple[str, ...] = LOCAL_HOSTS
    page: str = ""
    provider: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        try:
            Origins(self.hosts)
        except ValueError as error:
            raise ValueError(f"hosts: {error}") from error


class Settings(msgspec.Struct, frozen=True):
    """All settings of the broadcaster."""

    server: Server = Server()
    metrics: Metrics = Metrics()
    apps: tuple[App, ...] = ()
    redis: settings.Redis = settings.Redis()
    log: settings.Log = settings.Log()
    auth: Auth = Auth()
    chat: Chat = Chat()
    doors: DoorSettings = DoorSettings()
    dev: Dev = Dev()
    app_source: AppSource = AppSource()

    def app(self, app_id: str) -> App:
        """Return the application with this id; the first one for an empty id.

        :raises SettingsError: there is no such application.
        """
        for app in self.apps:
            if app_id in ("", app.id):
                return app
        raise SettingsError(f"auth.app, chat.app: {app_id!r}: no such application id" if app_id else NO_APP)


class SettingsSource(NamedTuple):
    """Where settings come from, to read them again while the server runs.

    :ivar read: reads and checks them; raises SettingsError.
    :ivar use_level: logs this level and above from now on.
    """

    read: Callable[[], Settings]
    use_level: Callable[[str], None]


ALIASES: Final = foreign.ALIASES | {"REDIS_URL": "redis.url"}
"""Environment variables in addition to ``LEGATO_TABLE_KEY``: those of Laravel, Reverb and soketi."""


def load(
    args: argparse.Namespace, environ: Mapping[str, str], sources: dict[str, str] | None = None
) -> Settings:
    """Load the settings from ``--config``, the environment and the command line.

    :param sources: is filled as by :func:`legato.protocol.settings.load`, applications as ``apps.ID.KEY``.
    :raises SettingsError: a setting is wrong. The text is one line for the user.
    """
    path = getattr(args, "config", None)
    sources = {} if sources is None else sources
    theirs = foreign.read(environ)
    others = {name: text for name, text in environ.items() if name not in foreign.ALIASES}
    if foreign.scales(environ) is not False:
        others = with_redis_url(others, default=foreign.scales(environ) is True)
    loaded = settings.load(
        Settings,
        path=path,
        read=lambda path: Path(path).read_text(encoding="utf-8"),
        environ={**others, **theirs.environ},
        aliases=ALIASES,
        overrides={f"server.{name}": getattr(args, name, None) for name in ("host", "port", "processes")}
        | {"metrics.port": getattr(args, "metrics_port", None)},
        sources=sources,
    )
    if sources.get("redis.url") == "REDIS_URL":
        sources["redis.url"] = source_of_url(environ)
    apps = app_environment.merge(loaded.apps, environ, theirs, sources)
    if loaded.dev.enabled:
        apps = tuple(_of_hosts(app, loaded.dev.hosts) for app in apps)
    loaded = msgspec.structs.replace(loaded, apps=apps)
    _check(loaded, path or settings.NO_FILE)
    return loaded


def _of_hosts(app: App, hosts: tuple[str, ...]) -> App:
    """Restrict an application to pages of ``hosts``, unless it has its own ``allowed_origins``."""
    if app.allowed_origins != ANY_ORIGIN:
        return app
    return msgspec.structs.replace(app, allowed_origins=hosts)


def _check(loaded: Settings, source: str) -> None:
    """Check conditions between several settings."""
    ids = [app.id for app in loaded.apps]
    keys = [key for app in loaded.apps for key in app.keys]
    places = [bool(loaded.app_source.redis_hash), bool(loaded.app_source.database_url)]
    fixed = not any(places)
    server, auth, chat = loaded.server, loaded.auth, loaded.chat
    body = min(server.max_request_bytes, MAX_REQUEST_BYTES)
    ways = [bool(auth.jwt_secret), bool(auth.jwt_public_key), bool(auth.jwks_url)]
    checks = (
        (
            loaded.dev.enabled and not auth.jwt_secret,
            "dev.enabled: expected auth.jwt_secret with it, to sign tokens",
        ),
        (fixed and not ids, NO_APP),
        (all(places), "app_source: expected only one of redis_hash and database_url"),
        (
            bool(loaded.app_source.redis_hash) and not loaded.redis.url,
            "app_source.redis_hash: expected redis.url with it",
        ),
        (len(set(ids)) < len(ids), "apps: two applications have the same id"),
        (len(set(keys)) < len(keys), "apps: two applications have the same key"),
        (fixed and bool(auth.app) and auth.app not in ids, "auth.app: no such application id"),
        (
            fixed and bool(loaded.chat.app) and loaded.chat.app not in ids,
            "chat.app: no such application id",
        ),
        (
            bool(server.tls_cert) != bool(server.tls_key),
            "server: expected both tls_cert and tls_key, or neither",
        ),
        (sum(ways) > 1, "auth: expected only one of jwt_secret, jwt_public_key and jwks_url"),
        (
            "attachments" in chat.allow and chat.max_attachment_bytes > body // 4 * 3,
            f"chat.max_attachment_bytes: expected at most {body // 4 * 3}: 3/4 of server.max_request_bytes",
        ),
        (
            server.processes > 1 and not loaded.redis.url,
            "server.processes: more than one needs redis.url: else they would not know each other",
        ),
    )
    for wrong, reason in checks:
        if wrong:
            raise SettingsError(f"{source}: {reason}")
