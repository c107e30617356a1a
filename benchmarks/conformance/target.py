"""The server under test, as the command line describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLES: Final = {
    "disabled": "an application that is disabled (4003, HTTP 403)",
    "full": "an application that allows one connection (4004, or 4100 by choice)",
    "strict": "an application that closes connections which are not authorised in time (4009)",
    "quiet": "an application without client events",
}
"""Further applications that some cases need, and their configuration."""


class Application(NamedTuple):
    """Credentials of one application."""

    id: str
    key: str
    secret: str

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Application(id={self.id!r}, key={self.key!r})"


@dataclass(frozen=True)
class Target:
    """The address and the configuration of the server. Times are in seconds.

    ``url`` and ``api`` have no slash at the end and may have a path. ``timeout`` bounds every wait.
    ``patience`` is added for the server's own timers: its wait for a pong, hold-back and batching of
    webhooks. ``slow`` allows cases that wait for such timers or open over a hundred sockets.
    """

    url: str
    api: str
    app: Application
    timeout: float = 5.0
    slow: bool = False
    patience: float = 35.0
    refused_origin: str = ""
    others: Mapping[str, Application] = field(default_factory=dict)
