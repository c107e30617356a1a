"""The endpoint with which people approve or refuse tool calls of a reply."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

from legato.broadcaster.auth.rules import user_of
from legato.broadcaster.replies.approvals import DecidedOtherwise, MessageEnded, NoSuchCall
from legato.protocol.approvals import CALL_ID, MAX_APPROVAL_BYTES, decode_approval
from legato.protocol.stream import parse_user_id

from .asgi import read_body
from .chat import channel_of, message_id_of
from .refusals import NO_MESSAGE, NO_REDIS, ChatRefusal, answered

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from legato.broadcaster.auth.rules import ClaimRule
    from legato.broadcaster.auth.verifier import Verifier
    from legato.broadcaster.channels.subscriber import Key
    from legato.broadcaster.replies.store import Replies
    from legato.protocol.approvals import Approval
    from legato.protocol.stream import UserId

NO_CALL = "No such call that needs an approval."


async def decide(replies: Replies, key: Key, message_id: str, call: str, approval: Approval) -> None:
    """Store a decision.

    :raises ChatRefusal: there is no such call that waits for one.
    """
    try:
        await replies.approvals.decide(key, message_id, call, approval, time.time_ns() // 1_000_000)
    except NoSuchCall:
        raise ChatRefusal(404, NO_CALL) from None
    except DecidedOtherwise:
        raise ChatRefusal(409, "This call was decided otherwise before.") from None
    except MessageEnded:
        raise ChatRefusal(409, "This message has ended.") from None


class ApprovalEndpoint:
    """``POST /api/chat/{id}/tools/{call}``.

    :param approvers: rules over claims; who satisfies one may decide for every user.
    :param body: bytes of a request.
    """

    def __init__(
        self,
        replies: Replies | None,
        tokens: Verifier,
        approvers: Sequence[ClaimRule],
        body: int,
        figures: Counter[tuple[str, int]],
    ) -> None:
        self._replies = replies
        self._tokens = tokens
        self._approvers = approvers
        self._body = min(body, MAX_APPROVAL_BYTES)
        self._figures = figures

    def routes(self) -> Sequence[BaseRoute]:
        """The route, to mount in an application."""
        endpoint = answered(self._figures, "chat_decide", self._decide)
        return [Route("/api/chat/{id}/tools/{call}", endpoint, methods=["POST"])]

    async def _decide(self, request: Request) -> Response:
        claims = await self._tokens.verify(request.headers.get("authorization", ""))
        owner = self._owner(claims, request.query_params.get("user"))
        if self._replies is None:
            raise ChatRefusal(503, NO_REDIS)
        message_id, call = message_id_of(request), request.path_params["call"]
        approval = decode_approval(await read_body(request.receive, self._body))
        if not CALL_ID.fullmatch(call):
            raise ChatRefusal(404, NO_CALL)
        key = await self._replies.owned(owner, message_id, channel_of(request))
        if key is None:
            raise ChatRefusal(404, NO_MESSAGE)
        await decide(self._replies, key, message_id, call, approval)
        return JSONResponse({"decided": True})

    def _owner(self, claims: Mapping[str, Any], asked: str | None) -> UserId:
        """The user whose reply it is. To anybody who may not decide for ``asked``, nothing of theirs exists.

        :raises AuthError: the token has no valid user.
        """
        user = user_of(claims)
        if asked is None:
            return user
        try:
            owner = parse_user_id(asked)
        except ValueError:
            raise ChatRefusal(404, NO_MESSAGE) from None
        if owner != user and not any(rule.matches(claims) for rule in self._approvers):
            raise ChatRefusal(404, NO_MESSAGE)
        return owner
