"""What the checks of :mod:`.contract` work with: the stage, and one run on it."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from . import base

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    Opened: TypeAlias = AbstractAsyncContextManager[base.Provider]

T = TypeVar("T")

REQUEST: Final = base.ProviderRequest("How far is the moon?")


class ContractError(AssertionError):
    """The provider breaks the contract, or the stage is not as the check needs it."""


class Stage:
    """Subclass it, and make one for each check.

    Each method but :meth:`received` and :meth:`closed` is an async context manager
    (``@asynccontextmanager``) that yields a new provider. The check closes the provider. Leave out what
    cannot be staged, and select the rest with :func:`.contract.checks`.

    :cvar secret: text that must not be in any error, such as the API key. Empty for none.
    :cvar thought: what the model thinks in :meth:`thinking`.
    """

    secret: str = ""
    thought: str = ""

    def whole(self) -> Opened:
        """The model answers each request, with two pieces of text at least, and ends."""
        raise NotImplementedError("Stage.whole() is missing")

    def cut(self) -> Opened:
        """The connection breaks after the first text."""
        raise NotImplementedError("Stage.cut() is missing")

    def silent(self) -> Opened:
        """After the first text, nothing comes any more, of any request."""
        raise NotImplementedError("Stage.silent() is missing")

    def overloaded(self) -> Opened:
        """The model refuses because it is overloaded, or because of too many requests."""
        raise NotImplementedError("Stage.overloaded() is missing")

    def refused(self) -> Opened:
        """The model refuses for good, such as because of the key."""
        raise NotImplementedError("Stage.refused() is missing")

    def calling(self) -> Opened:
        """The model calls the tool ``look`` twice at once: with the city Oslo, and with the city Rome.

        Every later request, which has the results, is answered as in :meth:`whole`.
        """
        raise NotImplementedError("Stage.calling() is missing")

    def thinking(self) -> Opened:
        """The model thinks :attr:`thought`, then answers with text."""
        raise NotImplementedError("Stage.thinking() is missing")

    def received(self) -> str:
        """The latest request as the model sees it. Empty: not observed."""
        return ""

    async def closed(self) -> None:
        """Return when the model sees that the request is closed. By default at once: not observed."""


class CheckRun:
    """One run of a check: the helpers of the check functions."""

    def __init__(self, stage: Stage, provider: base.Provider, seconds: float) -> None:
        self.stage = stage
        self.provider = provider
        self.seconds = seconds

    async def within(self, action: Coroutine[Any, Any, T], failure: str) -> T:
        """The result of an action; fails if it takes too long, even if it ignores its cancellation."""
        task = asyncio.ensure_future(action)
        try:
            await asyncio.wait({task}, timeout=self.seconds)
        finally:
            task.cancel()
        if not task.done():
            fail(f"{failure} within {self.seconds:g} s")
        return task.result()

    async def ask(self, request: base.ProviderRequest = REQUEST) -> tuple[list[base.Event], Exception | None]:
        """All events of a request, and the exception behind them."""
        events: list[base.Event] = []
        return events, await self.within(self._read(request, events), "the stream does not end")

    async def _read(self, request: base.ProviderRequest, events: list[base.Event]) -> Exception | None:
        try:
            async with aclosing(self.provider.stream(request)) as stream:
                async for event in stream:
                    events.append(event)  # noqa: PERF401 - those before an error count too
        except Exception as error:  # noqa: BLE001 - the check looks at it
            return error
        return None

    async def answer(self, request: base.ProviderRequest = REQUEST) -> list[base.Event]:
        """All events of a request that must not fail."""
        events, error = await self.ask(request)
        if error is not None:
            fail(f"the model answers, but {name_of(error)} is raised: {error}")
        return events

    async def failure(self) -> tuple[list[base.Event], base.ProviderError]:
        """The events of a request that must fail, and its error, fit for the log."""
        events, error = await self.ask()
        if error is None:
            fail("the stream ends as if all were well, without a ProviderError")
        if not isinstance(error, base.ProviderError):
            fail(f"{name_of(error)} is raised, not a ProviderError: {error}")
        if any(isinstance(event, base.Final) for event in events):
            fail("Final comes before the error")
        if self.stage.secret and self.stage.secret in f"{error} {error!r}":
            fail("the error holds the secret of the stage")
        if error.retry_after is not None and not (
            math.isfinite(error.retry_after) and error.retry_after >= 0
        ):
            fail(f"retry_after is {error.retry_after}; expected seconds, or None")
        return events, error

    async def until_text(self, stream: AsyncGenerator[base.Event, None]) -> None:
        """Read up to the first text."""
        try:
            async for event in stream:
                if isinstance(event, base.Text):
                    return
        except base.ProviderError as error:
            fail(f"no text comes of a silent model: {name_of(error)}: {error}")
        fail("no text comes of a silent model: it ends")

    async def sees_closed(self) -> None:
        await self.within(self.stage.closed(), "the model does not see that the request is closed")


def fail(reason: str) -> NoReturn:
    """:raises ContractError: always."""
    raise ContractError(reason)


def name_of(value: object) -> str:
    return type(value).__name__
