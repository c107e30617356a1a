"""``legato up``: runs everything on one machine for development.

It starts Valkey (or uses the Redis of ``REDIS_URL``), a broadcaster with the chat page, and a worker. The
application's key and secret are fixed and public, and the page issues tokens to anybody: never for
production.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import ipaddress
import os
import re
import secrets
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from legato.protocol.settings import SettingsError

from . import chat_page, environment, logs, own_hosts, ports, private, valkey
from .children import ProcessTree, Spec
from .console import OWN_NAME
from .errors import BAD_USAGE, CommandError
from .up_options import port_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from legato.protocol.settings import Log

    from .console import Console

APP_ID: Final = "1"
APP_KEY: Final = "app-key"
APP_SECRET: Final = "app-secret"  # noqa: S105 - the development application's secret is public

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
DEFAULT_DATA: Final = ".legato"
DRAIN_SECONDS: Final = "1"
"""Time for broadcaster and worker each to finish: all of ``up`` must end within five seconds."""

LEGATO: Final = (sys.executable, "-P", "-m", "legato.deploy")
"""The ``legato`` command. ``-P``: ignore modules in the user's current directory."""

WORKER_READY: Final = re.compile(r"\bready: ")
"""The line of a worker that is ready for jobs."""

_SECRET_CHARACTERS: Final = 32
"""HS256 requires a key as long as its hash (RFC 7518, 3.2)."""


@dataclass(frozen=True)
class UpPlan:
    """The checked options of the command line and the environment."""

    host: str
    port: int
    metrics_port: int
    data: Path
    page: Path
    provider: str
    agent: str
    environ: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def url(self) -> str:
        """URL of the page for a browser on this machine."""
        return f"http://{_in_url(_reachable(self.host))}:{self.port}"

    @property
    def metrics_url(self) -> str:
        """URL of the metrics."""
        return f"http://{_in_url(_reachable(self.metrics_host))}:{self.metrics_port}/metrics"

    @property
    def metrics_host(self) -> str:
        """Address of the metrics: this machine only, unless configured otherwise."""
        return self.environ.get("LEGATO_METRICS_HOST") or DEFAULT_HOST


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run until Ctrl-C or SIGTERM, and leave no process behind.

    :raises CommandError: it cannot start, or a restart cannot fix a part of it.
    """
    os.umask(private.UMASK)  # of the children too: their files contain conversations and secrets
    asyncio.run(_up(_plan(args, environ)))
    return 0


def _plan(args: argparse.Namespace, environ: Mapping[str, str]) -> UpPlan:
    host, host_notes = _host(args.host, environ)
    port = args.port or _port("PORT", environ, DEFAULT_PORT)
    if not ports.is_free(host, port):
        raise CommandError(f"port {port} is taken: stop what uses it or set PORT to another one")
    metrics_host = environ.get("LEGATO_METRICS_HOST") or DEFAULT_HOST
    metrics_port, metrics_notes = _metrics_port(metrics_host, port, environ)
    page = chat_page.directory(environ)
    data = _directory((args.data or Path(environ.get("LEGATO_DATA") or DEFAULT_DATA)).absolute())
    provider = "scripted" if args.scripted else _provider(environ)
    agent = args.agent or environ.get("LEGATO_WORKER_AGENT") or ""
    return UpPlan(host, port, metrics_port, data, page, provider, agent, environ, host_notes + metrics_notes)


def _provider(environ: Mapping[str, str]) -> str:
    """The provider that is set; else Anthropic if there is a key, else the script."""
    has_key = environ.get("ANTHROPIC_API_KEY") or environ.get("LEGATO_PROVIDER_API_KEY")
    return environ.get("LEGATO_PROVIDER_NAME") or ("anthropic" if has_key else "scripted")


def _host(option: str | None, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The address to listen on. Some shells export HOST as the machine's name or type, which is ignored."""
    if option:
        return option, ()
    host = environ.get("HOST") or DEFAULT_HOST
    if host == "localhost":
        return host, ()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return DEFAULT_HOST, (f"HOST={host} is not an IP address and is ignored; --host takes names too",)
    return host, ()


def _port(name: str, environ: Mapping[str, str], default: int) -> int:
    try:
        return port_number(environ.get(name) or str(default))
    except argparse.ArgumentTypeError as error:
        raise CommandError(f"{name}: {error}", BAD_USAGE) from None


def _metrics_port(host: str, port: int, environ: Mapping[str, str]) -> tuple[int, tuple[str, ...]]:
    wanted = _port("METRICS_PORT", environ, port + 1 if port < 65535 else port - 1)
    if wanted != port and ports.is_free(host, wanted):
        return wanted, ()
    chosen = ports.any_free(host)
    return chosen, (f"port {wanted} is taken: metrics are on port {chosen}",)


def _directory(path: Path) -> Path:
    """Make ``path`` a private directory that version control ignores."""
    try:
        str(path).encode()  # it becomes part of URLs
        private.directory(path)
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not UTF-8"
        line = f"LEGATO_DATA: {path} cannot be used as a directory: {reason}"
        raise CommandError(line) from None
    return path


def _jwt_secret(data: Path) -> str:
    """The secret for this data directory's tokens, created on first use and readable by the owner only.

    A secret that is too short to sign with, after a full disk or an emptied file, is replaced.

    :raises CommandError: it cannot be read or written.
    """
    path = data / "jwt-secret"
    try:
        with _locked(data):  # of two concurrent starts, the second reads the secret of the first
            kept = path.read_text().strip() if path.exists() else ""
            return kept if len(kept) >= _SECRET_CHARACTERS else _replace(path, secrets.token_urlsafe(32))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text; remove it"
        raise CommandError(f"LEGATO_DATA: {path} cannot be used: {reason}") from None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold an exclusive lock on the directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, text: str) -> str:
    """Write a private file atomically; returns ``text``."""
    made = path.with_name(f"{path.name}.new")
    made.unlink(missing_ok=True)  # left by a killed process
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)
    return text


async def _up(plan: UpPlan) -> None:
    with ExitStack() as stack:
        redis_url, server = await _redis(plan, stack)
        broadcaster, worker, model, log = _children(plan, redis_url)
        specs = [spec for spec in (server, broadcaster, worker) if spec]
        terminal = stack.enter_context(_terminal([OWN_NAME, *(spec.name for spec in specs)], log))

        async def begin(tree: ProcessTree) -> None:
            for note in plan.notes:
                terminal.line(OWN_NAME, note)
            if server:
                tree.start(server)
                await tree.ready()
            tree.start(broadcaster)
            tree.start(worker)
            await tree.ready()
            terminal.print(_banner(plan, model, redis_url if server is None else None))

        await ProcessTree(terminal).run(begin)


async def _redis(plan: UpPlan, stack: ExitStack) -> tuple[str, Spec | None]:
    """The URL of the Redis to use, and the embedded Valkey to run, if any."""
    url = plan.environ.get("LEGATO_REDIS_URL") or plan.environ.get("REDIS_URL")
    if url:
        await valkey.check(url)
        return url, None
    server = stack.enter_context(valkey.prepared(plan.data))
    return server.url, server.spec


@contextmanager
def _terminal(names: list[str], log: Log) -> Iterator[Console]:
    terminal = logs.terminal(sys.stdout.fileno(), names, log)
    try:
        yield terminal
    finally:
        terminal.close()


def _children(plan: UpPlan, redis_url: str) -> tuple[Spec, Spec, str, Log]:
    """Broadcaster, worker, the model that answers (empty for none), and how they log.

    Loads their settings as they will, so that a mistake is one line before anything runs.
    """
    import legato.broadcaster.config  # noqa: PLC0415 - here, so that an error above costs no loading time
    import legato.worker.config  # noqa: PLC0415 - as above
    from legato.broadcaster.doors import settings as doors  # noqa: PLC0415 - as above

    none = argparse.Namespace(config=None)
    try:
        settings = _worker_settings(plan, redis_url)
        worker_environ = environment.of_child("worker", plan.environ, settings, guests=bool(plan.agent))
        loaded = legato.worker.config.load(none, worker_environ)
        model = loaded.provider.model if plan.provider in _MODELS_BY_NAME else ""
        own = _broadcaster_settings(plan, redis_url, model)
        own |= {"LEGATO_CHAT_DOORS": plan.environ.get("LEGATO_CHAT_DOORS", ",".join(doors.DOORS))}
        broadcaster_environ = environment.of_child("broadcaster", plan.environ, own)
        legato.broadcaster.config.load(none, broadcaster_environ)
    except SettingsError as error:
        raise CommandError(str(error), BAD_USAGE) from None

    verbose, hide = logs.of_child(loaded.log.level)
    timed = logs.time_of_child(loaded.log.time, sys.stdout.fileno())
    worker_command = (*LEGATO, "worker", *(["--reload"] if plan.agent else []))

    async def is_up() -> bool:
        return await _answers(_reachable(plan.host), plan.port, "/up")

    return (
        Spec("broadcaster", (*LEGATO, "broadcaster"), {**broadcaster_environ, **timed}, ready=is_up),
        Spec("worker", worker_command, {**worker_environ, **verbose, **timed}, ready=WORKER_READY, hide=hide),
        model,
        loaded.log,
    )


def _broadcaster_settings(plan: UpPlan, redis_url: str, model: str) -> dict[str, str]:
    return {
        "LEGATO_SERVER_HOST": plan.host,
        "LEGATO_SERVER_PORT": str(plan.port),
        "LEGATO_SERVER_DRAIN_SECONDS": DRAIN_SECONDS,
        "LEGATO_METRICS_PORT": str(plan.metrics_port),
        "LEGATO_REDIS_URL": redis_url,
        "LEGATO_APP_ID": APP_ID,
        "LEGATO_APP_KEY": APP_KEY,
        "LEGATO_APP_SECRET": APP_SECRET,
        "LEGATO_AUTH_JWT_SECRET": _jwt_secret(plan.data),
        "LEGATO_DEV_ENABLED": "true",
        "LEGATO_DEV_HOSTS": ",".join(own_hosts.of(plan.host, plan.port, plan.environ)),
        "LEGATO_DEV_PAGE": str(plan.page),
        "LEGATO_DEV_PROVIDER": plan.provider,
        "LEGATO_DEV_MODEL": model,
        "LEGATO_CHAT_DATABASE_URL": plan.environ.get("LEGATO_CHAT_DATABASE_URL") or _database_url(plan),
    }


def _worker_settings(plan: UpPlan, redis_url: str) -> dict[str, str]:
    settings = {
        "LEGATO_REDIS_URL": redis_url,
        "LEGATO_DATABASE_URL": _database_url(plan),
        "LEGATO_PROVIDER_NAME": plan.provider,
        "LEGATO_WORKER_DRAIN_SECONDS": DRAIN_SECONDS,
    }
    if plan.agent:
        settings["LEGATO_WORKER_AGENT"] = plan.agent
    if plan.provider == "scripted":
        return settings | {"LEGATO_PROVIDER_API_KEY": ""}  # it does not need the key
    if plan.provider == "anthropic":
        settings |= {name: plan.environ[name] for name in _ANTHROPIC_NAMES if plan.environ.get(name)}
    return settings


def _database_url(plan: UpPlan) -> str:
    given = plan.environ.get("LEGATO_DATABASE_URL") or plan.environ.get("DATABASE_URL")
    return given or f"sqlite:///{quote(str(plan.data / 'legato.db'))}"


_MODELS_BY_NAME: Final = frozenset({"anthropic", "openai_compatible"})
"""Providers that ask for the model of ``provider.model``."""

_ANTHROPIC_NAMES: Final = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")


def _banner(plan: UpPlan, model: str, redis_url: str | None) -> str:
    replies = "Replies come from a script: set ANTHROPIC_API_KEY for the real thing"
    if plan.provider != "scripted":
        name = {"anthropic": "Anthropic"}.get(plan.provider, plan.provider)
        replies = f"Replies come from {name} ({model})" if model else f"Replies come from {name}"
    lines = ["", "Legato is ready:", "", plan.url, "", replies]
    if plan.agent:
        lines.append(f"Agent:   {plan.agent}, reloaded when its files change")
    lines.append(f"Data:    {plan.data}")
    if redis_url:
        lines.append(f"Redis:   {valkey.without_password(redis_url)}")
    lines.append(f"Metrics: {plan.metrics_url}")
    if plan.host not in ("localhost", "::1") and not plan.host.startswith("127."):
        lines.append(f"Careful: on {plan.host} everybody who reaches this machine can use it")
        lines.append("Pages of further hosts may connect when LEGATO_DEV_HOSTS names them")
    return "\n".join([*lines, "Ctrl-C stops it.", ""])


def _reachable(host: str) -> str:
    """The address to connect to, for an address to listen on."""
    return {"0.0.0.0": DEFAULT_HOST, "::": "::1"}.get(host, host)  # noqa: S104 - it is looked up, not bound


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _answers(host: str, port: int, path: str) -> bool:
    """Whether an HTTP GET returns 200."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
