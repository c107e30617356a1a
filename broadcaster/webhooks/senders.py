"""The senders of all applications, and what they have sent in total."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from legato.broadcaster.limits import WEBHOOK_CLOSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import httpx2

    from legato.protocol.apps import App, Webhook
    from legato.protocol.delivery import RetryPolicy

    from .sender import Sender

FIGURES: Final = ("sent", "failed", "dropped")


class Senders:
    """One :class:`~legato.broadcaster.webhooks.sender.Sender` per ``[[apps.webhooks]]``.

    ``by_app`` has them by application id, and stays the same object. ``all`` also has those of removed
    webhooks until they have closed.
    """

    def __init__(self, policy: RetryPolicy, wall: Callable[[], float]) -> None:
        self.by_app: dict[str, Sequence[Sender]] = {}
        self.all: list[Sender] = []
        self._policy = policy
        self._wall = wall
        self._client: httpx2.AsyncClient | None = None
        self._past: Counter[str] = Counter()
        self._retiring: set[asyncio.Task[None]] = set()

    def figure(self, name: str) -> int:
        """The sum of one of :data:`FIGURES` over all senders, past ones included. Thread-safe."""
        present: int = sum(getattr(sender, name) for sender in list(self.all))
        return self._past[name] + present

    @property
    def waiting(self) -> int:
        """Events that are queued or in flight."""
        return sum(sender.waiting for sender in list(self.all))

    def set_apps(self, apps: Iterable[App]) -> None:
        """Serve these applications. A webhook that stays keeps its queue; one that goes sends what is due."""
        unused = {app_id: list(senders) for app_id, senders in self.by_app.items()}
        self.by_app.clear()
        for app in apps:
            before = unused.setdefault(app.id, [])
            self.by_app[app.id] = [self._sender(app, webhook, before) for webhook in app.webhooks]
        for senders in unused.values():
            for sender in senders:
                task = asyncio.get_running_loop().create_task(self._retire(sender))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def _sender(self, app: App, webhook: Webhook, before: list[Sender]) -> Sender:
        """The webhook's sender: one taken from ``before``, or a new one."""
        for sender in before:
            if sender.webhook == webhook:
                before.remove(sender)
                sender.app = app
                return sender
        from .requests import client  # noqa: PLC0415 - an HTTP client costs 80 ms to import
        from .sender import Sender  # noqa: PLC0415

        self._client = self._client or client()
        sender = Sender(app, webhook, self._client, self._policy, self._wall)
        self.all.append(sender)
        return sender

    async def _retire(self, sender: Sender) -> None:
        await sender.close(WEBHOOK_CLOSE_SECONDS)
        self.all.remove(sender)
        for name in FIGURES:
            self._past[name] += getattr(sender, name)

    async def close(self, seconds: float) -> None:
        """Accept nothing more, send what is due within so many seconds, and drop the rest."""
        self.by_app.clear()
        await asyncio.gather(*(sender.close(seconds) for sender in self.all), *self._retiring)
        if self._client is not None:
            await self._client.aclose()
