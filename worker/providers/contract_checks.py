"""The checks of :mod:`.contract`, each a coroutine function that fails or returns."""

from __future__ import annotations

import asyncio
from typing import Any

from legato.protocol.jobs import Turn
from legato.worker.limits import CONTRACT_CONCURRENT_REQUESTS

from . import base
from .contract_stage import REQUEST, CheckRun, fail, name_of


async def names_its_model(run: CheckRun) -> None:
    model: Any = run.provider.model
    if not isinstance(model, str) or not model:
        fail(f"model is {model!r}; expected the name of the model")


async def yields_events(run: CheckRun) -> None:
    for event in await run.answer():
        if not isinstance(event, base.Event):
            fail(f"{event!r} is no event")


async def starts_once(run: CheckRun) -> None:
    """Exactly one Started, before everything else but Used."""
    events = [event for event in await run.answer() if not isinstance(event, base.Used)]
    started = [at for at, event in enumerate(events) if isinstance(event, base.RequestAccepted)]
    if started != [0]:
        fail(f"RequestAccepted comes {len(started)} times; expected once, before any Text")
    _need_text(events[0], "model")


async def ends_once(run: CheckRun) -> None:
    """Exactly one Final, and nothing behind it."""
    events = await run.answer()
    ends = [at for at, event in enumerate(events) if isinstance(event, base.Final)]
    if not ends:
        fail("the stream ends without Final")
    if ends != [len(events) - 1]:
        fail(f"{name_of(events[ends[0] + 1])} comes after Final; expected nothing")
    _need_text(events[-1], "stop_reason")


def _need_text(event: base.Event, field: str) -> None:
    value: Any = getattr(event, field)
    if not isinstance(value, str) or not value:
        fail(f"{event!r} has no {field}")


async def streams_text(run: CheckRun) -> None:
    """In pieces, none of them empty."""
    texts = [event for event in await run.answer() if isinstance(event, base.Text)]
    for event in texts:
        _need_text(event, "text")
    if len(texts) < 2:
        fail(f"{len(texts)} Text is yielded of a model that sends two pieces at least")


async def counts_usage_cumulatively(run: CheckRun) -> None:
    events = await run.answer()
    counts = [event.usage for event in events if isinstance(event, base.Used | base.Final)]
    for name in ("input", "output", "cache_read", "cache_write"):
        values = [getattr(usage, name) for usage in counts]
        if any(type(value) is not int or value < 0 for value in values):
            fail(f"usage.{name} is {values}; expected numbers of tokens")
        if values != sorted(values):
            fail(f"usage.{name} is {values} in turn; expected the sum so far each time")


async def continues(run: CheckRun) -> None:
    """Accepts a request for the rest of a reply."""
    texts = [event.text for event in await run.answer() if isinstance(event, base.Text)]
    rest = REQUEST._replace(so_far="".join(texts[:1]), continuation="Go on from where it ends.", attempt=2)
    _need_final(await run.answer(rest), "a continuation")


async def accepts_any_history(run: CheckRun) -> None:
    """One that begins with the assistant, has a blank turn, and two turns of one role."""
    history = (
        Turn("assistant", "It was cut off."),
        Turn("user", "Hello"),
        Turn("user", "Are you there?"),
        Turn("assistant", " "),
        Turn("assistant", "Yes."),
    )
    await run.answer(REQUEST._replace(history=history))


async def answers_several_at_once(run: CheckRun) -> None:
    """Concurrent requests, and another one afterwards."""
    together = await asyncio.gather(*(run.answer() for _ in range(CONTRACT_CONCURRENT_REQUESTS)))
    for events in (*together, await run.answer()):
        _need_final(events, "one of several requests")


def _need_final(events: list[base.Event], what: str) -> None:
    if not events or not isinstance(events[-1], base.Final):
        fail(f"the stream of {what} ends without Final")


async def is_cancelled(run: CheckRun) -> None:
    """While it waits for the model."""
    reached = asyncio.Event()

    async def read() -> None:
        stream = run.provider.stream(REQUEST)
        await run.until_text(stream)
        reached.set()
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    try:
        await run.within(_until(reached, task), "no text comes")
    except BaseException:
        task.cancel()
        raise
    await asyncio.sleep(0)  # the task reads on before it is cancelled
    await _cancel(run, task)
    await run.sees_closed()


async def is_cancelled_before_it_begins(run: CheckRun) -> None:
    """While it connects."""

    async def read() -> None:
        async for _ in run.provider.stream(REQUEST):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    await _cancel(run, task)


async def _until(reached: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Wait until the task gets there. Fails if it ends before."""
    waiter = asyncio.create_task(reached.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if task.done():
        task.result()  # until_text() fails
        fail("no text comes of a silent model")


async def _cancel(run: CheckRun, task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=run.seconds)
    if not task.done():
        task.cancel()
        fail(f"the stream goes on after its task was cancelled, for {run.seconds:g} s")
    if not task.cancelled():
        error = task.exception()
        fail(f"a cancellation is swallowed: {'the stream ends' if error is None else name_of(error)}")


async def is_closed(run: CheckRun) -> None:
    """By closing the generator."""
    try:
        await run.within(_text_then_close(run), "closing the generator does not end")
    except RuntimeError as error:
        fail(f"the generator goes on when it is closed: {error}")
    await run.sees_closed()


async def _text_then_close(run: CheckRun) -> None:
    """In one task, as the worker does: some libraries ask for that."""
    stream = run.provider.stream(REQUEST)
    await run.until_text(stream)
    await stream.aclose()


async def answers_after_a_cancellation(run: CheckRun) -> None:
    await is_cancelled(run)
    await run.within(_text_then_close(run), "after a cancellation, no text comes")


async def reports_a_cut(run: CheckRun) -> None:
    """As an error after which the reply can be continued."""
    events, error = await run.failure()
    if not any(isinstance(event, base.Text) for event in events):
        fail("the text before the cut is lost")
    if error.retry is base.Retry.NEVER:
        fail(f"{name_of(error)} says that no other request may succeed; expected CutError")


async def reports_overload(run: CheckRun) -> None:
    events, error = await run.failure()
    if any(isinstance(event, base.Text) for event in events):
        fail("text comes from a model that refuses")
    if not error.crowded or error.retry is base.Retry.NEVER:
        fail(f"{name_of(error)} does not say that all should wait; expected OverloadedError")


async def reports_a_refusal(run: CheckRun) -> None:
    _, error = await run.failure()
    if error.retry is not base.Retry.NEVER or error.crowded:
        fail(f"{name_of(error)} says that the same request may succeed; expected RequestRefusedError")
