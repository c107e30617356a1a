"""The public keys of a JWKS URL: fetched when needed, cached for a time."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx2
import jwt
import msgspec

from legato.broadcaster.limits import (
    JWKS_COOL_DOWN_SECONDS,
    JWKS_FETCH_SECONDS,
    JWKS_MAX_BYTES,
    JWKS_STALE_SECONDS,
    WARNING_SECONDS,
)
from legato.protocol.settings import SettingsError

from .errors import KeysUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger: Final = logging.getLogger("legato.auth")

for _library in ("httpx2", "httpcore2"):  # they log full URLs, which may contain a password
    logging.getLogger(_library).setLevel(logging.WARNING)


class KeySet:
    """A cached key set, by key id (``kid``). Concurrent callers share one fetch.

    :param seconds: how long a fetched set is used before it is fetched again.
    :raises SettingsError: not an ``http`` or ``https`` URL.
    """

    def __init__(self, url: str, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._host = _host(url)
        self._seconds = seconds
        self._now = now
        self._client = httpx2.AsyncClient(
            verify=ssl.create_default_context(),
            timeout=None,  # JWKS_FETCH_SECONDS bounds the whole fetch
            follow_redirects=False,  # the operator names the trusted server, not a redirect
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "Legato"},
            limits=httpx2.Limits(max_keepalive_connections=0),
        )
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._next = float("-inf")
        self._failed = False
        self._quiet_until = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> jwt.PyJWK:
        """Return the key with this id.

        :raises ValueError: there is no such key.
        :raises KeysUnavailable: the keys could not be fetched.
        """
        age = self._now() - self._fetched
        known = self._keys.get(kid) if age < self._seconds + JWKS_STALE_SECONDS else None
        if known is not None and age < self._seconds:
            return known
        task = self._refresh()
        # While the URL fails, do not wait for each new attempt if an old key is still usable.
        if task is not None and not (self._failed and known is not None):
            await asyncio.shield(task)
        return self._found(kid)

    def _found(self, kid: str) -> jwt.PyJWK:
        usable = self._now() - self._fetched < self._seconds + JWKS_STALE_SECONDS
        key = self._keys.get(kid) if usable else None
        if key is not None:
            return key
        if self._failed:
            raise KeysUnavailable(JWKS_COOL_DOWN_SECONDS)
        raise ValueError("no key has this id")

    def _refresh(self) -> asyncio.Task[None] | None:
        """Return the running fetch, or start one; None during the cool-down."""
        if self._task is None and self._now() >= self._next:
            self._task = asyncio.get_running_loop().create_task(self._fetch())
        return self._task

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(JWKS_FETCH_SECONDS):
                body = await self._read()
                # Off the loop: parsing many keys takes milliseconds.
                keys = await asyncio.to_thread(_parse, body)
        except TimeoutError:
            self._warn("timed out")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            self._warn(f"cannot be read ({type(error).__name__})")  # the error's text may contain the URL
        except _RefusedError as error:
            self._warn(str(error))
        else:
            if self._failed:
                logger.info("auth.jwks_url: %s: keys can be fetched again", self._host)
            self._keys, self._fetched, self._failed = keys, self._now(), False
        finally:
            self._next = self._now() + JWKS_COOL_DOWN_SECONDS
            self._task = None

    async def _read(self) -> bytes:
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx2.codes.OK:
                raise _RefusedError(f"answers with status {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _RefusedError("the answer is compressed")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > JWKS_MAX_BYTES:
                    raise _RefusedError(f"the answer is larger than {JWKS_MAX_BYTES} bytes")
        return bytes(body)

    def _warn(self, reason: str) -> None:
        self._failed = True
        now = self._now()
        if now >= self._quiet_until:
            self._quiet_until = now + WARNING_SECONDS
            logger.warning("auth.jwks_url: %s: %s", self._host, reason)


class _RefusedError(Exception):
    """The answer cannot be used. The text is for the log."""


def _parse(body: bytes) -> Mapping[str, jwt.PyJWK]:
    """Return the signing keys. Keys of unknown types are skipped."""
    try:
        found = jwt.PyJWKSet.from_dict(msgspec.json.decode(body, type=dict))
    except Exception as error:  # the libraries raise different errors for different fields
        raise _RefusedError("the answer is not a key set") from error
    return {key.key_id: key for key in found.keys if key.key_id and key.public_key_use in ("sig", None)}


def _host(url: str) -> str:
    """Check the URL, and return its host and port for the log."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise SettingsError("auth.jwks_url: expected http:// or https:// with a host")
    return parts.netloc.rpartition("@")[2]
