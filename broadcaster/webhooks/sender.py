"""Send the events of one webhook: HTTP, timers and log lines around ``protocol.delivery.Delivery``."""

from __future__ import annotations

import asyncio
import logging
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import httpx2

from legato.protocol import webhooks
from legato.protocol.delivery import Delivery, Hook, Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.protocol.apps import App, Webhook

logger: Final = logging.getLogger("legato.webhooks")

for _library in ("httpx2", "httpcore2"):  # they write whole addresses, which may hold a password
    logging.getLogger(_library).setLevel(logging.WARNING)

REPORT_SECONDS: Final = 1.0
"""Drops within this time are one line of the log."""

QUIET_SECONDS: Final = 60.0
"""After a line about a receiver that fails, there is no other for this long."""

IDLE_CONNECTIONS: Final = 100
IDLE_SECONDS: Final = 30.0
"""How many connections are kept for further requests, and how long."""

MAX_ANSWER_BYTES: Final = 65_536
"""What is read of an answer, for the connection to be used again; one with a longer answer is closed."""


class _NotAcceptedError(Exception):
    """An answer other than 2xx. The text is for the log."""


def client() -> httpx2.AsyncClient:
    """A client for all webhooks: no redirects, no proxies out of the environment, no cookies kept."""
    return httpx2.AsyncClient(
        headers={"User-Agent": "Legato"},
        timeout=None,  # the sender's own is for the whole request, not for each read
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        trust_env=False,
        limits=httpx2.Limits(
            max_connections=None,  # each sender has its own bound, so that none waits for another's
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
        ),
    )


class Sender:
    """One webhook's queue and the requests that are out. ``app`` may be set anew, when its keys change.

    :param wall: Unix time in seconds.
    """

    def __init__(
        self,
        app: App,
        webhook: Webhook,
        client: httpx2.AsyncClient,
        policy: Policy,
        wall: Callable[[], float],
    ) -> None:
        self.webhook = webhook
        self.sent = 0
        self.failed = 0
        self.app = app
        self._client = client
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._delivery = Delivery(policy, webhook.batch_size)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._report_timer: asyncio.TimerHandle | None = None
        self._reported = 0
        self._reason = ""
        self._quiet_until = 0.0
        self._name = f"app {app.id}, webhook {webhook.host}"
        if webhook.overridden:
            names = ", ".join(webhook.overridden)
            logger.warning("%s: set by Legato, whatever is configured: %s", self._name, names)

    @property
    def waiting(self) -> int:
        """Events that are queued or on their way."""
        return self._delivery.waiting

    @property
    def dropped(self) -> int:
        """Events that were never accepted and never will be."""
        return self._delivery.dropped

    def add(self, channel: str, content: bytes) -> None:
        """Queue an event. Never waits, never raises."""
        self._delivery.add(channel, content, self._loop.time())
        self._arm()

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
        self._delivery.abandon()
        for timer in (self._timer, self._report_timer):
            if timer is not None:
                timer.cancel()
        self._report()

    # --- when to send

    def _arm(self) -> None:
        """Have :meth:`_pump` called when there is something to send, or a drop to report."""
        wake = self._delivery.wake_at()
        if wake is not None and (self._timer is None or wake < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(wake, self._wake)
            self._timer_at = wake
        if self._delivery.dropped > self._reported and self._report_timer is None:
            self._report_timer = self._loop.call_later(REPORT_SECONDS, self._report)

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    def _pump(self) -> None:
        while not self._stopped and (hook := self._delivery.take(self._loop.time(), self._time_ms())):
            task = self._loop.create_task(self._send(hook))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._arm()

    def _time_ms(self) -> int:
        return int(self._wall() * 1000)

    # --- sending

    async def _send(self, hook: Hook) -> None:
        try:
            await self._post(webhooks.body(hook.time_ms, hook.events))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the events are tried again
            self._failed(hook, error)
        else:
            self.sent += len(hook.events)
            self._delivery.accepted(hook, self._loop.time())
        self._pump()

    async def _post(self, content: bytes) -> None:
        """One attempt; raises unless the answer is 2xx."""
        status = 0
        request = self._client.build_request(
            "POST",
            self.webhook.url,
            content=content,
            headers=webhooks.headers(self.app, self.webhook, content),
        )
        try:
            async with asyncio.timeout(self.webhook.timeout):
                response = await self._client.send(request, stream=True)
                status = response.status_code
                try:
                    await _skim(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx2.HTTPError):
            if not status:  # else the answer is known, whatever becomes of its body
                raise
        if not 200 <= status < 300:
            raise _NotAcceptedError(f"HTTP {status}")

    def _failed(self, hook: Hook, error: Exception) -> None:
        self.failed += 1
        # The texts of other errors may name the address, which may hold a password.
        self._reason = str(error) if isinstance(error, _NotAcceptedError) else type(error).__name__
        now = self._loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning("%s: a request was not accepted (%s), trying again", self._name, self._reason)
        self._delivery.failed(hook, now, reached=not isinstance(error, httpx2.ConnectError))

    def _report(self) -> None:
        self._report_timer = None
        count = self._delivery.dropped - self._reported
        self._reported = self._delivery.dropped
        if count:
            reason = f"; last failure: {self._reason}" if self._reason else ""
            logger.error("%s: %d events dropped%s", self._name, count, reason)


async def _skim(response: httpx2.Response) -> None:
    """Read the answer without keeping it, within a bound."""
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read > MAX_ANSWER_BYTES:
            return
