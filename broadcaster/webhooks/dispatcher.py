"""Chooses the webhook events of what happens on channels (protocol section 11).

The methods that the connections call only queue: they neither wait nor raise. One
:class:`~legato.broadcaster.webhooks.sender.Sender` per ``[[apps.webhooks]]`` sends the events.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from legato.broadcaster.limits import WEBHOOK_CLOSE_SECONDS
from legato.protocol import webhooks
from legato.protocol.channels import Key
from legato.protocol.delivery import RetryPolicy
from legato.protocol.holdback import HOLD_SECONDS, Gone

from .departures import HeldDepartures
from .senders import Senders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from legato.protocol.apps import App, WebhookEvent

    from .departures import Confirm


class Webhooks:
    """The webhooks of all applications. Until :meth:`start` and after :meth:`close` events are ignored.

    :param policy: retries and bounds.
    :param hold_seconds: how long a departure by disconnect waits for a return.
    :param confirm: asked about a departure that has waited. It answers by calling its second argument, at
        once or later but in order: True if the departure stands, False if the client has returned to another
        node. For a return that cancels another node's departure, the node does not call
        :meth:`channel_occupied` or :meth:`member_added`. None when there is one process.
    :param wall: Unix time in seconds.
    """

    def __init__(
        self,
        apps: Iterable[App],
        confirm: Confirm | None = None,
        *,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        hold_seconds: float = HOLD_SECONDS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._apps = [app for app in apps if app.webhooks]
        self._running = False
        self._loop = asyncio.get_running_loop()
        self._departures = HeldDepartures(self._departed, confirm, hold_seconds)
        self._misses = webhooks.Misses()
        self._senders = Senders(policy, wall)
        self._by_app = self._senders.by_app

    # --- figures

    @property
    def sent(self) -> int:
        """Events that a receiver has accepted."""
        return self._senders.figure("sent")

    @property
    def failed(self) -> int:
        """Requests that were not accepted; every attempt counts."""
        return self._senders.figure("failed")

    @property
    def dropped(self) -> int:
        """Events that were not accepted in time, or that found the queue full."""
        return self._senders.figure("dropped")

    @property
    def waiting(self) -> int:
        """Events that are queued or in flight."""
        return self._senders.waiting

    # --- start and end

    async def start(self) -> None:
        """Accept events. Costs nothing if no application has a webhook."""
        self._running = True
        self.set_apps(self._apps)

    def set_apps(self, apps: Iterable[App]) -> None:
        """Serve these applications. A webhook that stays keeps its queue; one that goes sends what is due."""
        self._apps = [app for app in apps if app.webhooks]
        if self._running:
            self._senders.set_apps(self._apps)

    def release(self) -> None:
        """Report the departures that are held back, and hold back none from now on."""
        self._departures.release()

    async def close(self, seconds: float = WEBHOOK_CLOSE_SECONDS) -> None:
        """:meth:`release`, send what is due within so many seconds, and drop the rest."""
        self._departures.close()
        self._running = False
        await self._senders.close(seconds)

    # --- what happens on channels (section 16 has the order of the calls)

    def channel_occupied(self, app_id: str, channel: str) -> None:
        """The first subscriber has come."""
        if app_id in self._by_app and not self._departures.cancel(Key(app_id, channel), None):
            self._add(app_id, "channel_occupied", channel)

    def channel_vacated(self, app_id: str, channel: str, *, disconnect: bool) -> None:
        """The last subscriber has gone; ``disconnect`` if its connection was lost."""
        if app_id in self._by_app:
            self._departures.add(Gone(Key(app_id, channel), None), disconnect=disconnect)

    def member_added(self, app_id: str, channel: str, user_id: str) -> None:
        """A user's first connection has come to a presence channel."""
        if app_id in self._by_app and not self._departures.cancel(Key(app_id, channel), user_id):
            self._add(app_id, "member_added", channel, user_id=user_id)

    def member_removed(self, app_id: str, channel: str, user_id: str, *, disconnect: bool) -> None:
        """A user's last connection has gone. Call it before :meth:`channel_vacated`."""
        if app_id in self._by_app:
            self._departures.add(Gone(Key(app_id, channel), user_id), disconnect=disconnect)

    def client_event(
        self, app_id: str, channel: str, event: str, data: bytes | None, socket_id: str, user_id: str | None
    ) -> None:
        """A client event was relayed; ``data`` is its JSON, ``user_id`` its sender on a presence channel."""
        self._send(
            app_id,
            "client_event",
            channel,
            lambda: webhooks.client_event(channel, event, data, socket_id, user_id),
        )

    def cache_miss(self, app_id: str, channel: str) -> None:
        """A client has subscribed to an empty cache channel. One event if several do at once."""
        if app_id in self._by_app and self._misses.tell(app_id, channel, self._loop.time()):
            self._add(app_id, "cache_miss", channel)

    def subscription_count(self, app_id: str, channel: str, count: int) -> None:
        """The number of a channel's subscribers has changed."""
        self._add(app_id, "subscription_count", channel, subscription_count=count)

    def _departed(self, gone: Gone) -> None:
        (app_id, channel), user_id = gone
        if user_id is None:
            self._add(app_id, "channel_vacated", channel)
        else:
            self._add(app_id, "member_removed", channel, user_id=user_id)

    def _add(self, app_id: str, name: WebhookEvent, channel: str, **fields: Any) -> None:
        self._send(app_id, name, channel, lambda: webhooks.event(name, channel, **fields))

    def _send(self, app_id: str, name: WebhookEvent, channel: str, content: Callable[[], bytes]) -> None:
        wanting = [
            sender for sender in self._by_app.get(app_id, ()) if webhooks.wants(sender.webhook, name, channel)
        ]
        if wanting:
            encoded = content()
            for sender in wanting:
                sender.add(channel, encoded)
