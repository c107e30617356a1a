"""The worker's settings: from TOML, environment and command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from legato.protocol import settings
from legato.protocol.jobs import TENANT
from legato.protocol.redaction import SecretText, SecretUrl, SecretValues, hidden, text_of
from legato.protocol.redis_env import source_of_url, with_redis_url
from legato.protocol.settings import SettingsError

from .importing import IMPORT_PATH

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]

NAME: Final = "[A-Za-z0-9_.-]{1,64}"
Queues = Annotated[str, msgspec.Meta(pattern=rf"^{NAME}(,{NAME}){{0,15}}\Z")]
"""Up to 16 names of job streams with commas between them."""

MaxRunning = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Weight = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Tenant = Annotated[str, msgspec.Meta(pattern=rf"^{TENANT.pattern}\Z")]

_ANTHROPIC_ALIASES: Final = {
    "ANTHROPIC_API_KEY": "provider.api_key",
    "ANTHROPIC_BASE_URL": "provider.base_url",
}

ALIASES: Final = {"REDIS_URL": "redis.url", "DATABASE_URL": "database.url", **_ANTHROPIC_ALIASES}
"""Environment names that work besides ``LEGATO_TABLE_KEY``."""


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[worker]``. Times are in seconds.

    :ivar queue: names of the job streams, separated by commas, the most urgent first.
    :ivar concurrency: concurrent replies in one process.
    :ivar processes: maximum number of processes. The supervisor starts them, not the worker itself.
    :ivar min_processes: minimum number of processes per queue, when balanced by ``auto``.
    :ivar balance: ``off``: each process reads all queues; ``simple``: each queue gets the same number of
        processes; ``auto``: as many as the age of its oldest waiting job requires.
    :ivar balance_cooldown: between two steps of balancing.
    :ivar balance_max_shift: processes that a queue gains or loses in one step.
    :ivar max_jobs: claims after which a supervised process is replaced. Here and in the next two, 0: never.
    :ivar max_time: age at which it is replaced.
    :ivar max_memory: resident MiB at which it is replaced.
    :ivar stall_seconds: without a heartbeat for this long, a process is killed.
    :ivar tries: maximum attempts at a reply, over all workers.
    :ivar on_interrupted: whether an interrupted reply is continued or fails.
    :ivar timeout: maximum time for which one claim may stream its reply.
    :ivar lease: time after which another worker may take over a job that is not renewed.
    :ivar retention: how long a finished reply can be read from its log.
    :ivar metrics_host: address at which Prometheus metrics are served.
    :ivar metrics_port: their port; 0: none. Of several processes, process n has that port + n.
    :ivar drain_seconds: how long running replies may continue after SIGTERM.
    :ivar fair: whether jobs are claimed in turns of their tenants and users, not in the order they came. The
        next five need it, and all workers of a queue the same values.
    :ivar max_per_user: maximum jobs of one user that run at once, over all workers; 0: no maximum.
    :ivar user_weights: jobs that a user, by the ``user_id`` of the job, gets per turn; others get one.
    :ivar max_per_tenant: the same for one tenant.
    :ivar tenant_weights: jobs that a tenant gets per round; others get one.
    :ivar tenant_limits: ``max_per_tenant`` for single tenants.
    :ivar agent: ``MODULE:NAME`` of the agent or handler that answers jobs which name none; empty: the model.
    :ivar agents: further ones by the name that a job gives as ``agent``.
    """

    queue: Queues = "ai-streaming"
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16
    processes: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    min_processes: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    balance: Literal["auto", "simple", "off"] = "off"
    balance_cooldown: Seconds = 3
    balance_max_shift: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    max_jobs: Annotated[int, msgspec.Meta(ge=0)] = 50
    max_time: Annotated[float, msgspec.Meta(ge=0)] = 0
    max_memory: Annotated[int, msgspec.Meta(ge=0)] = 512
    stall_seconds: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 30
    tries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    on_interrupted: Literal["continue", "fail"] = "continue"
    timeout: Seconds = 120
    lease: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 30
    retention: Annotated[int, msgspec.Meta(ge=1, le=31_536_000)] = 3600
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    drain_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 30
    fair: bool = False
    max_per_user: MaxRunning = 0
    user_weights: Annotated[dict[Tenant, Weight], msgspec.Meta(max_length=1000)] = {}
    max_per_tenant: MaxRunning = 0
    tenant_weights: Annotated[dict[Tenant, Weight], msgspec.Meta(max_length=1000)] = {}
    tenant_limits: Annotated[dict[Tenant, MaxRunning], msgspec.Meta(max_length=1000)] = {}
    agent: str = ""
    agents: dict[Annotated[str, msgspec.Meta(pattern=rf"^{NAME}\Z")], str] = {}

    @property
    def agent_paths(self) -> dict[str, str]:
        """Name -> ``MODULE:NAME``, of all agents."""
        return {**self.agents, **({"default": self.agent} if self.agent else {})}

    @property
    def queues(self) -> tuple[str, ...]:
        """The names in ``queue``, each once."""
        return split_queues(self.queue)


CLAUDE: Final = "claude-sonnet-4-6"


class ProviderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[provider]``: who answers. Times are in seconds.

    :ivar name: ``anthropic``, ``openai_compatible``, ``scripted`` for text without a model, or the
        ``MODULE:NAME`` of a callable that makes a :class:`.providers.base.Provider` from this table.
    :ivar max_tokens: bound on one reply.
    :ivar system: the system prompt; empty for none.
    :ivar base_url: empty for the provider's own.
    :ivar headers: additional request headers, for ``openai_compatible`` only.
    :ivar options: settings of a custom provider.
    :ivar connect_seconds: to reach the provider.
    :ivar first_token_seconds: from the request to the first text.
    :ivar no_token_seconds: from one text to the next.
    :ivar retries: how often a request that failed before any text is repeated, within the worker's timeout.
    :ivar prices: by the name that a model gives itself; for the metrics only.
    """

    name: str = "anthropic"
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = CLAUDE
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4096
    system: str = ""
    api_key: SecretText = ""
    base_url: SecretUrl = ""
    headers: SecretValues = {}
    options: Annotated[dict[str, Any], hidden("values")] = {}
    connect_seconds: Seconds = 5
    first_token_seconds: Seconds = 60
    no_token_seconds: Seconds = 30
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 3
    prices: dict[str, settings.Price] = {}

    def __repr__(self) -> str:
        """Without secrets."""
        return text_of(self)


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[database]``.

    :ivar url: ``sqlite:///FILE``, ``postgresql://...`` or ``mysql://...``.
    :ivar migrate: migrate the tables when a worker starts.
    :ivar history_turns: maximum turns of a stored conversation that are sent to the model.
    :ivar history_characters: maximum characters of these turns in all.
    :ivar title: what a conversation is called after its first reply: by the first words of its first message,
        by the ``model``, or not at all.
    :ivar title_model: the model for titles; empty: ``provider.model``.
    """

    url: SecretUrl = "sqlite:///legato.db"
    migrate: bool = True
    history_turns: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100
    history_characters: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 160_000
    title: Literal["first-words", "model", "off"] = "first-words"
    title_model: Annotated[str, msgspec.Meta(max_length=200)] = ""

    def __repr__(self) -> str:
        """Without secrets."""
        return text_of(self)


class ControlSettings(msgspec.Struct, frozen=True):
    """The settings of the commands that inspect and control workers."""

    redis: settings.Redis = settings.Redis()
    log: settings.Log = settings.Log()
    worker: Worker = Worker()


class Settings(msgspec.Struct, frozen=True):
    """The settings of a worker."""

    redis: settings.Redis = settings.Redis()
    log: settings.Log = settings.Log()
    worker: Worker = Worker()
    provider: ProviderSettings = ProviderSettings()
    database: Database = Database()


def load(
    args: argparse.Namespace, environ: Mapping[str, str], sources: dict[str, str] | None = None
) -> Settings:
    """Load the settings from the options of :mod:`legato.worker.options`, the environment and the file.

    :param sources: is filled as by :func:`legato.protocol.settings.load`.
    :raises SettingsError: one line for the user.
    """
    sources = {} if sources is None else sources
    loaded = _load(args, environ, ALIASES, sources)
    if loaded.provider.name not in ("anthropic", "scripted"):  # others must not get Anthropic's key
        sources.clear()
        loaded = _load(args, environ, ALIASES.keys() - _ANTHROPIC_ALIASES.keys(), sources)
    if sources.get("redis.url") == "REDIS_URL":
        sources["redis.url"] = source_of_url(environ)
    _check(loaded)
    return loaded


def _load(
    args: argparse.Namespace, environ: Mapping[str, str], aliases: Iterable[str], sources: dict[str, str]
) -> Settings:
    return settings.load(
        Settings,
        path=getattr(args, "config", None),
        read=lambda path: Path(path).read_text(encoding="utf-8"),
        environ=with_redis_url(environ),
        aliases={name: ALIASES[name] for name in aliases},
        overrides={f"worker.{name}": getattr(args, name, None) for name in OVERRIDES},
        sources=sources,
    )


OVERRIDES: Final = ("agent", "queue", "concurrency", "processes", "min_processes", "balance", "metrics_port")
"""Keys of ``[worker]`` that are also options."""


def load_control(path: str | None, environ: Mapping[str, str]) -> ControlSettings:
    """As :func:`load`, without the tables that only a worker needs, such as the provider's.

    :raises SettingsError: one line for the user.
    """
    loaded = settings.load(
        ControlSettings,
        path=path,
        read=lambda path: Path(path).read_text(encoding="utf-8"),
        environ=with_redis_url(environ),
        aliases={"REDIS_URL": ALIASES["REDIS_URL"]},
        overrides={},
    )
    if not loaded.redis.url:
        raise SettingsError("redis.url: is not set; the command reaches workers through Redis: set REDIS_URL")
    return loaded


def split_queues(names: str) -> tuple[str, ...]:
    """The names between the commas, each once."""
    return tuple(dict.fromkeys(names.split(",")))


def _check(loaded: Settings) -> None:
    """Checks that involve more than one key."""
    if not loaded.redis.url:
        raise SettingsError("redis.url: is not set; the worker needs Redis: set REDIS_URL")
    _check_processes(loaded.worker)
    _check_fairness(loaded.worker)
    _check_provider(loaded.provider)


def _check_processes(worker: Worker) -> None:
    least = {"auto": worker.min_processes, "simple": 1, "off": 0}[worker.balance] * len(worker.queues)
    if worker.processes < least:
        raise SettingsError(
            f"worker.processes: expected at least {least} for the queues {worker.queue} under worker.balance"
            f" {worker.balance}, got {worker.processes}"
        )


def _check_fairness(worker: Worker) -> None:
    """Refuse settings that would have no effect."""
    for name in ("max_per_user", "user_weights", "max_per_tenant", "tenant_weights", "tenant_limits"):
        if getattr(worker, name) and not worker.fair:
            raise SettingsError(f"worker.{name}: has no effect without worker.fair")


def _check_provider(provider: ProviderSettings) -> None:
    """Check the settings of the chosen provider. Errors contain neither key nor address."""
    check = _CHECKS.get(provider.name)
    if check is not None:
        check(provider)
    elif not IMPORT_PATH.fullmatch(provider.name):
        known = ", ".join(_CHECKS)
        raise SettingsError(f"provider.name: expected {known} or MODULE:NAME, got {provider.name!r}")


def _check_anthropic(provider: ProviderSettings) -> None:
    if not provider.api_key:
        without = "or LEGATO_PROVIDER_NAME=scripted to go without"
        raise SettingsError(f"provider.api_key: is not set; set ANTHROPIC_API_KEY, {without}")
    _check_access(provider)
    _check_unused(provider, "headers", "options")


def _check_openai_compatible(provider: ProviderSettings) -> None:
    """Address and model have no default: conversations go only where the operator sends them."""
    if not provider.base_url:
        raise SettingsError("provider.base_url: is not set; expected such as http://127.0.0.1:11434/v1")
    if provider.model == CLAUDE:
        raise SettingsError("provider.model: is not set; expected the name of a model that the server has")
    _check_access(provider)
    _check_unused(provider, "options")
    for name, value in provider.headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OUR_HEADERS:
            raise SettingsError(f"provider.headers: {name!r} is not a name of a header that can be set")
        if not _HEADER_VALUE.fullmatch(value.replace(" ", "")):
            raise SettingsError(f"provider.headers: {name} has a character that no header has, or no value")
    named = [*map(str.lower, provider.headers), *(["authorization"] if provider.api_key else [])]
    if urlsplit(provider.base_url).username is not None:
        named.append("authorization")
    if len(named) > len(set(named)):
        raise SettingsError("provider.headers: a header, api_key or password of base_url is given twice")


def _check_access(provider: ProviderSettings) -> None:
    if provider.api_key and not _HEADER_VALUE.fullmatch(provider.api_key):
        raise SettingsError("provider.api_key: has a character that no key has: a space or line break?")
    if provider.base_url and not _is_web_address(provider.base_url):
        raise SettingsError("provider.base_url: expected an http:// or https:// address")


def _check_unused(provider: ProviderSettings, *names: str) -> None:
    """Refuse settings that would have no effect."""
    for name in names:
        if getattr(provider, name):
            raise SettingsError(f"provider.{name}: {provider.name} has none")


_CHECKS: Final[dict[str, Callable[[ProviderSettings], None]]] = {
    "anthropic": _check_anthropic,
    "openai_compatible": _check_openai_compatible,
    "scripted": lambda _: None,
}
"""The providers that come with Legato."""

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")

_OUR_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the HTTP client sets."""

_HEADER_VALUE: Final = re.compile(r"[!-~]+")


def _is_web_address(text: str) -> bool:
    if not text.isprintable() or " " in text:  # urlsplit() would drop a line break
        return False
    try:
        address = urlsplit(text)
        _ = address.port
    except ValueError:
        return False
    return address.scheme in ("http", "https") and bool(address.hostname)
