"""One request and its answer on a connection: our :class:`.exchange.Exchange`, or uvicorn's cycle."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from .asgi import Parting
from .exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.broadcaster.api.http_api import HttpApi

    from .asgi import Flow
    from .framing import Head

logger: Final = logging.getLogger("legato.http")

HELD_BYTES: Final = 65_536
"""How much of a body waits for an ASGI application that does not take it."""

Cycle = RequestResponseCycle | Exchange


def asgi_cycle(
    head: Head,
    scope: dict[str, Any],
    transport: asyncio.Transport | Parting,
    flow: Flow,
    default_headers: list[tuple[bytes, bytes]],
    on_response: Callable[[], None],
) -> RequestResponseCycle:
    """A request that an ASGI application answers, before any of its body has come.

    :param transport: a :class:`.asgi.Parting` if a body follows.
    """
    return RequestResponseCycle(
        scope=scope,  # type: ignore[arg-type]
        transport=transport,  # type: ignore[arg-type]
        flow=flow,
        logger=logger,
        access_logger=logger,
        access_log=False,
        default_headers=default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=head.expects and isinstance(transport, Parting),
        keep_alive=head.keep_alive,
        on_response=on_response,
    )


def disconnect(cycle: Cycle | None) -> None:
    """Nothing more is said to the peer about the request, if it runs."""
    if cycle is None or cycle.response_complete:
        return
    cycle.disconnected = True
    if isinstance(cycle, RequestResponseCycle):
        cycle.message_event.set()


def has_enough(cycle: Cycle | None) -> bool:
    """Whether an application has enough of the body, for now."""
    return (
        isinstance(cycle, RequestResponseCycle)
        and not cycle.response_complete
        and len(cycle.body) >= HELD_BYTES
    )


def give(cycle: Cycle | None, data: bytes, api: HttpApi) -> None:
    """Some of the body has come. Nobody wants it any more behind the answer."""
    if not data or cycle is None or cycle.response_complete:
        return
    if isinstance(cycle, Exchange):
        cycle.add(data, api.max_body)
        if cycle.body is None:
            cycle.begin(api)
    else:
        cycle.body += data
        cycle.message_event.set()


def complete(cycle: Cycle, api: HttpApi) -> None:
    """The whole request has come."""
    if isinstance(cycle, Exchange):
        cycle.begin(api)
    else:
        cycle.more_body = False
        cycle.message_event.set()
