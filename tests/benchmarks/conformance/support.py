"""The small server, and the suite run against it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from legato.benchmarks.conformance.cases import every
from legato.benchmarks.conformance.hooks import listening
from legato.benchmarks.conformance.runner import SuiteRunner
from legato.benchmarks.conformance.target import Application, Target
from tests.benchmarks.conformance.broken import running
from tests.benchmarks.conformance.world import App

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from legato.benchmarks.conformance.outcome import Result

MAIN = App("1", "app-key", "app-secret")
OTHERS = {
    "disabled": App("2", "disabled-key", "disabled-secret", disabled=True),
    "full": App("3", "full-key", "full-secret", quota=1),
    "strict": App("4", "strict-key", "strict-secret", strict=True),
    "quiet": App("5", "quiet-key", "quiet-secret", client_events=False),
}
CASES = {case.id: case for case in every()}


def application(app: App) -> Application:
    return Application(app.id, app.key, app.secret)


@contextlib.asynccontextmanager
async def runner(*faults: str, seconds: float = 1.0) -> AsyncIterator[SuiteRunner]:
    """A runner with everything that cases may need, against a server with these faults."""
    async with (
        listening("127.0.0.1", 0) as hooks,
        running([MAIN, *OTHERS.values()], faults, hooks.url) as server,
    ):
        target = Target(
            server.url,
            server.api,
            application(MAIN),
            timeout=seconds,
            slow=True,
            patience=4.0,
            refused_origin="http://refused.test",
            others={role: application(app) for role, app in OTHERS.items()},
        )
        yield SuiteRunner(target, hooks)


async def run(names: Iterable[str], *faults: str, seconds: float = 1.0) -> list[Result]:
    """The results of the named cases."""
    async with runner(*faults, seconds=seconds) as started:
        return await started.run([CASES[name] for name in names])
