"""The whole of Legato as a user starts it: `legato up`, on the embedded Valkey and on Debian's Redis."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import BINARIES
from tests.redis_servers import RedisServer
from tests.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


CLEAN = ("LEGATO_", "REVERB_", "ANTHROPIC_", "REDIS_URL", "DATABASE_URL", "PORT", "HOST", "METRICS_PORT")


# Who runs the tests under nohup has all that they start ignore a closed terminal, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def free_port() -> int:
    """A port that nobody has right now, and none of its neighbours' business."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


COMMAND = (sys.executable, "-m", "legato.deploy")

PATIENT = (
    "import sys; from legato.deploy import children, cli;"
    " children.ProcessTree.__init__.__defaults__ = (60.0, None); sys.exit(cli.main())"
)
"""The command, but what it has started is not killed after five seconds: a busy machine may need more."""


class Process:
    """A command of Legato, with what it has printed so far."""

    def __init__(self, *arguments: str, command: Sequence[str] = COMMAND, **environ: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=kept | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self._printed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._printed:
                self.output += line
                self._printed.notify_all()
        with self._printed:
            self._printed.notify_all()

    def line(self, pattern: str, seconds: float = WAIT) -> re.Match[str]:
        """Wait until it has printed something that matches."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.output)

        with self._printed:
            self._printed.wait_for(lambda: found() or self.process.poll() is not None, seconds)
            match = found()
        assert match is not None, f"{pattern!r} was not printed:\n{self.output}"
        return match

    def stop(self, signum: int = signal.SIGTERM, seconds: float = WAIT) -> int:
        """End it as Ctrl-C or a service manager does."""
        self.process.send_signal(signum)
        return self.ended(seconds)

    def ended(self, seconds: float = WAIT) -> int:
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        return status

    def close(self) -> None:
        """Leave nothing behind, however the test went."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.ended()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Legato(Process):
    """A running `legato up`.

    :ivar start_seconds: until it was ready, which says how busy the machine is.
    """

    start_seconds = 0.0

    def __init__(self, data: Path, **environ: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = {"PORT": str(self.port), "METRICS_PORT": str(free_port()), "LEGATO_DATA": str(data)}
        super().__init__("up", command=(sys.executable, "-c", PATIENT), **own | environ)


@contextlib.contextmanager
def legato_up(data: Path, **environ: str) -> Iterator[Legato]:
    """A `legato up` that is ready."""
    begun = time.monotonic()
    legato = Legato(data, **environ)
    try:
        legato.line("Ctrl-C")
        legato.start_seconds = time.monotonic() - begun
        yield legato
    finally:
        legato.close()


KINDS = ("embedded Valkey", "redis-server")


@pytest.fixture(scope="module", params=KINDS)
def legato(request, tmp_path_factory) -> Iterator[Legato]:
    """A `legato up` shared by the tests of a file, once per kind of Redis."""
    data = tmp_path_factory.mktemp("legato")
    with contextlib.ExitStack() as stack:
        environ: dict[str, str] = {}
        if request.param == "redis-server":
            environ["REDIS_URL"] = stack.enter_context(RedisServer(BINARIES["redis"])).url
        running = stack.enter_context(legato_up(data, **environ))
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.output
