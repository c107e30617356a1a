"""Parses the form in a request's body: URL-encoded, multipart, or a JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from starlette.formparsers import MultiPartException, MultiPartParser

from legato.broadcaster.api.asgi import read_body
from legato.broadcaster.limits import AUTH_FORM_MAX_FIELDS
from legato.protocol.jobs import InvalidRequest
from legato.protocol.text import decode_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


async def read_form(request: Request, limit: int) -> dict[str, str]:
    """Return the fields of a body of at most ``limit`` bytes. The last of repeated fields counts.

    A body that begins with a brace is parsed as JSON whatever its content type: many programs send JSON
    without declaring it, and no URL-encoded form begins with a brace.

    :raises ApiError: 413 for a larger body.
    :raises InvalidRequest: the body does not match its content type.
    """
    body = await read_body(request.receive, limit)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart(request, body)
    if kind == "application/json" or kind.endswith("+json") or body.lstrip()[:1] == b"{":
        return _json(body)
    return _urlencoded(body)


def _urlencoded(body: bytes) -> dict[str, str]:
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=AUTH_FORM_MAX_FIELDS, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidRequest("$", "the body is not a URL-encoded form") from error
    return {name: values[-1] for name, values in fields.items()}


def _json(body: bytes) -> dict[str, str]:
    """Return the string fields and ignore the others, which a form cannot have."""
    try:
        fields = decode_json(_decoder, body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest("$", "the body is not a JSON object") from error
    return {name: value for name, value in fields.items() if isinstance(value, str)}


class _Parser(MultiPartParser):
    """Records whether the closing boundary was found. The base class accepts a form without it."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _multipart(request: Request, body: bytes) -> dict[str, str]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _Parser(
        request.headers, stream(), max_files=0, max_fields=AUTH_FORM_MAX_FIELDS, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest("$", f"the body is not a multipart form: {error.message}") from error
    if not parser.ended:
        raise InvalidRequest("$", "the body is not a multipart form: its end is missing")
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}
