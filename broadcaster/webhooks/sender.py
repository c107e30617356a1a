"""Sends the events of one webhook: timers and requests around ``protocol.delivery.WebhookQueue``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2

from legato.protocol import webhooks
from legato.protocol.delivery import Hook, RetryPolicy, WebhookQueue

from .requests import post
from .timer import Timer
from .trouble import TroubleLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.protocol.apps import App, Webhook


class Sender:
    """One webhook's queue and its requests in flight. ``app`` may be replaced when its keys change.

    :param wall: Unix time in seconds.
    """

    def __init__(
        self,
        app: App,
        webhook: Webhook,
        client: httpx2.AsyncClient,
        policy: RetryPolicy,
        wall: Callable[[], float],
    ) -> None:
        self.webhook = webhook
        self.app = app
        self.sent = 0
        self.failed = 0
        self._client = client
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._delivery = WebhookQueue(policy, webhook.batch_size)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._timer = Timer(self._pump)
        self._trouble = TroubleLog(f"app {app.id}, webhook {webhook.host}")
        self._trouble.overridden(webhook.overridden)

    @property
    def waiting(self) -> int:
        """Events that are queued or in flight."""
        return self._delivery.waiting

    @property
    def dropped(self) -> int:
        """Events that were never accepted and never will be."""
        return self._delivery.dropped

    def add(self, channel: str, content: bytes) -> None:
        """Queue an event. Never waits, never raises."""
        if not self._delivery.add(channel, content, self._loop.time()):
            self._trouble.dropped(self.dropped)
        self._timer.set(self._delivery.wake_at())

    async def close(self, seconds: float) -> None:
        """Send what is due within so many seconds, then drop the rest."""
        deadline = self._loop.time() + seconds
        while (left := deadline - self._loop.time()) > 0:
            self._pump()
            wake = self._delivery.wake_at()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            elif wake is not None and wake < deadline:
                await asyncio.sleep(wake - self._loop.time())
            else:
                break
        await self._stop()

    async def _stop(self) -> None:
        self._stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._timer.cancel()
        self._delivery.abandon()
        self._trouble.dropped(self.dropped)
        self._trouble.close()

    def _pump(self) -> None:
        """Start the requests that are due, and plan the next call."""
        while not self._stopped and (hook := self._delivery.take(self._loop.time(), self._time_ms())):
            task = self._loop.create_task(self._send(hook))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._timer.set(self._delivery.wake_at())
        self._trouble.dropped(self.dropped)  # a failure, or a wait that was too long, drops some

    def _time_ms(self) -> int:
        return int(self._wall() * 1000)

    async def _send(self, hook: Hook) -> None:
        try:
            content = webhooks.body(hook.time_ms, hook.events)
            await post(self._client, self.app, self.webhook, content)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the events are retried
            self.failed += 1
            self._trouble.failed(error)
            reached = not isinstance(error, httpx2.ConnectError)
            self._delivery.failed(hook, self._loop.time(), reached=reached)
        else:
            self.sent += len(hook.events)
            self._delivery.accepted(hook, self._loop.time())
        self._pump()
