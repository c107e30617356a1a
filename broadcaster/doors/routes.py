"""The routes of the doors that the settings open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .ag_ui import AgUiDoor
from .events import EventDoor, TextDoor, UpdateDoor
from .openai import OpenAiDoor
from .streams import StreamDoor
from .ui import UiDoor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from starlette.routing import BaseRoute

    from .kit import DoorKit

    class DoorRoutes(Protocol):
        """The endpoints of one door."""

        def routes(self) -> Sequence[BaseRoute]:
            """The routes, to mount in an application."""


_DOORS: Final[Mapping[str, Callable[[DoorKit], DoorRoutes]]] = {
    "events": EventDoor,
    "updates": UpdateDoor,
    "text": TextDoor,
    "ui": UiDoor,
    "streams": StreamDoor,
    "ag-ui": AgUiDoor,
    "openai": OpenAiDoor,
}


def door_routes(names: Sequence[str], kit: DoorKit) -> list[BaseRoute]:
    """The routes of these doors, and that of the tokens with which URLs are read."""
    routes: list[BaseRoute] = []
    for name in dict.fromkeys(names):
        routes += _DOORS[name](kit).routes()
    if routes:
        routes.append(kit.route("/api/chat/{id}/token", "door_token", "POST", kit.access.grant))
    return routes
