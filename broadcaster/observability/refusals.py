"""Writes refusals to the log: one line each, and a bounded number of them per reason.

The lines answer "my client gets no events". They have no body, no token and no secret: callers pass names,
numbers and addresses only.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from legato.broadcaster.log_limits import (
    REFUSAL_FIELD_CHARACTERS,
    REFUSAL_LINES,
    REFUSAL_SECONDS,
    SHOWN_KEY_CHARACTERS,
)
from legato.protocol.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from legato.protocol.refusals import Refusal

logger: Final = logging.getLogger("legato.refused")

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


class Refused(Protocol):
    """Takes note of a refusal."""

    def __call__(self, refusal: Refusal, /, **fields: str | int | None) -> None:
        """Write a line, unless too many have this reason. Fields that are empty or None are left out."""


class RefusalLog:
    """Satisfies :class:`Refused`. At most :data:`REFUSAL_LINES` lines per reason and period.

    A period begins with the first refusal of its reason, and ends with a line that says how many more there
    were.

    :param call_later: calls a function with an argument after some seconds.
    """

    def __init__(self, call_later: Callable[[float, Callable[[Refusal], None], Refusal], object]) -> None:
        self._call_later = call_later
        self._counts: dict[str, int] = {}

    def __call__(self, refusal: Refusal, /, **fields: str | int | None) -> None:
        """See :class:`Refused`."""
        if not logger.isEnabledFor(_LEVELS[refusal.level]):
            return
        count = self._counts.get(refusal.reason, 0)
        if not count:
            self._call_later(REFUSAL_SECONDS, self._end, refusal)
        self._counts[refusal.reason] = count + 1
        if count < REFUSAL_LINES:
            _write(refusal, refusal.text, fields)

    def _end(self, refusal: Refusal) -> None:
        """End a period."""
        more = self._counts.pop(refusal.reason) - REFUSAL_LINES
        if more > 0:
            _write(refusal, f"suppressed {more} more: {refusal.text}", {"suppressed": more})


def _write(refusal: Refusal, text: str, fields: Mapping[str, str | int | None]) -> None:
    given = {
        name: shown(value) if isinstance(value, str) else value
        for name, value in fields.items()
        if value not in (None, "")
    }
    logger.log(_LEVELS[refusal.level], "%s", text, extra={"fields": {"reason": refusal.reason, **given}})


def shown(text: str) -> str:
    """A text of a client as the log shows it: bounded, and with nothing that could forge a line."""
    if len(text) > REFUSAL_FIELD_CHARACTERS:
        text = f"{text[:REFUSAL_FIELD_CHARACTERS]}…"
    return printable(text)


def key_hint(key: str) -> str:
    """The beginning of a key that a client has sent: somebody may have mistaken the secret for it."""
    return f"{key[: min(SHOWN_KEY_CHARACTERS, len(key) // 2)]}…" if key else ""
