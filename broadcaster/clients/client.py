"""A client of any transport: feeds its session and carries out the session's effects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.limits import READ_SLICE_MESSAGES
from legato.broadcaster.transport.frames import text_frame
from legato.broadcaster.transport.send_queue import MergingSendQueue, SendQueue
from legato.protocol import errors
from legato.protocol.merging import WATERMARK_BYTES
from legato.protocol.session import (
    Close,
    Effect,
    Refuse,
    Relay,
    Send,
    ShortenBuffers,
    SignIn,
    Subscribe,
    Unsubscribe,
)

from .command_queue import EFFECT_BYTES, Order
from .early import EarlyReader
from .ends import DROPPED, REFUSALS, Ended, are_told, tell_end

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Collection, Mapping

    from legato.broadcaster.addresses.opening import AddressLimits
    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.config import Server
    from legato.broadcaster.observability.refusals import Refused
    from legato.broadcaster.transport.budget import Budget
    from legato.protocol.errors import PusherError
    from legato.protocol.refusals import Refusal
    from legato.protocol.session import Session

    from .figures import ConnectionFigures
    from .timer_wheel import Wheel


Claim = Subscribe | SignIn | Ended | None
"""Why a client is subscribed to a channel; None for one that it has not asked for by name."""


class Admitting(Protocol):
    """Admits or refuses clients."""

    def admit(self, client: Client, path: str, params: Mapping[str, str], origin: str) -> None:
        """Check a complete handshake; ends in :meth:`Client.greet` or :meth:`Client.close`."""

    def abandon(self, client: Client) -> None:
        """The client has left before its admission. Idempotent."""


class ClientRegistry(Protocol):
    """Knows the open clients."""

    def enter(self, client: Client, session: Session) -> None:
        """Add an admitted client."""

    def leave(self, client: Client, session: Session) -> None:
        """Remove a client that has left, and end its subscriptions, now or soon."""

    def dismiss(self, client: Client, error: PusherError) -> None:
        """Close the client, after the frames that were published before."""


@dataclass(frozen=True, slots=True, repr=False)
class EffectHandlers:
    """Carries out a session's effects for a client. Each handler is a method of the part that it concerns."""

    subscribe: Callable[[Client, Key, Subscribe], None]
    """Subscribe, and answer once the bus delivers the channel (protocol section 4.4)."""
    unsubscribe: Callable[[Client, Key], None]
    """End the subscription. Idempotent."""
    sign_in: Callable[[Client, Session, SignIn], None]
    """Sign the client in, and answer once the bus delivers the user's channel (section 7)."""
    relay: Callable[[Client, Session, Relay], None]
    """Publish a client event (section 6)."""


@dataclass(frozen=True, slots=True, repr=False)
class ClientContext:
    """What all clients of a process share: limits, clocks, and the parts that they call."""

    server: Server
    loop: AbstractEventLoop
    now: Callable[[], float]
    budget: Budget
    wheel: Wheel
    hub: Hub
    figures: ConnectionFigures
    refused: Refused
    admission: Admitting
    clients: ClientRegistry
    effects: EffectHandlers
    addresses: AddressLimits
    tells_ends: bool = field(default_factory=are_told)
    """Whether the end of each client is logged."""


class Client(ABC):
    """Satisfies :class:`~legato.broadcaster.channels.subscriber.Subscriber` and :class:`.timer_wheel.Timed`.

    ``keys`` are its subscriptions in the hub, each with its reason. ``early`` holds the messages sent before
    admission until they are processed, else None. While it is ``paused``, nothing is read from it.
    ``forwarded`` is what proxies say of its address, which may be anything. ``caller`` is the address that
    limits count (:class:`.Callers`), unset without such limits.
    """

    __slots__ = (
        "caller",
        "context",
        "early",
        "forwarded",
        "keys",
        "order",
        "paused",
        "session",
        "slow",
        "socket_id",
        "write_now",
    )

    caller: str
    """Set before the handshake if something is limited by it, unset if not; empty if it is not known."""
    write_now: Callable[[bytes], None]

    def __init__(self, context: ClientContext) -> None:
        self.context = context
        self.session: Session | None = None
        self.early: list[bytes] | None = None
        self.keys: dict[Key, Claim] = {}
        self.order = Order()
        self.slow = False
        self.paused = False
        self.socket_id = self.forwarded = ""

    # --- implemented by each transport

    @property
    @abstractmethod
    def address(self) -> str:
        """Host and port of the peer, which may be a proxy; empty if unknown. For the log."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write frames now, or queue them while the client is slow."""

    @abstractmethod
    def enqueue(self, data: bytes) -> None:
        """Queue frames for a slow client, within a bound."""

    @abstractmethod
    def say_goodbye(self, error: PusherError) -> None:
        """End the connection with the error's code. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection, and drop the frames that wait."""

    @abstractmethod
    def hold_up(self) -> None:
        """Stop reading from the client until :meth:`read_on`. Idempotent."""

    @abstractmethod
    def read_on(self) -> None:
        """Resume reading, with what has arrived meanwhile first."""

    @abstractmethod
    def shorten_buffers(self) -> None:
        """Let little wait outside of the queue of a slow client."""

    # --- common to all transports

    def begin(self, path: str, params: Mapping[str, str], origin: str) -> None:
        """Pass a complete handshake on to admission; ends in :meth:`greet` or :meth:`close`."""
        self.context.admission.admit(self, path, params, origin)

    def greet(self, session: Session) -> None:
        """Start the session of an admitted client. Its early messages follow the greeting (section 1.5)."""
        self.session = session
        self.socket_id = session.socket_id
        self.context.clients.enter(self, session)
        self.context.wheel.add(self, session.deadline)
        self._run(session.greeting())
        if self.early:
            self.hold_up()
            self.context.budget.put(EarlyReader(self))
            return
        self.early = None
        if self.paused:
            self.relieve()

    def read_early(self) -> bool:
        """Process one early message. Returns whether there are more."""
        if self.early:
            self.receive(self.early.pop(0))
        if self.early:  # not the last one, and the client has not left
            return True
        if self.session is not None:
            self.early = None
            self.relieve()
        return False

    @property
    def held(self) -> bool:
        """Whether reading from the client has to pause.

        It does while the client is slow or has too many commands in progress. Otherwise the client could make
        the server buffer without bound.
        """
        if self.slow:
            return True
        if self.early is not None:
            return self.session is not None or len(self.early) >= READ_SLICE_MESSAGES
        return self.order.full or 2 * self.order.waiting_bytes > self._bound

    def relieve(self) -> None:
        """Resume reading, if nothing demands a pause any more."""
        if self.paused and not self.held:
            self.read_on()

    @property
    def there(self) -> bool:
        """Whether the client is admitted, or waits for its admission."""
        return self.session is not None or self.early is not None

    def receive(self, text: bytes) -> None:
        """Take one message of the client, and run its effects in order."""
        if self.session is None:
            self._buffer_early(text)
            return
        for effect in self.session.receive(text, self.context.now()):
            if self.session is not None:
                self._run_in_turn(effect, len(text))

    def _buffer_early(self, text: bytes) -> None:
        """Buffer a message until the client is admitted, within a bound."""
        if self.early is None:
            return
        self.early.append(text)
        if sum(map(len, self.early)) + EFFECT_BYTES * len(self.early) > self._bound:
            self.overwhelmed()
        elif self.held:
            self.hold_up()

    @property
    def _bound(self) -> int:
        return self.context.server.send_queue_bytes

    def _run_in_turn(self, effect: Effect, size: int) -> None:
        key = None
        if self.session is not None and isinstance(effect, Subscribe):
            key = Key(self.session.app.id, effect.channel.name)
            if self.order.takes(key):
                self.context.effects.subscribe(self, key, effect)
                return
        elif self.order.takes(None):
            self._run(effect)
            return
        self.order.defer(key, effect, size)
        if self.order.waiting_bytes > self._bound:
            self.overwhelmed()
        elif self.held:
            self.hold_up()

    def settle(self, key: Key, answer: Callable[[], None]) -> None:
        """Answer a subscription once those before it are answered, then run the commands that waited."""
        self.order.settle(key, answer)
        while (effect := self.order.next()) is not None:
            self._run(effect)
        if self.paused:
            self.relieve()

    def send(self, payload: bytes) -> None:
        """Send one message to the client."""
        self.write(text_frame(payload))

    def _run(self, effect: Effect) -> None:
        """Carry out one effect."""
        session = self.session
        if session is None:
            return
        match effect:
            case Send(payload):
                self.send(payload)
            case Subscribe():
                self.context.effects.subscribe(self, Key(session.app.id, effect.channel.name), effect)
            case Unsubscribe(channel):
                self.context.effects.unsubscribe(self, Key(session.app.id, channel))
            case Relay():
                self.context.effects.relay(self, session, effect)
            case SignIn():
                self.context.effects.sign_in(self, session, effect)
            case ShortenBuffers():
                self.shorten_buffers()
            case Close(error):
                self._dismiss(error)
            case Refuse(payload, refusal, channel, detail):
                self.refused(refusal, channel=channel, detail=detail)
                self.send(payload)

    def _dismiss(self, error: PusherError) -> None:
        if (refusal := REFUSALS.get(error)) is not None:
            self.refused(refusal, code=error.code)
        self.context.clients.dismiss(self, error)

    def refused(self, refusal: Refusal, **fields: str | int | None) -> None:
        """Take note that the client, or what it has asked for, is refused."""
        if self.session is not None:
            fields = {"app": self.session.app.id, **fields, "socket_id": self.socket_id}
        self.context.refused(refusal, **fields, address=self.address, forwarded_for=self.forwarded)

    def new_send_queue(self) -> SendQueue:
        """Make an empty queue for frames that have to wait."""
        return SendQueue(min(WATERMARK_BYTES, self._bound))

    def over_limit(self, queue: SendQueue) -> SendQueue | None:
        """The queue to use instead of one that has grown over its limit. None if it is full.

        Above the watermark, tokens are merged if the client has asked for it.
        """
        session = self.session
        if session is not None and session.merging and not queue.merges:
            queue = MergingSendQueue(session, self.context.figures, queue)
        queue.limit = self._bound
        return queue if queue.size <= queue.limit else None

    def overwhelmed(self) -> None:
        """Close the client: too much waits for the answer to a subscription."""
        self.give_up(errors.TOO_MUCH_AT_ONCE)

    def give_up(self, error: PusherError) -> None:
        """Close a client whose buffer is full, so that it reconnects with a clean state."""
        self.context.figures.slow_closed += 1
        self.refused(REFUSALS[error], code=error.code)
        self.close(error)

    def subscriptions(self) -> Collection[Key]:
        """Every channel of this client in the hub."""
        return list(self.keys)

    def check_at(self, now: float) -> float | None:
        """Check liveness, called by the wheel. A client whose reading is paused does not count as silent."""
        session = self.session
        if session is None:
            return None
        if self.paused:
            session.seen(now)
        for effect in session.check(now):  # not in order: commands that never finish must time out too
            self._run(effect)
        return session.deadline if self.session is session else None

    def close(self, error: PusherError) -> None:
        """Send the error event, then end with the same code (protocol section 9)."""
        if self.session is not None:
            self.session.close(error)
        self.leave(error.code, error.message)
        self.say_goodbye(error)

    def leave(self, code: int = DROPPED, reason: str = "") -> None:
        """Leave every channel and every count. Idempotent.

        :param code: and ``reason``, of the close frame: what to log of the end.
        """
        session, self.session = self.session, None
        if self.early is not None:
            self.early = None
            self.context.admission.abandon(self)
        if session is not None:
            session.closed = True
            self.order.clear()
            self.context.clients.leave(self, session)
            if self.context.tells_ends:
                tell_end(self, session, self.context.now(), code, reason)
