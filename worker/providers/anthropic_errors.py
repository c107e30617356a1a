"""Translates the errors of a request to Anthropic: those of the API, of the SDK, and of its transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import aiohttp
import anthropic
import httpx2

from . import base
from .reasons import is_too_long, said_by

if TYPE_CHECKING:
    from collections.abc import Mapping

# https://platform.claude.com/docs/en/api/errors
# The type decides before the status: an error event in the middle of a stream has status 200.
_BY_TYPE: Final[dict[str, type[base.ProviderError]]] = {
    "overloaded_error": base.OverloadedError,
    "rate_limit_error": base.RateLimitedError,
    "request_too_large": base.TooLongError,
    "api_error": base.ProviderUnavailableError,
    "timeout_error": base.ProviderUnavailableError,
}
_BY_STATUS: Final[dict[int, type[base.ProviderError]]] = {
    408: base.ProviderUnavailableError,
    409: base.ProviderUnavailableError,
    413: base.TooLongError,
    429: base.RateLimitedError,
    529: base.OverloadedError,
}

READ_ERRORS: Final = (httpx2.HTTPError, aiohttp.ClientError, OSError)
"""What reading an answer raises. The SDK's aiohttp transport lets some of aiohttp's errors through."""


def of_request(error: anthropic.APIError | httpx2.HTTPError, *secrets: str) -> base.ProviderError:
    """The error of a request that has not been answered by a stream.

    :param secrets: what must not be in the text, should the API repeat it.
    """
    if isinstance(error, anthropic.APIStatusError):
        return of_answer(error.response, error.body, *secrets)
    if isinstance(error, anthropic.APITimeoutError | httpx2.TimeoutException):
        return base.StalledError("timed out")
    if isinstance(error, anthropic.APIConnectionError | httpx2.ConnectError):
        return base.ProviderUnavailableError("cannot connect")
    if isinstance(error, httpx2.HTTPError):
        return base.CutError(f"the connection broke ({type(error).__name__})")
    return base.ProviderError(type(error).__name__)


def of_reading(error: Exception) -> base.ProviderError:
    """The error of a stream: one of :data:`READ_ERRORS`."""
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return base.StalledError("timed out")
    return base.CutError(f"the connection broke ({type(error).__name__})")


def of_answer(response: httpx2.Response, body: object, *secrets: str) -> base.ProviderError:
    """The error that the API has told, by its status or by an event in its stream.

    :param body: the JSON of the answer, or of the event.
    """
    said, name = said_by(body, *secrets), _type_of(body)
    kind = _BY_TYPE.get(name) or _BY_STATUS.get(response.status_code)
    if kind is None:
        kind = base.ProviderUnavailableError if response.status_code >= 500 else base.RequestRefusedError
    if kind is base.RequestRefusedError and is_too_long(said):
        kind = base.TooLongError
    request_id = response.headers.get("request-id") or "unknown"
    reason = f"HTTP {response.status_code}, {name or 'no type'}, request {request_id}"
    return kind(f"{reason}: {said}" if said else reason, _retry_after(response.headers))


def _type_of(body: object) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    name = error.get("type") if isinstance(error, dict) else None
    return name if isinstance(name, str) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of ``retry-after``; the API sends whole seconds, never a date."""
    try:
        return max(0.0, float(cast("str", headers.get("retry-after"))))
    except (TypeError, ValueError):
        return None
