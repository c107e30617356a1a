"""An agent whose tool has an effect: a refund, which a person approves, and which happens once.

legato up --agent docs.examples.refund:agent         # in a checkout
cp docs/examples/refund.py . && legato up --agent refund:agent

Without a key, write this in the chat, and approve the call:
#script tool=refund:{"order": "A-1", "cents": 1250} echo

The refunds are in refunds.db (or REFUNDS_DB).
"""

import asyncio
import os
import sqlite3
from contextlib import closing
from typing import Annotated

from legato.worker.agents import Agent, Call, Meta, ToolError, tool

PAID = {"A-1": 5000, "A-2": 999}
"""Order -> cents that were paid."""


def record(key: str, order: str, cents: int) -> int:
    """Record the refund unless the key has one already. Answers the cents refunded of this order in all.

    A payment service does the same with an idempotency key: a second request with it has no effect.
    """
    with closing(sqlite3.connect(os.environ.get("REFUNDS_DB", "refunds.db"), timeout=20)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS refunds (key TEXT PRIMARY KEY, of TEXT, cents INTEGER)")
        db.execute("INSERT OR IGNORE INTO refunds VALUES (?, ?, ?)", (key, order, cents))
        total: int = db.execute("SELECT sum(cents) FROM refunds WHERE of = ?", (order,)).fetchone()[0]
        if total > PAID[order]:
            raise ToolError(f"Only {PAID[order]} cents were paid.")  # leaving with an error undoes the insert
        return total


@tool(needs_approval=True, approval_seconds=86_400, on_interrupted="retry")  # call.id makes it harmless
async def refund(order: str, cents: Annotated[int, Meta(ge=1, le=100_000)], call: Call) -> str:
    """Refund a part of an order to the customer.

    order: such as A-1
    cents: amount in cents
    """
    if order not in PAID:
        raise ToolError(f"There is no order {order}.")
    total = await asyncio.to_thread(record, call.id, order, cents)
    return f"Refunded {cents} cents of order {order}, {total} in all."


agent = Agent(system="You help customers with refunds.", tools=[refund])
