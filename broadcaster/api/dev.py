"""Restricts the routes of ``[dev]`` to this server's pages and programs on the developer's machine."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from legato.protocol import refusals
from legato.protocol.origins import Origins

from .refusals import ChatRefusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from legato.broadcaster.config import Settings


class Guard:
    """Refuses requests of foreign pages, including those that use DNS rebinding.

    A page can point its own host name at this machine, and the browser then takes both for the same origin.
    So the ``Host`` header has to be a known name, or an IP address, which involves no DNS.
    """

    def __init__(self, settings: Settings) -> None:
        self._own = Origins(settings.dev.hosts)
        cors = settings.server.cors_origins
        self._others = Origins(() if "*" in cors else cors, scheme=True)

    def wrap(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Wrap an endpoint with the check.

        :raises ChatRefusal: 403 (by the endpoint), for a foreign page.
        """

        async def endpoint(request: Request) -> Response:
            if not self._admits(request):
                text = "Only for pages of this server; LEGATO_DEV_HOSTS names further hosts."
                raise ChatRefusal(403, text, refusals.FOREIGN_PAGE)
            return await handler(request)

        return endpoint

    def _admits(self, request: Request) -> bool:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return False
        origins = request.headers.getlist("origin")
        if not origins:  # a program, or a page that cannot read the answer
            return request.headers.get("sec-fetch-site") != "cross-site"
        return all(
            origin == f"{request.url.scheme}://{hosts[0]}"
            or self._own.allow(origin)
            or self._others.allow(origin)
            for origin in origins
        )

    def _knows(self, host: str) -> bool:
        return self._own.allow(f"http://{host}") or _is_address(host)


def _is_address(host: str) -> bool:
    """Whether a ``Host`` header is an IP address, with or without a port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
