"""The worker's settings: from TOML, environment and command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from protocol import settings
from protocol.settings import SettingsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]

ALIASES: Final = {
    "REDIS_URL": "redis.url",
    "DATABASE_URL": "database.url",
    "ANTHROPIC_API_KEY": "provider.api_key",
    "ANTHROPIC_BASE_URL": "provider.base_url",
}
"""Environment names that work besides ``LEGATO_TABLE_KEY``."""


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[worker]``. Times are in seconds.

    :ivar queue: name of the job stream.
    :ivar concurrency: replies at once in one process.
    :ivar processes: how many processes to run; whoever starts this one sees to it.
    :ivar tries: how many workers may claim one job before it is given up.
    :ivar timeout: how long one claim may take to stream its reply.
    :ivar lease: how long a job stays with a worker that gives no sign of life.
    :ivar retention: how long a finished reply can be read up.
    :ivar drain_seconds: how long running replies may go on after SIGTERM.
    """

    queue: settings.Queue = "ai-streaming"
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16
    processes: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    tries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    timeout: Seconds = 120
    lease: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 30
    retention: Annotated[int, msgspec.Meta(ge=1, le=31_536_000)] = 3600
    drain_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 30


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[provider]``: who answers. Times are in seconds.

    :ivar name: ``anthropic``, or ``scripted`` for text without a model.
    :ivar max_tokens: bound on one reply.
    :ivar system: the system prompt; empty for none.
    :ivar base_url: empty for the provider's own.
    :ivar connect_seconds: to reach the provider.
    :ivar first_token_seconds: from the request to the first text.
    :ivar no_token_seconds: from one text to the next.
    :ivar retries: how often a request that failed before any text is repeated, within the worker's timeout.
    """

    name: Literal["anthropic", "scripted"] = "anthropic"
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "claude-sonnet-4-6"
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4096
    system: str = ""
    api_key: str = ""
    base_url: str = ""
    connect_seconds: Seconds = 5
    first_token_seconds: Seconds = 60
    no_token_seconds: Seconds = 30
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 3

    def __repr__(self) -> str:
        """Without the key."""
        return f"Provider(name={self.name!r}, model={self.model!r})"


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[database]``: ``url`` is ``sqlite:///FILE``, ``postgresql://...`` or ``mysql://...``."""

    url: str = "sqlite:///legato.db"

    def __repr__(self) -> str:
        """Without the password."""
        return "Database(...)"


class Settings(msgspec.Struct, frozen=True):
    """Every table that the worker reads."""

    redis: settings.Redis = settings.Redis()
    log: settings.Log = settings.Log()
    worker: Worker = Worker()
    provider: Provider = Provider()
    database: Database = Database()


def load(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Settings out of the flags of :func:`worker.cli.add_arguments`, the environment and the file they name.

    :raises SettingsError: one line for the user.
    """
    path = getattr(args, "config", None)
    loaded = settings.load(
        Settings,
        path=path,
        read=lambda path: Path(path).read_text(encoding="utf-8"),
        environ=environ,
        aliases=ALIASES,
        overrides={f"worker.{name}": getattr(args, name, None) for name in OVERRIDES},
    )
    _check(loaded)
    return loaded


OVERRIDES: Final = ("queue", "concurrency", "processes")
"""Keys of ``[worker]`` that are flags too."""


def _check(loaded: Settings) -> None:
    """What no single key can know."""
    if not loaded.redis.url:
        raise SettingsError("redis.url: is not set; the worker needs a Redis: set REDIS_URL")
    if loaded.provider.name == "anthropic":
        _check_anthropic(loaded.provider)


def _check_anthropic(provider: Provider) -> None:
    """Neither text repeats its value: a key is a secret, and an address may hold a password."""
    if not provider.api_key:
        without = "or LEGATO_PROVIDER_NAME=scripted to go without"
        raise SettingsError(f"provider.api_key: is not set; set ANTHROPIC_API_KEY, {without}")
    if not _HEADER_VALUE.fullmatch(provider.api_key):
        raise SettingsError("provider.api_key: has a character that no key has: a space or line break?")
    if provider.base_url and not _is_web_address(provider.base_url):
        raise SettingsError("provider.base_url: expected an http:// or https:// address")


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
