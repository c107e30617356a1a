"""A client of any transport: its session, and the effects that the session asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from protocol import errors, messages
from protocol.session import Close, Effect, Relay, Send, Session, SignIn, Subscribe, Unsubscribe

from .frames import text_frame
from .hub import Key
from .order import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from protocol.errors import PusherError

    from .node import Node


class Client(ABC):
    """Satisfies :class:`broadcaster.hub.Subscriber` and :class:`broadcaster.wheel.Timed`.

    ``keys`` are its subscriptions in the hub, each with the effect that asked for it.
    """

    __slots__ = ("keys", "node", "order", "session", "slow", "socket_id", "write_now")

    write_now: Callable[[bytes], None]

    def __init__(self, node: Node) -> None:
        self.node = node
        self.session: Session | None = None
        self.keys: dict[Key, Subscribe | SignIn | None] = {}
        self.order = Order()
        self.slow = False
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

    # --- what all have in common

    def begin(self, path: str, params: Mapping[str, str], origin: str) -> None:
        """The handshake is complete: greet, or refuse (protocol section 1.5)."""
        admitted = self.node.admit(path, params, origin)
        if not isinstance(admitted, Session):
            self.close(admitted)
            return
        self.session = admitted
        self.socket_id = admitted.socket_id
        self.node.enter(self, admitted)
        self._run(admitted.greeting())

    def receive(self, text: bytes) -> None:
        """One message of the client: what it asks for is done in its turn."""
        if self.session is None:
            return
        for effect in self.session.receive(text, self.node.now()):
            if self.session is not None:
                self._run_in_turn(effect, len(text))

    def _run_in_turn(self, effect: Effect, size: int) -> None:
        key = None
        if self.session is not None and isinstance(effect, Subscribe):
            key = Key(self.session.app.id, effect.channel.name)
        if self.order.takes(key):
            self._run(effect)
            return
        self.order.defer(key, effect, size)
        if self.order.waiting_bytes > self.node.settings.server.send_queue_bytes:
            self.overwhelmed()

    def settle(self, key: Key, answer: Callable[[], None]) -> None:
        """The subscription may be answered, in its turn. What has waited for that goes on."""
        self.order.settle(key, answer)
        while (effect := self.order.next()) is not None:
            self._run(effect)

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
                self.node.subscribe(self, session, effect)
            case Unsubscribe(channel):
                self.node.unsubscribe(self, session, channel)
            case Relay():
                self.node.relay(self, session, effect)
            case SignIn():
                self.node.sign_in(self, session, effect)
            case Close(error):
                self.close(error)

    def overwhelmed(self) -> None:
        """Too much waits for a subscription to be answered."""
        self.give_up(errors.TOO_MUCH_AT_ONCE)

    def give_up(self, error: PusherError) -> None:
        """A bound of what is kept for this client is reached: it comes back, and starts anew."""
        self.node.slow_closed += 1
        self.close(error)

    def subscriptions(self) -> Iterable[Key]:
        """Every channel that this client has in the hub."""
        return list(self.keys)

    def check_at(self, now: float) -> float | None:
        """Liveness, from the wheel."""
        session = self.session
        if session is None:
            return None
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
        if session is not None:
            session.closed = True
            self.order.clear()
            self.node.leave(self, session)


def error_frame(error: PusherError) -> bytes:
    """What goes out before a close frame."""
    return text_frame(messages.error(error.message, error.code))
