"""What a bus is: it brings messages to every node.

One suite of tests holds all implementations to this contract:

* ``publish`` returns when the message is accepted; it raises :class:`BusError` when it was not, or may not
  have been. Messages of one publisher on one channel are delivered in the order of its calls.
* ``subscribe`` asks for a channel; ``BusHandler.confirmed`` is called for it, at once or later, and
  everything published from then on is passed to ``BusHandler.message``, the own node's messages too.
* Delivery is at most once. When a connection is lost, or a channel moves to another node of a Cluster,
  ``BusHandler.lost`` is called with the channels that were delivered until then and ``gaps`` counts one;
  their subscriptions come back by themselves and ``confirmed`` is called again. What was published meanwhile
  is lost.
* ``connected`` is false from then until every channel has a server that is reached.
* After ``unsubscribe`` nothing is delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Sequence

    from legato.broadcaster.channels.subscriber import Key
    from legato.protocol.wire import Envelope


class BusError(Exception):
    """The bus cannot be reached, or is over its bound. The text names no credentials."""


class RefusedError(BusError):
    """Redis answers, but does not do it: it is full, read-only, loading, or cannot write to its disk."""


class BusChannel:
    """A channel as its messages bring it along: one object per subscription to it on the bus.

    :ivar cached: per-channel cache for the receiver, which saves a look-up with each message. It may be
        stale: from before the last local subscriber left. The receiver has to recognise that.
    """

    __slots__ = ("cached", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.cached: Any = None


class BusHandler(Protocol):
    """What the bus tells of the channels that are asked for.

    The calls are synchronous and come one after another, so they may not block. For one channel they keep
    this order: ``confirmed``, then its messages, then perhaps ``lost``, then ``confirmed`` again.
    """

    def message(self, channel: BusChannel, envelope: Envelope) -> None:
        """A message of a channel that is confirmed. At most once, in order per publisher."""

    def confirmed(self, key: Key) -> None:
        """Every message that is accepted from now on is delivered, until the channel is lost.

        Called again after a loss, and for a channel that is asked for once more: everything that was
        accepted before that has been delivered then.
        """

    def lost(self, keys: Collection[Key]) -> None:
        """These channels are not delivered now. What is published until they are confirmed is lost."""


class Bus(Protocol):
    """See the module's contract."""

    @property
    def gaps(self) -> int:
        """How often the connection was lost."""

    @property
    def connected(self) -> bool:
        """Whether nothing that is asked for is missed right now, as far as is known."""

    async def start(self, handler: BusHandler) -> None:
        """Connect, and tell ``handler`` from now on.

        :raises BusError: there is nothing to connect to.
        """

    def post(self, messages: Sequence[tuple[Key, Envelope]]) -> asyncio.Future[None] | None:
        """Accept all, in order: at once, or when the future is done.

        :raises BusError: not all were accepted; or the future does.
        """

    async def publish(self, messages: Sequence[tuple[Key, Envelope]]) -> None:
        """:meth:`post` and wait.

        :raises BusError: not all were accepted.
        """

    def subscribe(self, key: Key) -> None:
        """Ask for a channel. One that is asked for already is confirmed once more."""

    def unsubscribe(self, key: Key) -> None:
        """Ask for a channel no more."""

    async def close(self) -> None:
        """Deliver nothing any more."""
