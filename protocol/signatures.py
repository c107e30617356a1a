"""Signs and verifies channel authorisations (section 4.3) and API requests (section 10.1).

Comparisons take constant time. Secrets are arguments, and no error contains one.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from . import refusals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .refusals import Refusal

CLOCK_SKEW: Final = 600
"""Largest difference between ``auth_timestamp`` of an API request and now, in seconds."""

_BLOCK: Final = hashlib.sha256().block_size
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))

UNKNOWN_KEY: Final = "Unknown auth_key"


class SignatureError(ValueError):
    """An unauthentic request. ``status`` is the HTTP status of section 10.2, ``refusal`` for the log."""

    def __init__(
        self, reason: str, status: int = 401, refusal: Refusal = refusals.BAD_AUTH_PARAMETERS
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.refusal = refusal


def sign(secret: str, text: str) -> str:
    """Lowercase hex HMAC-SHA256 of the UTF-8 bytes of ``text``; surrogate escapes become their bytes."""
    keyed_inner, keyed_outer = _keyed(secret)
    inner, outer = keyed_inner.copy(), keyed_outer.copy()
    inner.update(text.encode("utf-8", "surrogateescape"))
    outer.update(inner.digest())
    return outer.hexdigest()


@lru_cache(maxsize=256)
def _keyed(secret: str) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The inner and outer hash of HMAC (RFC 2104), keyed and ready to copy.

    :mod:`hmac` sets up the key for every text, which costs three times as much as hashing a short text.
    """
    key = secret.encode()
    if len(key) > _BLOCK:
        key = hashlib.sha256(key).digest()
    key = key.ljust(_BLOCK, b"\0")
    return hashlib.sha256(key.translate(_INNER)), hashlib.sha256(key.translate(_OUTER))


def same(given: str, expected: str) -> bool:
    """Compare in constant time. ``given`` may contain any characters."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def channel_text(socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """The text to sign for a private or presence subscription, with ``channel_data`` exactly as received."""
    text = f"{socket_id}:{channel}"
    return text if channel_data is None else f"{text}:{channel_data}"


def user_text(socket_id: str, user_data: str) -> str:
    """The text to sign for ``pusher:signin``, with ``user_data`` exactly as received."""
    return f"{socket_id}::user::{user_data}"


def sign_channel(key: str, secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """The ``auth`` that an authorisation endpoint returns: ``KEY:signature``."""
    return f"{key}:{sign(secret, channel_text(socket_id, channel, channel_data))}"


def verify_channel(keys: Mapping[str, str], auth: str, text: str) -> bool:
    """Whether ``auth`` is ``KEY:signature`` of ``text`` by one of the application's keys.

    :param keys: accepted keys -> secrets.
    """
    key, _, given = auth.partition(":")
    secret = keys.get(key)
    return secret is not None and same(given, sign(secret, text))


def why_refused(keys: Mapping[str, str], auth: str) -> str:
    """What is wrong with an ``auth`` that does not verify, for the log. Repeats nothing of it."""
    if not auth:
        return "auth is missing"
    if auth.partition(":")[0] not in keys:
        return "auth begins with the key of another application"
    return "auth is signed with another secret, or for another socket_id, channel or channel_data"


def query_pairs(query: bytes) -> Iterator[tuple[str, str]]:
    """Split a raw query at ``&`` only, each part at its first ``=``, and percent-decode (10.1, step 1).

    ``+`` is a plus, not a space: SDKs sign the decoded text and send ``+`` only for a plus.
    """
    for part in query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            yield _decoded(name), _decoded(value)


def _decoded(part: bytes) -> str:
    return unquote_to_bytes(part).decode("utf-8", "surrogateescape")


def parse_query(query: bytes) -> dict[str, str]:
    """The query as it is signed: keys lower-cased, ``name[]`` values joined with ``,``."""
    plain = _plain(query)
    return _spelled(query) if plain is None else plain


def parse_text_query(query: bytes) -> dict[str, str]:
    """The same for a query as text.

    :raises SignatureError: it is not UTF-8.
    """
    plain = _plain(query)
    if plain is not None:
        return plain
    params = _spelled(query)
    try:
        "".join([*params, *params.values()]).encode()
    except UnicodeEncodeError as error:
        raise SignatureError("The query is not UTF-8", 400) from error
    return params


def _spelled(query: bytes) -> dict[str, str]:
    params: dict[str, str] = {}
    for name, value in query_pairs(query):
        key = name.lower()
        if key.endswith("[]"):
            key = key[:-2]
            params[key] = f"{params[key]},{value}" if key in params else value
        else:
            params[key] = value
    return params


def _plain(query: bytes) -> dict[str, str] | None:
    """The fast path for queries of SDKs: nothing escaped, no lists, no capitals."""
    if b"%" in query or b"[" in query:
        return None
    try:
        params = dict([pair.split("=", 1) for pair in query.decode("ascii").split("&")])
    except ValueError:  # a part without "=", or not ASCII
        return None
    return params if "".join(params).islower() else None


def request_text(method: str, path: str, params: Mapping[str, str]) -> str:
    """The text to sign for an API request: all parameters but ``auth_signature``, sorted, not escaped."""
    pairs = "&".join([f"{name}={params[name]}" for name in sorted(params) if name != "auth_signature"])
    return f"{method.upper()}\n{path}\n{pairs}"


def verify_request(
    keys: Mapping[str, str],
    method: str,
    paths: tuple[str, ...],
    params: Mapping[str, str],
    body: bytes | bytearray | None,
    now: float,
) -> None:
    """Check one API request in the order of section 10.1, steps 2 to 5.

    :param keys: accepted keys -> secrets of the application in the path.
    :param paths: the spellings of the path that the client may have signed, most likely first.
    :param params: :func:`parse_query` of the raw query.
    :param body: None if it has not arrived: then only the presence of its MD5 is checked.
    :param now: Unix time in seconds.
    :raises SignatureError: the request is not authentic. The text contains no secret.
    """
    secret = keys.get(params.get("auth_key", ""))
    if secret is None:
        raise SignatureError(UNKNOWN_KEY, refusal=refusals.UNKNOWN_AUTH_KEY)
    if params.get("auth_version") != "1.0":
        raise SignatureError("auth_version must be 1.0")
    _check_timestamp(params.get("auth_timestamp", ""), now)
    given = params.get("body_md5")
    if not (given if body is None else _is_md5(given, body)):
        raise SignatureError("body_md5 is missing or not the MD5 of the body")
    given = params.get("auth_signature", "")
    for path in paths:
        if same(given, sign(secret, request_text(method, path, params))):
            return
    raise SignatureError("Invalid signature", refusal=refusals.BAD_REQUEST_SIGNATURE)


def _is_md5(given: str | None, body: bytes | bytearray) -> bool:
    """Check ``body_md5``. Only an empty body may omit it."""
    if given is None:
        return not body
    return same(given, hashlib.md5(body, usedforsecurity=False).hexdigest())


def _check_timestamp(text: str, now: float) -> None:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise SignatureError("auth_timestamp must be in Unix seconds")
    if abs(now - int(text)) > CLOCK_SKEW:
        raise SignatureError("Timestamp expired", refusal=refusals.EXPIRED_TIMESTAMP)
