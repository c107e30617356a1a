"""``subscription_count``: sends a channel's count to its subscribers and to webhooks (section 8.2)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.limits import COUNT_INTERVAL_SECONDS, UNTHROTTLED_COUNT_SUBSCRIBERS
from legato.protocol import messages
from legato.protocol.wire import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from legato.broadcaster.registry.base import Registry
    from legato.broadcaster.webhooks.dispatcher import Webhooks

    from .subscriber import Key

logger: Final = logging.getLogger("legato.node")


class SubscriptionCounts:
    """Sends subscription counts, at once or at most every few seconds.

    :param wanted: whether an application, by id, has subscription counts enabled.
    :param local: the number of a channel's subscribers on this node.
    :param post: publishes to all subscribers of a channel without waiting.
    :param later: runs a coroutine function in the background after a delay in seconds.
    """

    def __init__(
        self,
        registry: Registry,
        webhooks: Webhooks,
        *,
        wanted: Callable[[str], bool],
        local: Callable[[Key], int],
        post: Callable[[Key, Envelope], None],
        later: Callable[[float, Callable[[], Coroutine[Any, Any, None]]], None],
    ) -> None:
        self._registry = registry
        self._webhooks = webhooks
        self._wanted = wanted
        self._local = local
        self._post = post
        self._later = later
        self._due: set[Key] = set()
        self._last_sent: dict[Key, int] = {}  # the last count sent to each large channel

    def changed(self, key: Key, count: int) -> None:
        """Send a changed count, now or later. ``count`` is the current number of subscriptions."""
        if not self._wanted(key.app_id):
            return
        if count <= UNTHROTTLED_COUNT_SUBSCRIBERS:
            self._last_sent.pop(key, None)
            self._send(key, count)
        elif key not in self._due:
            self._due.add(key)
            self._later(COUNT_INTERVAL_SECONDS, lambda: self._send_current(key))

    async def _send_current(self, key: Key) -> None:
        self._due.discard(key)
        try:
            (counts,) = await self._registry.counts([key])
        except BusError as error:
            logger.warning("a subscription count is not sent: %s", error)
            return
        count = counts.subscriptions
        if count > UNTHROTTLED_COUNT_SUBSCRIBERS and count != self._last_sent.get(key):
            self._last_sent[key] = count
            self._send(key, count)
        if not self._local(key):
            self._last_sent.pop(key, None)

    def _send(self, key: Key, count: int) -> None:
        self._webhooks.subscription_count(*key, count)
        if count:
            self._post(key, Envelope(messages.subscription_count(key.channel, count)))
