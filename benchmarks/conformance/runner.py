"""Runs cases against a target, several at a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from .checks import Failure, NotApplicable, show
from .context import CaseContext
from .features import PROBES
from .http import unreachable
from .outcome import Case, Result, Verdict
from .target import ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .hooks import Hooks
    from .target import Target

AT_ONCE: Final = 8
"""Cases that run at the same time: most of a case's time is waiting."""

CASE_SECONDS: Final = 60.0
"""Seconds that a case may take besides its waits; ``Target.timeout`` bounds each wait."""

SLOW_SECONDS: Final = 600.0


class ServerGoneError(Exception):
    """The server no longer accepts connections. The text says where, and why."""


class SuiteRunner:
    """One run of the suite. An optional feature is detected once, when a case first needs it."""

    def __init__(self, target: Target, hooks: Hooks | None = None) -> None:
        self._target = target
        self._hooks = hooks
        self._probes: dict[str, asyncio.Task[str | None]] = {}

    async def run(
        self, cases: Iterable[Case], report: Callable[[Result], None] | None = None
    ) -> list[Result]:
        """Results in the order of ``cases``; ``report`` gets each as soon as it is there.

        :raises ServerGoneError: a case has failed, and the server is gone. Nothing is reported of that
            case, nor of those that run or wait.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(case: Case) -> Result:
            async with slots:
                result = await self.result(case)
                if result.verdict == "fail":
                    await self._still_there()
            if report is not None:
                report(result)
            return result

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(case)) for case in cases]
        except* ServerGoneError as gone:
            raise gone.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _still_there(self) -> None:
        for address in dict.fromkeys((self._target.url, self._target.api)):
            if reason := await unreachable(address):
                raise ServerGoneError(f"{address} is gone: {reason}")

    async def result(self, case: Case) -> Result:
        """Run one case. An exception in it becomes its result."""
        start = time.monotonic()
        verdict, reason = await self._verdict(case)
        return Result(case.section, case.name, verdict, show(reason), round(time.monotonic() - start, 3))

    async def _verdict(self, case: Case) -> tuple[Verdict, str]:
        try:
            async with asyncio.timeout(SLOW_SECONDS if "slow" in case.needs else CASE_SECONDS):
                missing = await self._missing(case)
                if missing is not None:
                    return "not applicable", missing
                async with CaseContext(self._target, self._hooks) as context:
                    return "pass", await case.run(context) or "as specified"
        except NotApplicable as reason:
            return "not applicable", str(reason)
        except Failure as reason:
            return "fail", str(reason)
        except TimeoutError:
            return "fail", "the case did not end"
        except Exception as error:  # noqa: BLE001 - an answer that nobody thought of is the server's failure
            return "fail", f"what came could not be understood: {type(error).__name__}: {error}"

    async def _missing(self, case: Case) -> str | None:
        """Why the case cannot be run, or None."""
        for need in sorted(case.needs):
            missing = await self._probe(need) if need in PROBES else self._not_given(need)
            if missing is not None:
                return missing
        return None

    def _not_given(self, need: str) -> str | None:
        target = self._target
        given = {
            "slow": (target.slow, "takes long: run with --slow"),
            "webhooks": (self._hooks is not None, "needs webhooks: run with --webhook-port"),
            "refused origin": (
                target.refused_origin,
                "needs an origin that is refused: run with --refused-origin",
            ),
        } | {role: (role in target.others, f"needs --app {role}=…: {text}") for role, text in ROLES.items()}
        there, reason = given[need]
        return None if there else reason

    async def _probe(self, feature: str) -> str | None:
        if feature not in self._probes:
            self._probes[feature] = asyncio.create_task(self._ask(feature))
        return await asyncio.shield(self._probes[feature])

    async def _ask(self, feature: str) -> str | None:
        """Run a probe. If it fails, assume that the feature is there, and let the cases fail."""
        try:
            async with CaseContext(self._target) as context:
                return await PROBES[feature](context)
        except Failure:
            return None
