"""The programs of a run: how nodes and workers are configured and started."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

from legato.deploy import environment

from .app import APP_ID, APP_KEY
from .child import ClusterProcess
from .plan import LEASE, NODE_LEASE
from .readers import ROOM
from .tools import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LEGATO: Final = (sys.executable, "-P", "-m", "legato.deploy")
WORKER: Final = (*LEGATO, "worker", "--concurrency", "8")

TRIES: Final = 8
"""Attempts of a reply: more than the faults can use up."""

SETTINGS: Final = """\
[[apps]]
id = "{id}"
key = "{key}"
secret = "{secret}"
activity_timeout = 10
max_presence_members = 200

# Each node has its own path, so that the receiver can distinguish a retry from an event sent twice.
[[apps.webhooks]]
url = "{hook}"
events = ["channel_occupied", "channel_vacated", "member_added", "member_removed"]

[server]
lease_seconds = {lease}

[auth]
channels = ["private-ai-chat.{{sub}}", "{room}"]

[chat]
allow = ["agent"]
"""

AGENT: Final = "chaos"
"""The name under which the workers know the agent of :mod:`.tools`."""

WORKER_SETTINGS: Final = f"""\
[worker.agents]
{AGENT} = "legato.benchmarks.chaos.tools:agent"
"""

_LISTENING: Final = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
_READY: Final = re.compile(r"ready: queue")


class ChaosPrograms:
    """Makes the processes, which are not started yet.

    :param directory: for configuration, logs and the database.
    :param secret: the application's secret.
    :param worker: the command of a worker.
    """

    def __init__(self, directory: Path, secret: str, worker: Sequence[str]) -> None:
        self.database = directory / "chaos.db"
        self.ledger = directory / "ledger.db"
        self._directory = directory
        self._secret = secret
        self._command = worker

    def node(self, number: int, redis_url: str, hook: str) -> ClusterProcess:
        """A node; ``hook`` is the URL of its webhooks."""
        config = self._directory / f"legato-{number}.toml"
        settings = SETTINGS.format(
            id=APP_ID, key=APP_KEY, secret=self._secret, hook=hook, lease=NODE_LEASE, room=ROOM
        )
        config.write_text(settings, encoding="utf-8")
        command = (*LEGATO, "broadcaster", "--config", str(config), "--port", "0", "--metrics-port", "0")
        environ = environ_of("broadcaster", {"REDIS_URL": redis_url, "LEGATO_AUTH_JWT_SECRET": self._secret})
        return ClusterProcess(f"node {number}", command, environ, self._directory, _LISTENING)

    def worker(self, number: int, redis_url: str) -> ClusterProcess:
        """A worker."""
        settings = {
            "REDIS_URL": redis_url,
            "DATABASE_URL": f"sqlite:///{self.database}",
            "LEGATO_PROVIDER_NAME": "scripted",
            # Longer than any process is stopped. Otherwise a zombie that wakes up times out at the
            # provider, and never tries the write that the fence must refuse.
            "LEGATO_PROVIDER_NO_TOKEN_SECONDS": "12",
            "LEGATO_PROVIDER_FIRST_TOKEN_SECONDS": "4",
            "LEGATO_WORKER_LEASE": str(LEASE),
            "LEGATO_WORKER_TRIES": str(TRIES),
            "LEGATO_WORKER_DRAIN_SECONDS": "2",
        }
        config = self._directory / "worker.toml"
        config.write_text(WORKER_SETTINGS, encoding="utf-8")
        environ = environ_of("worker", settings) | {VARIABLE: str(self.ledger)}
        command = (*self._command, "--config", str(config))
        return ClusterProcess(f"worker {number}", command, environ, self._directory, _READY)


def environ_of(kind: str, settings: dict[str, str]) -> dict[str, str]:
    """The environment of a child, without variables for another Legato on this machine."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEGATO_", "PG"))}
    return environment.of_child(kind, clean, settings)
