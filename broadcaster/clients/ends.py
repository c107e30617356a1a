"""The end of a connection: its last frame, its line of the log, and the mark of its ended subscriptions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from legato.broadcaster.observability.refusals import shown
from legato.broadcaster.transport.frames import text_frame
from legato.protocol import errors, messages, refusals

if TYPE_CHECKING:
    from legato.protocol.errors import PusherError
    from legato.protocol.session import Session

logger: Final = logging.getLogger("legato.connections")


class Ended:
    """Marks a subscription that has already ended in the registry (:mod:`.drain`)."""


ENDED: Final = Ended()

NO_CODE: Final = 1005
DROPPED: Final = 1006
"""Codes for a close frame without a code, and for an end without a close frame (RFC 6455 section 7.4.1)."""

REFUSALS: Final = {
    errors.NOT_AUTHORIZED: refusals.NOT_AUTHORIZED,
    errors.TOO_SLOW: refusals.TOO_SLOW,
    errors.TOO_MUCH_AT_ONCE: refusals.TOO_MUCH_AT_ONCE,
    errors.TOO_MANY_MESSAGES: refusals.TOO_MANY_MESSAGES,
}
"""Closes for what a client does or omits, by their errors."""


def error_frame(error: PusherError) -> bytes:
    """Build the frame with the error event, which precedes the close frame."""
    return text_frame(messages.error(error.message, error.code))


def are_told() -> bool:
    """Whether the log is at debug. Asked once, at the start."""
    return logger.isEnabledFor(logging.DEBUG)


class Addressed(Protocol):
    """A connection, as far as its end is logged."""

    forwarded: str

    @property
    def address(self) -> str:
        """Host and port of the peer."""


def tell_end(client: Addressed, session: Session, now: float, code: int, reason: str) -> None:
    """Log the end of an admitted connection at debug, with code and reason of the close frame."""
    fields = {
        "app": session.app.id,
        "socket_id": session.socket_id,
        "code": code,
        "detail": shown(reason),
        "seconds": round(now - session.opened, 3),
        "address": client.address,
        "forwarded_for": shown(client.forwarded),
    }
    logger.debug("connection ended", extra={"fields": fields})
