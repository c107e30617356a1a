"""Tasks that drop a cancellation end all the same."""

from __future__ import annotations

import asyncio

from legato.protocol.redis.cancellation import end_task, obey_cancellation


async def test_a_task_that_drops_a_cancellation_is_cancelled_again():
    dropped = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if dropped:
                    raise
                dropped.append(1)

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_task(task)
    assert dropped == [1]
    assert task.cancelled()
    await end_task(task)  # one that has ended is left alone


async def test_a_task_that_is_not_cancelled_goes_on():
    obey_cancellation()


def test_outside_of_tasks_nothing_is_cancelled():
    loop = asyncio.new_event_loop()
    try:
        results: list[object] = []
        loop.call_soon(lambda: results.append(obey_cancellation()))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert results == [None]
    finally:
        loop.close()
