"""Translates errors of Chat Completions servers to the error classes of :mod:`.base`.

Most servers send ``{"error": {"message", "type", "code"}}``. Some send only the inner object, or only a text.
In the middle of a stream the HTTP status is 200, and ``code`` may hold the status that is meant.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from . import base
from .reasons import is_too_long, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

# https://platform.openai.com/docs/guides/error-codes; llama.cpp, vLLM and gateways in front of them.
_BY_NAME: Final[dict[str, type[base.ProviderError]]] = {
    "context_length_exceeded": base.TooLongError,
    "exceed_context_size_error": base.TooLongError,
    "insufficient_quota": base.RequestRefusedError,  # status 429, but no wait helps
    "rate_limit_exceeded": base.RateLimitedError,
    "rate_limit_error": base.RateLimitedError,
    "overloaded_error": base.OverloadedError,
    "server_overloaded": base.OverloadedError,
    "server_error": base.ProviderUnavailableError,
}
_BY_STATUS: Final[dict[int, type[base.ProviderError]]] = {
    408: base.ProviderUnavailableError,
    409: base.ProviderUnavailableError,
    413: base.TooLongError,
    429: base.RateLimitedError,
    503: base.OverloadedError,
    529: base.OverloadedError,
}
_UNSORTED: Final = (None, 400, 422)
"""Statuses where only the message says whether the conversation is too long. None: unknown."""

_TOOLS_REFUSED: Final = re.compile(
    rb"(?i)(?:\bsupports?\b|\brequires?\b|\benable\b).{0,120}\btools?\b"
    rb"|\btools?\b.{0,120}(?:\bsupport(?:s|ed)?\b|\brequires?\b|\benable\b)"
)
"""In the words of Ollama, vLLM, llama.cpp (status 500) and OpenRouter (404)."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_STATUS: Final = re.compile(r"[45][0-9]{2}")


def of_answer(
    status: int, headers: Mapping[str, str], body: object, secrets: tuple[str, ...]
) -> base.ProviderError:
    """The error of a request whose response is not a stream.

    :param status: the HTTP status. Below 400, one in the body takes precedence.
    :param body: the decoded JSON body; None if it is not JSON.
    :param secrets: texts to remove from the error, in case the server repeats them.
    """
    names, message = _names(body), _message(body, secrets)
    kind = _kind(status if status >= 400 else _status(body) or status, names, message)
    request = _name(headers.get("x-request-id")) or "unknown"
    reason = f"HTTP {status}, {names[0] if names else 'no type'}, request {request}"
    return kind(f"{reason}: {message}" if message else reason, _retry_after(headers))


def refuses_tools(status: int, body: bytes) -> bool:
    """Whether a request was refused because the model, or its server, cannot call tools."""
    return status in (400, 404, 422, 500, 501) and _TOOLS_REFUSED.search(body) is not None


def of_event(body: object, secrets: tuple[str, ...]) -> base.ProviderError:
    """The error in an event of a stream."""
    names, message = _names(body), _message(body, secrets)
    kind = _kind(_status(body), names, message)
    reason = f"error in the stream, {names[0] if names else 'no type'}"
    return kind(f"{reason}: {message}" if message else reason)


def of_connection(error: aiohttp.ClientError | TimeoutError) -> base.ProviderError:
    """The error of a connection that cannot be opened, or breaks.

    It names only the type: the text may contain the address, and so a password.
    """
    name = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return base.ProviderUnavailableError(f"cannot connect ({name})")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return base.ProviderUnavailableError(f"the proxy refused to connect (HTTP {error.status})")
    if isinstance(error, TimeoutError):
        return base.StalledError("timed out")
    return base.CutError(f"the connection broke ({name})")


def _kind(status: int | None, names: list[str], message: str) -> type[base.ProviderError]:
    """The class: by name, else by status; by message for statuses that are not specific."""
    for name in names:
        if name in _BY_NAME:
            return _BY_NAME[name]
    if status in _UNSORTED and is_too_long(message):
        return base.TooLongError
    if status is None or status >= 500:
        return _BY_STATUS.get(status or 0, base.ProviderUnavailableError)
    return _BY_STATUS.get(status, base.RequestRefusedError)


def _inner(body: object) -> object:
    """The part of the body that describes the error: an object or a text."""
    if not isinstance(body, dict):
        return body
    return body.get("error") or body.get("detail") or body


def _message(body: object, secrets: tuple[str, ...]) -> str:
    """The message as one line without secrets; empty if there is none.

    The rest of the body is not logged: it may contain text of users.
    """
    inner = _inner(body)
    message = inner.get("message") if isinstance(inner, dict) else inner
    return one_line(message, *secrets) if isinstance(message, str) else ""


def _names(body: object) -> list[str]:
    """``code`` and ``type``, the more specific first, if they are names."""
    inner = _inner(body)
    values = (inner.get("code"), inner.get("type")) if isinstance(inner, dict) else ()
    return [name for name in map(_name, values) if name and not name.isdigit()]


def _name(value: Any) -> str:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def _status(body: object) -> int | None:
    """The HTTP status in ``code``; None if there is none."""
    inner = _inner(body)
    code = inner.get("code") if isinstance(inner, dict) else None
    return int(str(code)) if isinstance(code, int | str) and _STATUS.fullmatch(str(code)) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` (OpenAI) or ``retry-after``. Dates are ignored."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
