"""`legato broadcaster` as a process, with the applications that the scenarios know."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from tests.e2e.conftest import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"

[[apps]]
id = "2"
key = "counted-key"
secret = "counted-secret"
subscription_count = true

[[apps.webhooks]]
url = "http://127.0.0.1:{webhooks_port}/webhooks"
"""


class Broadcaster:
    """Where it is, and where its second application's webhooks go."""

    def __init__(self, process: Process, webhooks_port: int) -> None:
        self.process = process
        self.port = int(process.line(r"listening on http://127\.0\.0\.1:(\d+)")[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.webhooks_port = webhooks_port


@contextlib.contextmanager
def legato_broadcaster(directory: Path, **environ: str) -> Iterator[Broadcaster]:
    """One that listens; at the end it must stop in order and must not have logged a traceback."""
    webhooks_port = free_port()
    config = directory / "legato.toml"
    config.write_text(CONFIG.format(webhooks_port=webhooks_port))
    process = Process(
        *("broadcaster", "--config", str(config), "--port", "0"),
        **{"LEGATO_METRICS_PORT": "0", "LEGATO_SERVER_DRAIN_SECONDS": "0.1"} | environ,
    )
    try:
        yield Broadcaster(process, webhooks_port)
        assert process.stop() == 0
        assert not re.search("Traceback|ERROR", process.output), process.output
    finally:
        process.close()
