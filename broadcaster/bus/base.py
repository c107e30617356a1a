"""The interface of the bus, which carries messages to every node.

All implementations keep this contract; they share one test suite:

* ``publish`` returns when the message is accepted. It raises :class:`BusError` when the message was not
  accepted, or may not have been. Messages of one publisher on one channel are delivered in the order of its
  calls.
* ``subscribe`` requests a channel. ``BusHandler.confirmed`` is called for it, at once or later. Everything
  published after that is passed to ``BusHandler.message``, including the messages of this node.
* Delivery is at most once. When a connection is lost, or a channel moves to another node of a Cluster,
  ``BusHandler.lost`` is called with the channels that were being delivered, and ``gaps`` increases by one.
  The bus subscribes to them again by itself and calls ``confirmed`` again. Messages published in between are
  lost.
* ``connected`` is false from then until every channel has a connected server.
* Nothing is delivered after ``unsubscribe``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Sequence

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.wire import Envelope


class BusError(Exception):
    """The bus cannot be reached, or its queue is full. The text contains no credentials."""


class RefusedError(BusError):
    """Redis answers with an error: it is full, read-only, loading, or cannot write to its disk."""


class BusChannel:
    """A subscribed channel, passed with each of its messages. One object per subscription on the bus.

    :ivar cached: per-channel cache for the receiver, which saves a look-up per message. It may be stale, from
        before the last local subscriber left; the receiver must detect that.
    """

    __slots__ = ("cached", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.cached: Any = None


class BusHandler(Protocol):
    """Receives the messages and the state changes of the subscribed channels.

    The calls are synchronous and sequential; a handler must not block. For one channel they come in this
    order: ``confirmed``, its messages, then possibly ``lost`` and ``confirmed`` again.
    """

    def message(self, channel: BusChannel, envelope: Envelope) -> None:
        """Take a message of a confirmed channel. At most once, in order per publisher."""

    def confirmed(self, key: Key) -> None:
        """The bus delivers every message that it accepts from now on, until the channel is lost.

        Called again after a loss, and after each repeated ``subscribe``. In the latter case everything
        accepted before that ``subscribe`` has been delivered.
        """

    def lost(self, keys: Collection[Key]) -> None:
        """The bus does not deliver these channels. Messages are lost until ``confirmed`` is called."""


class Bus(Protocol):
    """A bus. The module's docstring states the contract."""

    @property
    def gaps(self) -> int:
        """How often the connection was lost."""

    @property
    def connected(self) -> bool:
        """Whether every subscribed channel is being delivered, as far as is known."""

    async def start(self, handler: BusHandler) -> None:
        """Connect, and begin to call ``handler``.

        :raises BusError: the bus cannot be reached.
        """

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> asyncio.Future[None] | None:
        """Publish without waiting. Messages keep their order.

        :returns: a future that ends when all are accepted, or with :class:`BusError`; None if they were
            accepted at once.
        :raises BusError: not all were accepted.
        """

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """:meth:`post` and wait.

        :raises BusError: not all were accepted.
        """

    def subscribe(self, key: Key) -> None:
        """Request a channel. If it is subscribed already, it is confirmed once more."""

    def unsubscribe(self, key: Key) -> None:
        """End the subscription to a channel."""

    async def close(self) -> None:
        """Stop delivering, and disconnect."""
