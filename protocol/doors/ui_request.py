"""What ``useChat`` sends by its default transport: a message of a chat, or the wish for another answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from legato.protocol.jobs import MESSAGE_ID, InvalidRequest

from .requests import Said, TextPart, chat_request, key_of, options_in, parse, text_in

if TYPE_CHECKING:
    from collections.abc import Collection

    from legato.protocol.jobs import ChatRequest

MAX_CHAT_ID: Final = 256
"""Characters of the id of a chat, which the client makes up."""


class UiRequest(NamedTuple):
    """A request for a reply.

    :ivar chat_id: by which the client asks for the reply's stream again.
    :ivar key: the same for the same message, so that a repeated request gets the same reply. Empty if the
        user wants another answer: then the reply that may still run in this chat is to be cancelled.
    """

    request: ChatRequest
    chat_id: str
    key: str


class _UiMessage(msgspec.Struct, frozen=True):
    role: str
    id: str = ""
    parts: list[TextPart] = []

    def said(self) -> Said:
        return Said(self.role, text_in(self.parts))


class _UiBody(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    messages: list[_UiMessage] | None = None
    message: _UiMessage | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"


class _Stop(msgspec.Struct, frozen=True, rename="camel"):
    active_stream_id: str | None = None


_body_decoder: Final = msgspec.json.Decoder(_UiBody)
_stop_decoder: Final = msgspec.json.Decoder(_Stop)


def parse_submit(body: bytes, allowed: Collection[str] = ()) -> UiRequest:
    """Parse the body of ``POST /api/chat``.

    With ``messages`` the client's history counts; with ``message`` alone, that of the conversation that has
    the chat's id.

    :param allowed: options of a job that it may have.
    :raises InvalidRequest: it does not fit.
    """
    asked = parse(_body_decoder, body)
    if not 1 <= len(asked.id) <= MAX_CHAT_ID:
        raise InvalidRequest("id", f"Expected 1 to {MAX_CHAT_ID} characters")
    conversation = None
    if asked.messages is not None:
        field, messages = "messages", asked.messages
    elif asked.message is not None:
        field, messages, conversation = "message", [asked.message], asked.id
        if not MESSAGE_ID.fullmatch(asked.id):
            raise InvalidRequest("id", "Expected 1 to 64 of A-Z a-z 0-9 _ - for a chat that is stored")
    else:
        raise InvalidRequest("messages", "Expected `messages`, or the last one as `message`")
    said = [one.said() for one in messages]
    request = chat_request(said, field, options_in(body, allowed), conversation)
    again = asked.trigger == "regenerate-message"
    key = "" if again else key_of("ui", asked.id, messages[-1].id, request.message)
    return UiRequest(request, asked.id, key)


def parse_stop(body: bytes) -> str | None:
    """The message that the client takes for the running one, of ``POST /api/chat/{chatId}/stop``; or None.

    :raises InvalidRequest: it does not fit.
    """
    return parse(_stop_decoder, body or b"{}").active_stream_id
