"""What both programs know of stored conversations: their titles, and the events that tell of changes."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from .jobs import InvalidRequest, Job
from .stream import StreamEvent
from .text import decode_json

MAX_TITLE: Final = 200
"""Characters of a title."""

MAX_FIRST_WORDS: Final = 60
"""Characters of a title that is made of the first words of a message."""

MAX_RENAME_BYTES: Final = 4_096
"""Bytes of a request for another title: in JSON escapes, a character has up to 12."""

MAX_CREATED_BYTES: Final = 16_384
"""Bytes of a text in ``message.created``. A longer one is left out."""

NOBODY: Final = ""
"""The owner of a conversation that was deleted. Its id stays taken, so that no late reply revives it."""

_NOT_IN_A_LINE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, ends of lines, and those that turn the direction of the text around them."""


class ConversationChanged(StreamEvent, frozen=True):
    """A conversation has another title, or is ``deleted``.

    :ivar updated_at: ISO 8601 in UTC.
    """

    event = "conversation.changed"
    conversation_id: str
    updated_at: str
    title: str | None = None
    deleted: bool = False


class MessageCreated(StreamEvent, frozen=True):
    """A message was queued. Its reply follows, on the channel of the reply.

    :ivar parent_id: and :ivar regenerate: as in :class:`.jobs.Job`.
    :ivar message: the text; absent with ``regenerate``, and if it is ``truncated``.
    """

    event = "message.created"
    conversation_id: str
    message_id: str
    parent_id: str | None = None
    message: str | None = None
    regenerate: bool = False
    truncated: bool = False

    @classmethod
    def of(
        cls, conversation_id: str, message_id: str, parent_id: str | None, message: str, *, regenerate: bool
    ) -> MessageCreated:
        """The event of a message, without a text that is too long."""
        truncated = len(message.encode()) > MAX_CREATED_BYTES
        told = None if truncated or regenerate else message
        return cls(conversation_id, message_id, parent_id, told, regenerate, truncated)


class SentMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message of a conversation that has not ended, as Redis keeps it.

    :ivar queued_at: and :ivar parent_id: and :ivar regenerate: as in :class:`.jobs.Job`.
    """

    queued_at: int
    text: str
    parent_id: str | None = None
    regenerate: bool = False

    @classmethod
    def of(cls, job: Job) -> SentMessage:
        """The message of a job."""
        return cls(job.queued_at, job.message, job.parent_id, job.regenerate)


def one_line(text: str) -> str:
    """The text in one line, with single spaces."""
    return " ".join(_NOT_IN_A_LINE.sub(" ", text).split())


def first_words(text: str) -> str:
    """A title out of the beginning of a text: whole words, unless the first is too long. May be empty."""
    line = one_line(text[: 10 * MAX_FIRST_WORDS])
    if len(line) <= MAX_FIRST_WORDS:
        return line
    words = line[:MAX_FIRST_WORDS].rpartition(" ")[0]
    return f"{words or line[: MAX_FIRST_WORDS - 1]}…"


class _Rename(msgspec.Struct, frozen=True):
    title: str


_decoder: Final = msgspec.json.Decoder(_Rename)


def decode_title(body: bytes) -> str:
    """Parse the body of ``PATCH /api/conversations/{id}``: ``{"title"}``. Unknown keys are ignored.

    :raises InvalidRequest: it is not JSON, or its title is missing, blank or too long.
    """
    if len(body) > MAX_RENAME_BYTES:
        raise InvalidRequest("$", f"Expected at most {MAX_RENAME_BYTES} bytes")
    try:
        title = one_line(decode_json(_decoder, body).title)
    except msgspec.ValidationError as error:
        raise InvalidRequest("title", str(error).partition(" - at ")[0]) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest("$", "the body is not JSON") from error
    if not 1 <= len(title) <= MAX_TITLE:
        raise InvalidRequest("title", f"Expected 1 to {MAX_TITLE} characters that are not blank")
    return title
