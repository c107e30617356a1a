"""Reads what a client has sent before it was admitted."""

from __future__ import annotations

from typing import Protocol


class Early(Protocol):
    """A client with early messages."""

    def read_early(self) -> bool:
        """Read one of them. Whether there are more."""

    def abort(self) -> None:
        """Cut the connection."""


class EarlyReader:
    """Reads the early messages of a client. Satisfies :class:`legato.broadcaster.transport.budget.Reader`.

    One answer of Redis may admit many clients. The read budget spreads their messages over several turns.
    """

    __slots__ = ("_client",)

    def __init__(self, client: Early) -> None:
        self._client = client

    def go_on(self) -> bool:
        """Read one message."""
        return self._client.read_early()

    def abort(self) -> None:
        """Cut the connection."""
        self._client.abort()
