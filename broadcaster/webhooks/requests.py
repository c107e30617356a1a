"""HTTP requests of webhooks: one client for all, and one attempt of one request."""

from __future__ import annotations

import asyncio
import logging
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx2

from legato.broadcaster.limits import WEBHOOK_IDLE_CONNECTIONS, WEBHOOK_IDLE_SECONDS, WEBHOOK_MAX_ANSWER_BYTES
from legato.protocol import webhooks

if TYPE_CHECKING:
    from legato.protocol.apps import App, Webhook

for _library in ("httpx2", "httpcore2"):  # they log whole URLs, which may hold a password
    logging.getLogger(_library).setLevel(logging.WARNING)


class NotAcceptedError(Exception):
    """A response other than 2xx. The text is for the log."""


def client() -> httpx2.AsyncClient:
    """A client for all webhooks: no redirects, no proxies from the environment, no cookies kept."""
    return httpx2.AsyncClient(
        headers={"User-Agent": "Legato"},
        timeout=None,  # post() bounds the whole request; this would bound each read
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        trust_env=False,
        limits=httpx2.Limits(
            max_connections=None,  # each sender has a bound of its own, so that none waits for another's
            max_keepalive_connections=WEBHOOK_IDLE_CONNECTIONS,
            keepalive_expiry=WEBHOOK_IDLE_SECONDS,
        ),
    )


async def post(client: httpx2.AsyncClient, app: App, webhook: Webhook, content: bytes) -> None:
    """One attempt. The status decides, even if the rest of the response does not arrive.

    :raises NotAcceptedError: the status is not 2xx.
    :raises TimeoutError, httpx2.HTTPError: there was no status.
    """
    status = 0
    headers = webhooks.headers(app, webhook, content)
    request = client.build_request("POST", webhook.url, content=content, headers=headers)
    try:
        async with asyncio.timeout(webhook.timeout):
            response = await client.send(request, stream=True)
            status = response.status_code
            try:
                await _discard_body(response)
            finally:
                await response.aclose()
    except (TimeoutError, httpx2.HTTPError):
        if not status:
            raise
    if not 200 <= status < 300:
        raise NotAcceptedError(f"HTTP {status}")


async def _discard_body(response: httpx2.Response) -> None:
    """Read the body up to :data:`WEBHOOK_MAX_ANSWER_BYTES` without keeping it."""
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read > WEBHOOK_MAX_ANSWER_BYTES:
            return
