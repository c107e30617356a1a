"""What uvicorn's ``RequestResponseCycle`` needs beside a request, and answers that no application makes."""

from __future__ import annotations

import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl

from .framing import INVALID, Refused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from uvicorn import Config

    from .framing import Head


class Flow(FlowControl):
    """uvicorn's, but reading is for the protocol to pause; here it is told when more is wanted."""

    def __init__(self, transport: asyncio.Transport, wanted: Callable[[], None]) -> None:
        super().__init__(transport)
        self._wanted = wanted

    def resume_reading(self) -> None:
        """An ASGI application is about to take what has come."""
        self._wanted()


class Parting:
    """The transport of an ASGI cycle whose request is not complete: what ends it is not a plain close."""

    def __init__(self, transport: asyncio.Transport, part: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = part


def scope_of(head: Head, config: Config, *, secure: bool) -> dict[str, Any]:
    """The ASGI scope of a request.

    :raises Refused: its target is no address.
    """
    try:
        url = httptools.parse_url(head.target)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
        raise Refused(400, INVALID) from error
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": None,
        "client": None,
        "scheme": "https" if secure else "http",
        "root_path": "",
        "headers": head.headers,
        "state": {},
        "method": head.method.decode("ascii"),
        "path": urllib.parse.unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": url.query or b"",
    }


def refusal(status: int, reason: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The last answer on a connection, to what is not read on."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b\r\n" % field for field in headers if field[0] != b"connection"]
    lines.append(
        b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
        % (len(reason), reason.encode())
    )
    return b"".join(lines)
