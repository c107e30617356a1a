"""Contract tests for providers: checks that one behaves as :class:`.base.Provider` says.

A :class:`Stage` puts the provider in front of a model that behaves as a check needs it. With pytest::

    @pytest.mark.parametrize("check", contract.CHECKS, ids=str)
    def test_contract(check):
        check.run(MyStage())

Inside a running event loop, ``await check(MyStage())`` does the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from legato.worker.limits import CONTRACT_STEP_SECONDS

from . import contract_checks, contract_tools
from .contract_stage import CheckRun, ContractError, Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("CHECKS", "CONTRACT_STEP_SECONDS", "TOOL_CHECKS", "Check", "ContractError", "Stage", "checks")


@dataclass(frozen=True)
class Check:
    """One check. ``str()`` is its name.

    :ivar situation: the method of :class:`Stage` that it needs.
    """

    name: str
    situation: str
    _function: Callable[[CheckRun], Awaitable[None]]

    def __str__(self) -> str:
        """The name: ids of pytest."""
        return self.name

    async def __call__(self, stage: Stage, *, seconds: float = CONTRACT_STEP_SECONDS) -> None:
        """Run it.

        :raises ContractError: the check fails.
        """
        async with getattr(stage, self.situation)() as provider:
            run = CheckRun(stage, provider, seconds)
            try:
                await self._function(run)
            finally:
                await run.within(provider.aclose(), "aclose() does not end")

    def run(self, stage: Stage, *, seconds: float = CONTRACT_STEP_SECONDS) -> None:
        """Run it in an event loop of its own.

        :raises ContractError: as above.
        """
        asyncio.run(self(stage, seconds=seconds))


def checks(*situations: str) -> tuple[Check, ...]:
    """The checks that need one of these situations, such as ``whole``."""
    return tuple(check for check in (*CHECKS, *TOOL_CHECKS) if check.situation in situations)


CHECKS: Final = (
    Check("names its model", "whole", contract_checks.names_its_model),
    Check("yields events", "whole", contract_checks.yields_events),
    Check("starts once", "whole", contract_checks.starts_once),
    Check("ends once", "whole", contract_checks.ends_once),
    Check("streams text", "whole", contract_checks.streams_text),
    Check("counts usage cumulatively", "whole", contract_checks.counts_usage_cumulatively),
    Check("continues", "whole", contract_checks.continues),
    Check("accepts any history", "whole", contract_checks.accepts_any_history),
    Check("answers several at once", "whole", contract_checks.answers_several_at_once),
    Check("is cancelled", "silent", contract_checks.is_cancelled),
    Check("is cancelled before it begins", "silent", contract_checks.is_cancelled_before_it_begins),
    Check("is closed", "silent", contract_checks.is_closed),
    Check("answers after a cancellation", "silent", contract_checks.answers_after_a_cancellation),
    Check("reports a cut", "cut", contract_checks.reports_a_cut),
    Check("reports overload", "overloaded", contract_checks.reports_overload),
    Check("reports a refusal", "refused", contract_checks.reports_a_refusal),
)
"""The checks that every provider passes."""

TOOL_CHECKS: Final = (
    Check("takes tools", "calling", contract_tools.takes_tools),
    Check("calls tools", "calling", contract_tools.calls_tools),
    Check("tells calls apart", "calling", contract_tools.tells_calls_apart),
    Check("announces calls", "calling", contract_tools.announces_calls),
    Check("sends results back", "calling", contract_tools.sends_results_back),
    Check("continues a step", "calling", contract_tools.continues_a_step),
    Check("keeps reasoning out of the text", "thinking", contract_tools.keeps_reasoning_out_of_the_text),
)
"""Further checks for a provider that takes tools."""
