"""What the requests of all doors share: how a conversation in a client's words becomes a chat request."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from legato.protocol.jobs import (
    MAX_REQUEST_BYTES,
    MAX_TEXT,
    MAX_TURNS,
    OPTIONS,
    InvalidRequest,
    decode_body,
    decode_chat_request,
)
from legato.protocol.text import decode_json

from .base import encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from legato.protocol.jobs import ChatRequest

T = TypeVar("T")


_fields_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Said(NamedTuple):
    """A message in a client's list. ``role`` is that of the client's protocol."""

    role: str
    text: str


class TextPart(msgspec.Struct, frozen=True):
    """A part of a message. Only those with text count."""

    type: str
    text: Any = ""


def parse(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Parse a body.

    :raises InvalidRequest: it does not fit.
    """
    return decode_body(decoder, body, MAX_REQUEST_BYTES)


def text_in(content: str | Sequence[TextPart] | None, types: Collection[str] = ("text",)) -> str:
    """The text of a message, whose parts are joined.

    :param types: of the parts that count.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = (part.text for part in content if part.type in types)
    return "".join(text for text in texts if isinstance(text, str))


def options_in(body: bytes, allowed: Collection[str]) -> dict[str, Any]:
    """The options of a job that a valid body has at its top level, as far as they are allowed.

    Others are left out, not refused: a client's body has fields with such names for its own use.
    """
    fields = decode_json(_fields_decoder, body)
    return {name: fields[name] for name in OPTIONS if name in allowed and name in fields}


def chat_request(
    said: Sequence[Said],
    field: str,
    options: Mapping[str, Any] | None = None,
    conversation: str | None = None,
) -> ChatRequest:
    """The request to answer the last message, which a user has to have said.

    The history is what users and the assistant have said before; the oldest of it goes first if it is too
    long. With a conversation it is left out: the worker knows it.

    :param field: the name of the list in the client's body.
    :raises InvalidRequest: there is no such message, or it or an option is not valid.
    """
    if not said or said[-1].role != "user":
        raise InvalidRequest(field, "Expected a message of the user at the end")
    if not said[-1].text.strip():
        raise InvalidRequest(field, "Expected text in the last message")
    turns = [one for one in said[:-1] if one.role in ("user", "assistant") and one.text][-MAX_TURNS:]
    asked: dict[str, Any] = {**(options or {}), "message": said[-1].text}
    if conversation is not None:
        asked["conversation_id"] = conversation
    elif turns:
        asked["history"] = [{"role": one.role, "content": one.text[:MAX_TEXT]} for one in turns]
    return decode_chat_request(encode(asked))


def prompt_options(
    system: Iterable[str], max_tokens: int | None, allowed: Collection[str]
) -> dict[str, str | int]:
    """The options of a job for system messages and a limit of tokens, as far as they are set and allowed."""
    options: dict[str, str | int | None] = {
        "system": "\n\n".join(text for text in system if text),
        "max_tokens": max_tokens,
    }
    return {name: value for name, value in options.items() if value and name in allowed}


def system_texts(said: Iterable[Said]) -> list[str]:
    """The texts of OpenAI's system messages."""
    return [one.text for one in said if one.role in ("system", "developer")]


def key_of(*texts: str) -> str:
    """An idempotency key of fixed length for these texts."""
    return hashlib.sha256(encode(texts)).hexdigest()
