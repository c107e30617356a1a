"""Messages that people send: their limits, and the job that each becomes."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from legato.broadcaster.bus.base import BusError
from legato.broadcaster.limits import MAX_IDEMPOTENCY_KEY_CHARACTERS
from legato.broadcaster.replies.store import Full, TooMany, is_refusal
from legato.protocol import history
from legato.protocol.conversations import MessageCreated
from legato.protocol.jobs import (
    MAX_REQUEST_BYTES,
    OPTIONS,
    InvalidRequest,
    Job,
    decode_chat_request,
    options_of,
)

from .chat_options import OptionRules
from .refusals import NO_REDIS, ChannelRefusal, ChatRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.broadcaster.config import Settings
    from legato.broadcaster.replies.store import Replies
    from legato.protocol.jobs import ChatRequest
    from legato.protocol.stream import UserId

    from .live import UserEvents


class ChatLimits(NamedTuple):
    """Limits on what people send.

    :ivar body: bytes of a request.
    :ivar message: characters of a message; a longer one is refused.
    :ivar turns: turns of a history, and
    :ivar characters: their characters together; a longer history is cut.
    :ivar options: what a request may ask for besides.
    """

    body: int
    message: int
    turns: int
    characters: int
    options: OptionRules

    @classmethod
    def of(cls, settings: Settings) -> ChatLimits:
        """The limits in the settings; the body is bounded absolutely too, since it is parsed as a whole."""
        chat, body = settings.chat, settings.server.max_request_bytes
        return cls(
            min(body, MAX_REQUEST_BYTES),
            chat.max_message_characters,
            chat.max_history_turns,
            chat.max_history_characters,
            OptionRules(settings),
        )


class AcceptedRequest(NamedTuple):
    """A request within the limits, and how many turns of its history were dropped for that."""

    request: ChatRequest
    dropped: int


class MessageSender(NamedTuple):
    """Who sends a message.

    :ivar socket_id: the connection of the page, which needs not be told of the message.
    """

    user_id: UserId
    claims: Mapping[str, Any]
    socket_id: str | None = None


class Submissions:
    """Makes jobs of messages, and queues them."""

    def __init__(self, replies: Replies | None, events: UserEvents | None, options: OptionRules) -> None:
        self._replies = replies
        self._events = events
        self._options = options

    async def submit(
        self, accepted: AcceptedRequest, sender: MessageSender, key: str | None = None, body: bytes = b""
    ) -> tuple[Job, bool]:
        """Queue the job of a request. Answers it, and whether it is queued with this call.

        :param key: of idempotency: the same key and ``body`` are one message.
        :raises ChatRefusal: the reply may not go where the request says.
        """
        if self._replies is None:
            raise ChatRefusal(503, NO_REDIS)
        if not self._options.allows_channel(accepted.request, sender.claims):
            text = "Forbidden: auth.channels does not allow you this channel."
            raise ChannelRefusal(text, accepted.request.reply_channel or "")
        tenant = self._options.tenant(sender.claims)
        job, queued = _job(sender.user_id, self._replies.app_id, tenant, accepted), True
        if key is None:
            await self._replies.submit(job)
        else:
            job, queued = await _submit_once(self._replies, job, key, body)
        if queued:
            self._tell(job, sender.socket_id)
        return job, queued

    def _tell(self, job: Job, sender: str | None) -> None:
        """Let the user's other pages know of a message of a conversation."""
        if job.conversation_id is not None and self._events is not None:
            created = MessageCreated.of(
                job.conversation_id, job.message_id, job.parent_id, job.message, regenerate=job.regenerate
            )
            self._events.tell(job.user_id, created, sender)


def decode(body: bytes, limits: ChatLimits) -> AcceptedRequest:
    """Parse a request: refuse a message that is too long, cut a history that is too long.

    :raises InvalidRequest: as :func:`legato.protocol.jobs.decode_chat_request`, or for the message, or for
       an option.
    """
    try:
        request = decode_chat_request(body)
    except InvalidRequest as error:
        raise limits.options.explain(error) from error
    return accept(request, limits)


def accept(request: ChatRequest, limits: ChatLimits) -> AcceptedRequest:
    """Refuse a message that is too long, cut a history that is too long.

    :raises InvalidRequest: the message, or an option, is not allowed.
    """
    limits.options.check(request)
    length = len(request.message)
    if length > limits.message:
        raise InvalidRequest("message", f"Expected at most {limits.message} characters, not {length}")
    kept = history.cut(request.history, turns=limits.turns, characters=limits.characters)
    dropped = len(request.history) - len(kept)
    return AcceptedRequest(msgspec.structs.replace(request, history=kept) if dropped else request, dropped)


async def _submit_once(replies: Replies, job: Job, key: str, body: bytes) -> tuple[Job, bool]:
    """Queue the job of an idempotent request.

    Answers the job, with the id that the first request got, and whether it is queued now.
    """
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARACTERS:
        raise InvalidRequest("Idempotency-Key", f"Expected 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters")
    message_id, begins = await replies.remember(job.user_id, key, body, job.message_id)
    job = msgspec.structs.replace(job, message_id=message_id)
    try:
        queued = await replies.submit_once(job, again=not begins)
    except (Full, TooMany, BusError) as error:
        if is_refusal(error):  # the client comes again with this key, and then it counts
            with suppress(BusError):  # what the client is told stays the same
                await replies.refuse(job.user_id, key, body, message_id)
        raise
    return job, queued


def _job(user_id: UserId, app_id: str, tenant: str, accepted: AcceptedRequest) -> Job:
    request = accepted.request
    return Job(
        message_id=str(uuid.uuid4()),
        app_id=app_id,
        user_id=user_id,
        message=request.message,
        queued_at=time.time_ns() // 1_000_000,
        history=request.history,
        session_id=request.session_id,
        conversation_id=request.conversation_id,
        parent_id=request.parent_id,
        regenerate=request.regenerate,
        history_cut=accepted.dropped > 0,
        tenant=tenant,
        **{OPTIONS[name]: value for name, value in options_of(request).items()},
    )
