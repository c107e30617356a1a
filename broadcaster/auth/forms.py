"""Form fields out of a request's body: URL-encoded, multipart, or a JSON object, as clients send them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from starlette.formparsers import MultiPartException, MultiPartParser

from legato.broadcaster.api.asgi import read_body
from legato.protocol.stream import InvalidRequest
from legato.protocol.text import decode_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

MAX_FIELDS: Final = 32

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


async def read_form(request: Request, limit: int) -> dict[str, str]:
    """The fields of a body of at most ``limit`` bytes; of those that come twice, the last.

    Many programs send JSON without saying so, and no URL-encoded form begins with a brace.

    :raises ApiError: 413 for a larger body.
    :raises InvalidRequest: it is nothing of the kind that it says it is.
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
        fields = parse_qs(body.decode("ascii"), max_num_fields=MAX_FIELDS, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidRequest("$", "the body is not a URL-encoded form") from error
    return {name: values[-1] for name, values in fields.items()}


def _json(body: bytes) -> dict[str, str]:
    """The text fields; others are no concern of a form's."""
    try:
        fields = decode_json(_decoder, body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest("$", "the body is not a JSON object") from error
    return {name: value for name, value in fields.items() if isinstance(value, str)}


class _Parser(MultiPartParser):
    """Tells whether the form was whole, which the parser does not mind."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _multipart(request: Request, body: bytes) -> dict[str, str]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _Parser(request.headers, stream(), max_files=0, max_fields=MAX_FIELDS, max_part_size=len(body))
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest("$", f"the body is not a multipart form: {error.message}") from error
    if not parser.ended:
        raise InvalidRequest("$", "the body is not a multipart form: its end is missing")
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}
