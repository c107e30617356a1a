"""Holds departures back; reports those that are not cancelled."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from legato.protocol.holdback import Gone, HoldBack

from .timer import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.protocol.channels import Key

    Confirm = Callable[[Gone, Callable[[bool], None]], None]


class HeldDepartures:
    """:class:`~legato.protocol.holdback.HoldBack` with a timer, across nodes.

    :param report: receives each departure that is due and not cancelled.
    :param confirm: see :class:`~legato.broadcaster.webhooks.dispatcher.Webhooks`.
    """

    def __init__(self, report: Callable[[Gone], None], confirm: Confirm | None, seconds: float) -> None:
        self.held = HoldBack(seconds)
        self._report = report
        self._confirm = confirm
        self._loop = asyncio.get_running_loop()
        self._timer = Timer(self._on_timer)

    def cancel(self, key: Key, user_id: str | None) -> bool:
        """Whether a return cancels a departure. With several nodes, the registry has decided that already."""
        return self.held.back(key, user_id) and self._confirm is None

    def add(self, gone: Gone, *, disconnect: bool) -> None:
        """Report a departure now or later; ``disconnect`` if the connection was lost."""
        key, user_id = gone
        if self._confirm is not None and not disconnect:
            # The nodes have decided together that this one is reported at once. If the same departure is
            # still held here, a return on another node has cancelled it.
            self.held.back(key, user_id)
            self._report(gone)
        elif self.held.gone(key, user_id, now := self._loop.time(), disconnect=disconnect):
            self._report(gone)
        else:
            self._release(now)

    def release(self) -> None:
        """Report all that is held, and hold nothing from now on: no client returns to this node."""
        self.held.seconds = 0.0
        self._release(float("inf"))

    def close(self) -> None:
        """:meth:`release`, and stop the timer."""
        self.release()
        self._timer.cancel()

    def _on_timer(self) -> None:
        self._release(self._loop.time())

    def _release(self, now: float) -> None:
        """Report what is due, unless the client has returned to another node."""
        for gone in self.held.due(now):
            if self._confirm is None:
                self._report(gone)
            else:
                self._confirm(gone, partial(self._report_if, gone))
        self._timer.set(self.held.next_due)

    def _report_if(self, gone: Gone, stands: bool) -> None:
        if stands:
            self._report(gone)
