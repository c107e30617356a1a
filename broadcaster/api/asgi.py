"""Helpers for ASGI applications without a framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .events import ApiError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read the whole body, at most ``limit`` bytes.

    :raises ApiError: 413 if it is larger; 400 if the client disconnects before the end.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "The request was cut off")
        body += message.get("body", b"")
        if len(body) > limit:
            raise ApiError(413, f"The body is larger than {limit} bytes")
        if not message.get("more_body", False):
            return bytes(body)


async def disconnected(receive: Receive) -> None:
    """Wait until the peer has disconnected, or the answer is complete. A body is ignored."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_json(send: Send, status: int, body: bytes, wait: int = 0) -> None:
    """Answer with JSON.

    :param wait: seconds for ``Retry-After``; 0 for none.
    """
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if wait:
        headers.append((b"retry-after", str(wait).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
