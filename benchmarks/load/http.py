"""An HTTP connection of a publisher: one signed POST at a time, with keep-alive."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import ssl

    from .orders import LoadTarget

TIMEOUT: Final = 30.0
"""Time-out of an answer, in seconds."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)


def signed(target: LoadTarget, body: bytes, at: int) -> bytes:
    """The request that publishes ``body``, as server SDKs send it. ``at``: Unix time in seconds."""
    path = f"{target.path}/apps/{target.app_id}/events"
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    query = f"auth_key={target.key}&auth_timestamp={at}&auth_version=1.0&body_md5={md5}"
    secret = target.secret.encode()
    signature = hmac.digest(secret, f"POST\n{path}\n{query}".encode(), "sha256").hex()
    return (
        f"POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\n"
        f"Host: {target.api_host}:{target.api_port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def whole(data: bytes, *, ended: bool = False) -> tuple[int, bool] | None:
    """Status of an answer, and whether the connection stays open; None if the answer is incomplete.

    :param ended: the server has closed the connection.
    """
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    status = int(head[9:12])
    goes_on = not ended and not _CLOSE.search(head) and head.startswith(b"HTTP/1.1")
    if length := _LENGTH.search(head):
        complete = len(body) >= int(length[1])
    elif _CHUNKED.search(head):
        complete = body.endswith(b"0\r\n\r\n")
    else:
        complete = status == 204 or ended
    return (status, goes_on) if complete else None


class _Answers(asyncio.Protocol):
    """The open connection. ``answer`` is that of the request in flight."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, bool]] | None = None
        self.transport: asyncio.Transport | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._settle(whole(self._data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(whole(self._data, ended=True))
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("closed without an answer"))

    def _settle(self, found: tuple[int, bool] | None) -> None:
        if found is not None:
            self._data = b""
            if self.answer is not None and not self.answer.done():
                self.answer.set_result(found)


class ApiConnection:
    """Posts events. ``opened`` counts connections: more than one means that the server closes them."""

    def __init__(self, target: LoadTarget, tls: ssl.SSLContext | None) -> None:
        self._target = target
        self._options: dict[str, Any] = {"ssl": tls, "server_hostname": target.api_host} if tls else {}
        self._answers: _Answers | None = None
        self.opened = 0

    async def post(self, body: bytes) -> int:
        """Publish; the HTTP status.

        :raises OSError: the server cannot be reached, or has closed without an answer.
        :raises TimeoutError: there was no answer in time.
        """
        answers = self._answers
        async with asyncio.timeout(TIMEOUT):
            if answers is None or answers.transport is None or answers.transport.is_closing():
                answers = self._answers = await self._open()
            answers.answer = asyncio.get_running_loop().create_future()
            if answers.transport is None:
                raise ConnectionError("closed at once")
            answers.transport.write(signed(self._target, body, int(time.time())))
            try:
                status, goes_on = await answers.answer
            except BaseException:
                self.close()
                raise
        if not goes_on:
            self.close()
        return status

    async def _open(self) -> _Answers:
        self.opened += 1
        loop = asyncio.get_running_loop()
        target = self._target
        _, answers = await loop.create_connection(_Answers, target.api_host, target.api_port, **self._options)
        return answers

    def close(self) -> None:
        """Close the connection; the next event opens another."""
        if self._answers is not None and self._answers.transport is not None:
            self._answers.transport.close()
        self._answers = None
