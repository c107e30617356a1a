"""An authenticated request to the HTTP API, and the outcome of its endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from legato.protocol.apps import App

Told = tuple[int, Mapping[str, Any]]
"""Status, and the JSON object of the body."""

ACCEPTED: Final[Told] = 200, {}


class ApiRequest(NamedTuple):
    """An authenticated request. ``names`` are the decoded values of ``*`` in its route."""

    app: App
    names: tuple[str, ...]
    params: Mapping[str, str]
    body: bytes

    @property
    def info(self) -> frozenset[str]:
        """The attributes requested in the query."""
        return attributes(self.params.get("info"))


def attributes(info: str | None) -> frozenset[str]:
    """The names in a comma-separated ``info``."""
    return frozenset(name.strip() for name in (info or "").split(",")) - {""}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer ``told``, to be sent once the bus has accepted the messages."""

    when: asyncio.Future[None]
    told: Told


Outcome = Told | Accepted | asyncio.Future[Told]

Endpoint = Callable[[ApiRequest], Outcome]
"""Answers a request, at once or later."""
