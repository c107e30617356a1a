"""The SDK's client, which builds the heads of equal requests once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import anthropic
import httpx2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anthropic._models import FinalRequestOptions

_HEADS: Final = 64
"""Heads that are kept. There is one for each set of beta features, which an agent's options name."""


class StreamingClient(anthropic.AsyncAnthropic):
    """A client whose requests differ in their body and their own headers only.

    So the SDK builds the first one, and those with the same headers get its address, its other headers and
    its time limits. For clients with a fixed key, without retries, that send bytes to one address.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(max_retries=0, http_client=anthropic.DefaultAioHttpClient(), **options)
        self._heads: dict[str, httpx2.Request] = {}

    @property
    def user_agent(self) -> str:
        """What the SDK's own class says."""
        return f"{anthropic.AsyncAnthropic.__name__}/Python {anthropic.__version__}"

    def _build_request(self, options: FinalRequestOptions, *, retries_taken: int = 0) -> httpx2.Request:
        own: Mapping[str, Any] = options.headers if isinstance(options.headers, dict) else {}
        key = repr(own)
        head = self._heads.get(key)
        if head is None:
            request = super()._build_request(options, retries_taken=retries_taken)
            if len(self._heads) < _HEADS:
                self._heads[key] = _without_body(request)
            return request
        return httpx2.Request(
            head.method,
            head.url,
            headers=head.headers,
            content=cast("bytes", options.content),
            extensions=dict(head.extensions),
        )


def _without_body(request: httpx2.Request) -> httpx2.Request:
    head = httpx2.Request(request.method, request.url, headers=request.headers, extensions=request.extensions)
    head.headers.pop("content-length", None)
    return head
