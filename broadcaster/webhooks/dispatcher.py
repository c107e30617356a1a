"""Webhooks: tells an application's servers what happens on its channels (protocol section 11).

What is called from the sockets' path only queues: it neither waits nor raises. One
:class:`~legato.broadcaster.webhooks.sender.Sender` per ``[[apps.webhooks]]`` does the sending.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import webhooks
from legato.protocol.delivery import Policy
from legato.protocol.holdback import HOLD_SECONDS, Gone, HoldBack, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx2

    from legato.protocol.apps import App, Webhook, WebhookEvent

    from .sender import Sender

    Confirm = Callable[[Gone, Callable[[bool], None]], None]

_FIGURES: Final = ("sent", "failed", "dropped")

CLOSE_SECONDS: Final = 5.0
"""How long the end of the server waits for receivers."""


class Webhooks:
    """The webhooks of all applications. Until :meth:`start` and after :meth:`close` events are ignored.

    :param policy: retries and bounds.
    :param hold_seconds: how long a departure by disconnect waits for a return.
    :param confirm: asked about a departure that has waited, and answers by its second argument, at once or
        later but in order: whether it stands, that is nobody has come back on another node. For a return
        that undoes a departure of another node, the node does not call :meth:`channel_occupied` or
        :meth:`member_added`. None when there is one process.
    :param wall: Unix time in seconds.
    """

    def __init__(
        self,
        apps: Iterable[App],
        confirm: Confirm | None = None,
        *,
        policy: Policy = Policy(),  # noqa: B008 - immutable
        hold_seconds: float = HOLD_SECONDS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._apps = [app for app in apps if app.webhooks]
        self._confirm = confirm
        self._policy = policy
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._held = HoldBack(hold_seconds)
        self._held_timer: asyncio.TimerHandle | None = None
        self._misses = webhooks.Misses()
        self._client: httpx2.AsyncClient | None = None
        self._senders: dict[str, list[Sender]] = {}
        self._all: list[Sender] = []
        self._past: Counter[str] = Counter()
        self._retiring: set[asyncio.Task[None]] = set()
        self._running = False

    # --- figures

    @property
    def sent(self) -> int:
        """Events that a receiver has accepted."""
        return self._figure("sent")

    @property
    def failed(self) -> int:
        """Requests that were not accepted, every attempt counted."""
        return self._figure("failed")

    @property
    def dropped(self) -> int:
        """Events that no attempt, or none in time, got accepted, or that found the queue full."""
        return self._figure("dropped")

    @property
    def waiting(self) -> int:
        """Events that are queued or on their way."""
        return sum(sender.waiting for sender in self._all)

    def _figure(self, name: str) -> int:
        """May be called from another thread: what is added to meanwhile is read as a copy."""
        present: int = sum(getattr(sender, name) for sender in list(self._all))
        return self._past[name] + present

    # --- start and end

    async def start(self) -> None:
        """Be ready to send. Without a webhook in any application this costs nothing."""
        self._running = True
        self.set_apps(self._apps)

    def set_apps(self, apps: Iterable[App]) -> None:
        """Go on with these. A webhook that stays keeps its queue; one that goes is closed by and by."""
        self._apps = [app for app in apps if app.webhooks]
        if not self._running:
            return
        old, self._senders = self._senders, {}
        for app in self._apps:
            before = old.setdefault(app.id, [])
            self._senders[app.id] = [self._sender(app, webhook, before) for webhook in app.webhooks]
        for senders in old.values():
            for sender in senders:
                task = self._loop.create_task(self._retire(sender))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def _sender(self, app: App, webhook: Webhook, before: list[Sender]) -> Sender:
        """One of those before, which is taken out, or a new one."""
        for sender in before:
            if sender.webhook == webhook:
                before.remove(sender)
                sender.app = app
                return sender
        from .sender import Sender, client  # noqa: PLC0415 - an HTTP client costs 80 ms to import

        self._client = self._client or client()
        sender = Sender(app, webhook, self._client, self._policy, self._wall)
        self._all.append(sender)
        return sender

    async def _retire(self, sender: Sender) -> None:
        await sender.close(CLOSE_SECONDS)
        self._all.remove(sender)
        for name in _FIGURES:
            self._past[name] += getattr(sender, name)

    def release(self) -> None:
        """Tell the departures that wait, and hold back none from now on: nobody will be back here."""
        self._held.seconds = 0.0
        self._release(float("inf"))

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """:meth:`release`, send what is due within so many seconds, and drop the rest."""
        self.release()
        if self._held_timer is not None:
            self._held_timer.cancel()
        self._running = False
        self._senders = {}
        await asyncio.gather(*(sender.close(seconds) for sender in self._all), *self._retiring)
        if self._client is not None:
            await self._client.aclose()

    # --- what happens on channels (section 16 has the order of the calls)

    def channel_occupied(self, app_id: str, channel: str) -> None:
        """The first subscriber has come."""
        if app_id in self._senders and not self._undone(Place(app_id, channel), None):
            self._add(app_id, "channel_occupied", channel)

    def channel_vacated(self, app_id: str, channel: str, *, disconnect: bool) -> None:
        """The last subscriber has gone; ``disconnect`` if by losing its connection."""
        self._gone(app_id, channel, None, disconnect)

    def member_added(self, app_id: str, channel: str, user_id: str) -> None:
        """A user's first connection has come to a presence channel."""
        if app_id in self._senders and not self._undone(Place(app_id, channel), user_id):
            self._add(app_id, "member_added", channel, user_id=user_id)

    def member_removed(self, app_id: str, channel: str, user_id: str, *, disconnect: bool) -> None:
        """A user's last connection has gone. Call it before :meth:`channel_vacated`."""
        self._gone(app_id, channel, user_id, disconnect)

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
        """A client has subscribed to an empty cache channel; told once when several do at once."""
        if app_id in self._senders and self._misses.tell(app_id, channel, self._loop.time()):
            self._add(app_id, "cache_miss", channel)

    def subscription_count(self, app_id: str, channel: str, count: int) -> None:
        """A channel has another number of subscribers."""
        self._add(app_id, "subscription_count", channel, subscription_count=count)

    def _undone(self, place: Place, user_id: str | None) -> bool:
        """Whether a return undoes a departure. With other nodes that is known before it is told here."""
        return self._held.back(place, user_id) and self._confirm is None

    def _gone(self, app_id: str, channel: str, user_id: str | None, disconnect: bool) -> None:
        if app_id not in self._senders:
            return
        place, now = Place(app_id, channel), self._loop.time()
        if self._confirm is not None and not disconnect:
            # All nodes together have decided that it is told at once. What this one still holds back has been
            # undone by a return, of which it need not have heard.
            self._held.back(place, user_id)
            self._tell(Gone(place, user_id))
        elif self._held.gone(place, user_id, now, disconnect=disconnect):
            self._tell(Gone(place, user_id))
        else:
            self._release(now)

    def _arm(self) -> None:
        due = self._held.next_due
        if self._held_timer is None and due is not None:
            self._held_timer = self._loop.call_at(due, self._held_is_due)

    def _held_is_due(self) -> None:
        self._held_timer = None
        self._release(self._loop.time())

    def _release(self, now: float) -> None:
        """Tell the departures that have waited long enough, unless somebody is back on another node."""
        for departure in self._held.due(now):
            if self._confirm is None:
                self._tell(departure)
            else:
                self._confirm(departure, partial(self._tell_if, departure))
        self._arm()

    def _tell_if(self, departure: Gone, stands: bool) -> None:
        if stands:
            self._tell(departure)

    def _tell(self, departure: Gone) -> None:
        (app_id, channel), user_id = departure
        if user_id is None:
            self._add(app_id, "channel_vacated", channel)
        else:
            self._add(app_id, "member_removed", channel, user_id=user_id)

    def _add(self, app_id: str, name: WebhookEvent, channel: str, **fields: Any) -> None:
        self._send(app_id, name, channel, lambda: webhooks.event(name, channel, **fields))

    def _send(self, app_id: str, name: WebhookEvent, channel: str, content: Callable[[], bytes]) -> None:
        wanting = [
            sender
            for sender in self._senders.get(app_id, ())
            if webhooks.wants(sender.webhook, name, channel)
        ]
        if wanting:
            encoded = content()
            for sender in wanting:
                sender.add(channel, encoded)
