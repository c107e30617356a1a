"""Legato, as a process, against every case: alone and with Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from legato.benchmarks.conformance.hooks import listening
from legato.benchmarks.conformance.runner import SuiteRunner
from legato.benchmarks.conformance.target import Application, Target
from tests import tiers
from tests.benchmarks.conformance.support import CASES
from tests.broadcaster.test_server import ENVIRON, legato

if TYPE_CHECKING:
    from pathlib import Path

ENGINES = ("local", "redis", "two processes")

NOT_APPLICABLE = {"two processes": {name for name in CASES if name.startswith("12 ")}}
"""The fallback transports are a session in one process's memory. Nothing else is out of reach."""

CONFIG = """
[server]
port = 0

[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
allowed_origins = ["localhost"]
subscription_count = true
activity_timeout = 2
pong_timeout = 3
webhooks = [{{ url = "{hooks}/hooks" }}]

[[apps]]
id = "2"
key = "disabled-key"
secret = "disabled-secret"
enabled = false

[[apps]]
id = "3"
key = "full-key"
secret = "full-secret"
max_connections = 1

[[apps]]
id = "4"
key = "strict-key"
secret = "strict-secret"
authorized_seconds = 1

[[apps]]
id = "5"
key = "quiet-key"
secret = "quiet-secret"
client_events = false
"""

ROLES = {"disabled": "2", "full": "3", "strict": "4", "quiet": "5"}


def slow(engine: str) -> bool:
    """Cases that wait for timers, which know no engine: in short, with one."""
    return engine == "local" or tiers.PROOF


@pytest.mark.proof
@pytest.mark.parametrize("engine", ENGINES)
async def test_legato_conforms(engine: str, tmp_path: Path, request: pytest.FixtureRequest):
    environ = {name: value for name, value in ENVIRON.items() if not name.startswith("REVERB_")}
    options = ["--processes", "2"] if engine == "two processes" else []
    if engine != "local":
        environ["REDIS_URL"] = request.getfixturevalue("valkey_url")
    config = tmp_path / "legato.toml"
    async with listening("127.0.0.1", 0) as hooks:
        config.write_text(CONFIG.format(hooks=hooks.url))
        async with legato("broadcaster", "--config", str(config), *options, environ=environ) as process:
            port = int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])
            target = Target(
                f"ws://127.0.0.1:{port}",
                f"http://127.0.0.1:{port}",
                Application("1", "app-key", "app-secret"),
                timeout=20.0,
                slow=slow(engine),
                patience=10.0,
                refused_origin="http://refused.test",
                others={
                    role: Application(id_, f"{role}-key", f"{role}-secret") for role, id_ in ROLES.items()
                },
            )
            results = await SuiteRunner(target, hooks).run(CASES.values())
    failed = {result.id: result.reason for result in results if result.verdict == "fail"}
    skipped = {result.id: result.reason for result in results if result.verdict == "not applicable"}
    assert not failed, "\n".join(f"{name}: {reason}" for name, reason in failed.items())
    left_out = set() if slow(engine) else {name for name, case in CASES.items() if "slow" in case.needs}
    assert skipped.keys() == NOT_APPLICABLE.get(engine, set()) | left_out, skipped
