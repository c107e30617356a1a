"""A client of any transport: its session, and the effects that the session asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from legato.broadcaster.channels.subscriber import Key
from legato.broadcaster.transport.budget import SLICE
from legato.broadcaster.transport.frames import text_frame
from legato.protocol import errors, messages
from legato.protocol.session import Close, Effect, Relay, Send, SignIn, Subscribe, Unsubscribe

from .command_queue import EFFECT_BYTES, Order

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Collection, Mapping

    from legato.broadcaster.channels.hub import Hub
    from legato.broadcaster.config import Server
    from legato.broadcaster.transport.budget import Budget
    from legato.protocol.errors import PusherError
    from legato.protocol.session import Session

    from .figures import ConnectionFigures
    from .timer_wheel import Wheel


class Ended:
    """Stands for a subscription that the registry has been told the end of already (:mod:`.drain`)."""


ENDED: Final = Ended()

Claim = Subscribe | SignIn | Ended | None
"""What a client has a channel for; None for one that it has not asked for by name."""


class Gate(Protocol):
    """Decides who gets in."""

    def admit(self, client: Client, path: str, params: Mapping[str, str], origin: str) -> None:
        """A handshake is complete: this ends in :meth:`Client.greet` or :meth:`Client.close`."""

    def abandon(self, client: Client) -> None:
        """The client waits for that no longer. Idempotent."""


class Roll(Protocol):
    """Knows the clients that are open."""

    def enter(self, client: Client, session: Session) -> None:
        """The client is let in."""

    def leave(self, client: Client, session: Session) -> None:
        """It has gone: all of its subscriptions end, now or soon."""

    def dismiss(self, client: Client, error: PusherError) -> None:
        """Close it, behind what was published before."""


class Subscribing(Protocol):
    """Carries out :class:`~legato.protocol.session.Subscribe`."""

    def subscribe(self, client: Client, key: Key, effect: Subscribe) -> None:
        """Answer when the channel delivers (protocol section 4.4)."""


class Unsubscribing(Protocol):
    """Carries out :class:`~legato.protocol.session.Unsubscribe`."""

    def unsubscribe(self, client: Client, key: Key) -> None:
        """End the subscription. Idempotent."""


class SigningIn(Protocol):
    """Carries out :class:`~legato.protocol.session.SignIn`."""

    def sign_in(self, client: Client, session: Session, effect: SignIn) -> None:
        """Answer when the user's channel delivers (section 7)."""


class Relaying(Protocol):
    """Carries out :class:`~legato.protocol.session.Relay`."""

    def relay(self, client: Client, session: Session, effect: Relay) -> None:
        """Publish a client event (section 6)."""


@dataclass(frozen=True, slots=True, repr=False)
class ClientContext:
    """What all clients of a process share: limits, clocks, and who carries out what sessions ask for."""

    server: Server
    loop: AbstractEventLoop
    now: Callable[[], float]
    budget: Budget
    wheel: Wheel
    hub: Hub
    figures: ConnectionFigures
    gate: Gate
    clients: Roll
    subscriptions: Subscribing
    departures: Unsubscribing
    sign_ins: SigningIn
    client_events: Relaying


class Client(ABC):
    """Satisfies :class:`~legato.broadcaster.channels.subscriber.Subscriber` and :class:`.timer_wheel.Timed`.

    ``keys`` are its subscriptions in the hub, each with its reason. ``early`` holds what it sent before
    admission, until that is read; otherwise None. While it is ``paused`` nothing is read of what it sends.
    """

    __slots__ = ("context", "early", "keys", "order", "paused", "session", "slow", "socket_id", "write_now")

    write_now: Callable[[bytes], None]

    def __init__(self, context: ClientContext) -> None:
        self.context = context
        self.session: Session | None = None
        self.early: list[bytes] | None = None
        self.keys: dict[Key, Claim] = {}
        self.order = Order()
        self.slow = False
        self.paused = False
        self.socket_id = ""

    # --- what a transport does

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
        """Cut the connection, whatever is still to be written."""

    @abstractmethod
    def hold_up(self) -> None:
        """Read nothing more of what the client says until :meth:`read_on`. Idempotent."""

    @abstractmethod
    def read_on(self) -> None:
        """Read what has come meanwhile, in its turn, and what comes."""

    # --- what all have in common

    def begin(self, path: str, params: Mapping[str, str], origin: str) -> None:
        """The handshake is complete: this ends in :meth:`greet` or :meth:`close`."""
        self.context.gate.admit(self, path, params, origin)

    def greet(self, session: Session) -> None:
        """The client is let in: what it has said meanwhile comes after the greeting (section 1.5)."""
        self.session = session
        self.socket_id = session.socket_id
        self.context.clients.enter(self, session)
        self.context.wheel.add(self, session.deadline)
        self._run(session.greeting())
        if self.early:
            self.hold_up()
            self.context.budget.put(_Early(self))
            return
        self.early = None
        if self.paused:
            self.relieve()

    def read_early(self) -> bool:
        """One message of those that came before the greeting. Whether there are more."""
        if self.early:
            self.receive(self.early.pop(0))
        if self.early:  # else there is no more, or the client has left meanwhile
            return True
        if self.session is not None:
            self.early = None
            self.relieve()
        return False

    @property
    def held(self) -> bool:
        """Whether nothing more is to be read now of what the client says.

        So it is while what it has asked for is under way, or waits to be taken by it: otherwise it could make
        the server keep more and more.
        """
        if self.slow:
            return True
        if self.early is not None:
            return self.session is not None or len(self.early) >= SLICE
        return self.order.full or 2 * self.order.waiting_bytes > self._bound

    def relieve(self) -> None:
        """Something of what has held it up is over."""
        if self.paused and not self.held:
            self.read_on()

    @property
    def there(self) -> bool:
        """Whether it is let in, or waits for that."""
        return self.session is not None or self.early is not None

    def receive(self, text: bytes) -> None:
        """One message of the client: what it asks for is done in its turn."""
        if self.session is None:
            self._keep(text)
            return
        for effect in self.session.receive(text, self.context.now()):
            if self.session is not None:
                self._run_in_turn(effect, len(text))

    def _keep(self, text: bytes) -> None:
        """Until the client is let in, within a bound."""
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
            if key is not None and isinstance(effect, Subscribe):
                self.context.subscriptions.subscribe(self, key, effect)
            else:
                self._run(effect)
            return
        self.order.defer(key, effect, size)
        if self.order.waiting_bytes > self._bound:
            self.overwhelmed()
        elif self.held:
            self.hold_up()

    def settle(self, key: Key, answer: Callable[[], None]) -> None:
        """The subscription may be answered, in its turn. What has waited for that goes on."""
        self.order.settle(key, answer)
        while (effect := self.order.next()) is not None:
            self._run(effect)
        if self.paused:
            self.relieve()

    def send(self, payload: bytes) -> None:
        """One message to the client."""
        self.write(text_frame(payload))

    def _run(self, effect: Effect) -> None:
        """Carry out what the session asks for."""
        session = self.session
        if session is None:
            return
        match effect:
            case Send(payload):
                self.send(payload)
            case Subscribe():
                self.context.subscriptions.subscribe(self, Key(session.app.id, effect.channel.name), effect)
            case Unsubscribe(channel):
                self.context.departures.unsubscribe(self, Key(session.app.id, channel))
            case Relay():
                self.context.client_events.relay(self, session, effect)
            case SignIn():
                self.context.sign_ins.sign_in(self, session, effect)
            case Close(error):
                self.context.clients.dismiss(self, error)

    def overwhelmed(self) -> None:
        """Too much waits for a subscription to be answered."""
        self.give_up(errors.TOO_MUCH_AT_ONCE)

    def give_up(self, error: PusherError) -> None:
        """A bound of what is kept for this client is reached: it comes back, and starts anew."""
        self.context.figures.slow_closed += 1
        self.close(error)

    def subscriptions(self) -> Collection[Key]:
        """Every channel that this client has in the hub."""
        return list(self.keys)

    def check_at(self, now: float) -> float | None:
        """Liveness, from the wheel. A client of which nothing is read is not silent."""
        session = self.session
        if session is None:
            return None
        if self.paused:
            session.seen(now)
        for effect in session.check(now):  # not in turn: a turn that never comes must end too
            self._run(effect)
        return session.deadline if self.session is session else None

    def close(self, error: PusherError) -> None:
        """Send the error event, then end with the same code (protocol section 9)."""
        if self.session is not None:
            self.session.close(error)
        self.leave()
        self.say_goodbye(error)

    def leave(self) -> None:
        """Out of every channel and every count. Idempotent."""
        session, self.session = self.session, None
        if self.early is not None:
            self.early = None
            self.context.gate.abandon(self)
        if session is not None:
            session.closed = True
            self.order.clear()
            self.context.clients.leave(self, session)


class _Early:
    """What a client has said before it was let in. Satisfies :class:`.budget.Reader`.

    Many may be let in by one answer of Redis: they are not read in the same turn.
    """

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    def go_on(self) -> bool:
        """Read one message."""
        return self._client.read_early()

    def abort(self) -> None:
        """Cut the connection."""
        self._client.abort()


def error_frame(error: PusherError) -> bytes:
    """What goes out before a close frame."""
    return text_frame(messages.error(error.message, error.code))
