"""Detects optional features of a server."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

from .checks import Failure
from .transports import poll, session_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .client import Socket
    from .context import CaseContext


async def heard(socket: Socket, event: str) -> bool:
    """Whether the event arrives, possibly after others. A missing one costs the whole time-out."""
    with contextlib.suppress(Failure):
        while (await socket.next()).event != event:
            pass
        return True
    return False


async def client_events(t: CaseContext) -> str | None:
    """Why the application has no client events, as the server says; None if it has."""
    one = await t.connect()
    channel = t.name("private-")
    await t.subscribe(one, channel)
    await one.send("client-probe", {}, channel=channel)
    for message in await one.before_pong():
        if message.event == "pusher:error" and "enable" in message.raw:
            return "client events are not enabled for this application"
    return None


async def watchlist(t: CaseContext) -> str | None:
    """Why the application has no watchlists: nothing follows the sign-in; None if it has."""
    one = await t.connect(hear=["pusher_internal:watchlist_events"])
    user_data = json.dumps({"id": t.name(), "watchlist": [t.name()]})
    await t.ask_sign_in(one, user_data)
    if await heard(one, "pusher_internal:watchlist_events"):
        return None
    return "no watchlist event after a sign-in with a watchlist: not enabled for this application"


async def subscription_count(t: CaseContext) -> str | None:
    """Why the application has no counts: nothing follows the subscription; None if it has."""
    one = await t.connect(hear=["pusher_internal:subscription_count"])
    await t.ask(one, t.name())
    if await heard(one, "pusher_internal:subscription_count"):
        return None
    return "no subscription_count after a subscribe: not enabled for this application"


async def fallback(t: CaseContext) -> str | None:
    """Why the server has no fallback transports, as most servers; None if it has."""
    response = await poll(t, session_path(t))
    if response.status in (404, 405, 400, 403, 426, 501):
        return f"no HTTP fallback transports: {response.status} to the first receive request"
    return None


PROBES: Final[Mapping[str, Callable[[CaseContext], Awaitable[str | None]]]] = {
    "client events": client_events,
    "watchlist": watchlist,
    "subscription_count": subscription_count,
    "fallback": fallback,
}
"""Name of an optional feature -> a function that returns why it is missing, or None."""
