"""The agent of a run. Its tools write down each call and each effect outside of Legato, in a ledger.

The workers import it. A tool sleeps before and after its effect, so that many workers die around one.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from legato.worker.agents import Agent, Call, tool

from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE: Final = "CHAOS_LEDGER"
"""The environment variable with the ledger's file."""

BEFORE: Final = (0.0, 0.8)
AFTER: Final = (0.0, 0.4)
"""Seconds of work before and after the effect: shortest and longest."""

_dice: Final = random.Random()  # noqa: S311 - when a worker dies is not repeatable either


async def _write(action: Callable[[Ledger], Any]) -> Any:
    def run() -> Any:
        with Ledger(Path(os.environ[VARIABLE])) as ledger:
            return action(ledger)

    return await asyncio.to_thread(run)


async def _work(name: str, call: Call, key: str) -> None:
    message_id = call.job.message_id
    await _write(lambda ledger: ledger.begun(call.id, name, message_id))
    await asyncio.sleep(_dice.uniform(*BEFORE))
    await _write(lambda ledger: ledger.effect(call.id, key))
    await asyncio.sleep(_dice.uniform(*AFTER))
    await _write(lambda ledger: ledger.ended(call.id))


@tool(on_interrupted="retry")
async def charge(n: int, call: Call) -> dict[str, int]:
    """Charge an amount. The service knows the idempotency key."""
    await _work("charge", call, key=call.id)
    return {"charged": n}


@tool(on_interrupted="tell")
async def mail(n: int, call: Call) -> str:
    """Send a mail. The service knows no key, so a call must not be made twice."""
    await _work("mail", call, key="")
    return f"mail {n} is sent"


@tool(on_interrupted="retry", needs_approval=True)
async def refund(n: int, call: Call) -> dict[str, int]:
    """Refund an amount, which a person has to approve."""
    await _work("refund", call, key=call.id)
    return {"refunded": n}


agent: Final = Agent(tools=[charge, mail, refund], show_tools="output")
