"""Parts of the ASGI interface: flow control, the scope, and error answers of the server itself."""

from __future__ import annotations

import asyncio
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httptools

from .framing import INVALID, FramingRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uvicorn import Config

    from .framing import Head


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BrokenOffError(Exception):
    """Raised by an application that cannot complete its answer: the peer has to see that it is incomplete."""


class Flow:
    """Flow control of one connection, in both directions.

    :param wanted: called when an application is about to receive more of a body.
    :ivar write_paused: the peer does not read, and the transport's buffer is full.
    """

    __slots__ = ("_wanted", "_writable", "write_paused")

    def __init__(self, wanted: Callable[[], None]) -> None:
        self._wanted = wanted
        self._writable = asyncio.Event()
        self._writable.set()
        self.write_paused = False

    async def drain(self) -> None:
        """Wait until the transport accepts more."""
        await self._writable.wait()

    def resume_reading(self) -> None:
        """An application is about to receive more of the body."""
        self._wanted()

    def pause_writing(self) -> None:
        """Make writers wait."""
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport accepts more, or the connection is lost."""
        self.write_paused = False
        self._writable.set()


class ClosingTransport:
    """The transport of an ASGI cycle whose request is incomplete. Its ``close`` lets the peer finish."""

    def __init__(self, transport: asyncio.Transport, part: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = part


def scope_of(
    head: Head, config: Config, peer: asyncio.Transport, caller: str | None, *, secure: bool
) -> dict[str, Any]:
    """Build the ASGI scope of a request.

    The log gets the address from ``peer`` in the scope's state.

    :param caller: the client's address, if something is limited by it; its port is not known. It becomes the
        ``client`` of the scope.
    :raises FramingRefusal: the target is not a valid URL.
    """
    try:
        url = httptools.parse_url(head.target)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
        raise FramingRefusal(400, INVALID) from error
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": None,
        "client": None if caller is None else (caller, 0),
        "scheme": "https" if secure else "http",
        "root_path": "",
        "headers": head.headers,
        "state": {"peer": peer},
        "method": head.method.decode("ascii"),
        "path": urllib.parse.unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": url.query or b"",
    }


def refusal(status: int, reason: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Build the last answer on a connection: the request is refused and the rest of it not read."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b\r\n" % field for field in headers if field[0] != b"connection"]
    lines.append(
        b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
        % (len(reason), reason.encode())
    )
    return b"".join(lines)
