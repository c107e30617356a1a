"""The application of the users: signs tokens, and submits and cancels messages with retries."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpx2
import jwt

from legato.protocol.signatures import request_text, sign

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

APP_ID: Final = "1"
APP_KEY: Final = "chaos-key"

TIMEOUT: Final = 5.0
PAUSE: Final = 0.3


class ChatApp:
    """Calls the nodes at ``ports``; if one does not answer, the next.

    :param secret: signs the users' tokens.
    """

    def __init__(self, secret: str, ports: Sequence[int]) -> None:
        self._secret = secret
        self._ports = ports
        self._client = httpx2.AsyncClient(timeout=TIMEOUT, trust_env=False)
        self.repeated = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def token(self, user: str) -> str:
        """Sign a token for a user."""
        return jwt.encode({"sub": user, "exp": 2**32}, self._secret, "HS256")

    async def send(self, user: str, node: int, message: str, key: str, agent: str = "") -> str:
        """Submit a message until it is accepted, under the idempotency ``key``. Returns its id."""
        body = {"message": message, **({"agent": agent} if agent else {})}
        answer = await self._insist(user, node, "/api/chat/send", body, {"Idempotency-Key": key})
        return str(answer.json()["message_id"])

    async def cancel(self, user: str, node: int, message_id: str) -> bool:
        """Cancel a message until a node answers. Returns whether the cancel was accepted."""
        answer = await self._insist(user, node, f"/api/chat/{message_id}/cancel", {}, {})
        return bool(answer.status_code == httpx2.codes.OK)

    async def decide(self, user: str, node: int, message_id: str, call: str, *, approve: bool) -> int:
        """Approve or refuse a call until a node answers. Returns the status: 404 while nobody asks for it."""
        answer = await self._insist(
            user, node, f"/api/chat/{message_id}/tools/{call}", {"approve": approve}, {}
        )
        return int(answer.status_code)

    async def users(self, node: int, channel: str) -> frozenset[str]:
        """The users of a presence channel, as a node returns them."""
        answer = await self._ask(node, f"/apps/{APP_ID}/channels/{channel}/users", {})
        return frozenset(str(user["id"]) for user in answer["users"])

    async def counts(self, node: int) -> dict[str, int]:
        """Channel -> the subscriptions that a node counts."""
        answer = await self._ask(node, f"/apps/{APP_ID}/channels", {"info": "subscription_count"})
        return {name: channel["subscription_count"] for name, channel in answer["channels"].items()}

    async def _ask(self, node: int, path: str, params: dict[str, str]) -> Any:
        """Send a signed request to one node until it answers."""
        while True:
            now = str(int(time.time()))
            signed = {**params, "auth_key": APP_KEY, "auth_timestamp": now, "auth_version": "1.0"}
            signed["auth_signature"] = sign(self._secret, request_text("GET", path, signed))
            with suppress(httpx2.TransportError):
                address = f"http://127.0.0.1:{self._ports[node]}{path}"
                answer = await self._client.get(address, params=signed)
                if answer.status_code == httpx2.codes.OK:
                    return answer.json()
            await asyncio.sleep(PAUSE)

    async def _insist(
        self, user: str, node: int, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> httpx2.Response:
        headers = {**headers, "Authorization": f"Bearer {self.token(user)}"}
        while True:
            port = self._ports[node % len(self._ports)]
            try:
                answer = await self._client.post(f"http://127.0.0.1:{port}{path}", json=body, headers=headers)
            except httpx2.TransportError:
                pass
            else:
                if answer.status_code != httpx2.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                    return answer
            self.repeated += 1
            node += 1
            await asyncio.sleep(PAUSE)
