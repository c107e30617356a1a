"""The rows of ``messages`` that a job and its reply become."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from legato.protocol.jobs import LAST_MS
from legato.protocol.stream import Usage

if TYPE_CHECKING:
    from legato.protocol.jobs import Job
    from legato.worker.replies.reply import Decision

_NO_MODEL: Final = dict.fromkeys(
    ("stop_reason", "model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
)


class Place(NamedTuple):
    """Where the turns of a message go in a conversation.

    :ivar parent_id: of the first of them; see :data:`.tables.messages`.
    """

    conversation: int
    position: int
    parent_id: str


def placed(turns: list[dict[str, Any]], place: Place) -> list[dict[str, Any]]:
    """The turns with their places. A reply follows the user's turn before it."""
    parents = (place.parent_id, turns[0]["message_id"])
    return [
        {**turn, "conversation_id": place.conversation, "position": position, "parent_id": parent}
        for position, (turn, parent) in enumerate(zip(turns, parents, strict=False), place.position)
    ]


def turns_of(job: Job, text: str, decision: Decision) -> list[dict[str, Any]]:
    """The turns of a message, without their places: one that is answered once more has its reply only."""
    reply = _assistant_turn(job, text, decision)
    return [reply] if job.regenerate else [_user_turn(job), reply]


def _user_turn(job: Job) -> dict[str, Any]:
    return {
        **_turn(job, "user", job.message),
        **_NO_MODEL,
        "status": "complete",
        "created_at": datetime.fromtimestamp(min(job.queued_at, LAST_MS) / 1000, UTC),
    }


def _assistant_turn(job: Job, text: str, decision: Decision) -> dict[str, Any]:
    usage = decision.usage or Usage()
    return {
        **_turn(job, "assistant", text),
        "status": decision.state,
        "stop_reason": decision.stop_reason,
        "model": decision.model,
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "created_at": datetime.now(UTC),
    }


def _turn(job: Job, role: str, content: str) -> dict[str, Any]:
    return {
        "message_id": job.message_id,
        "user_id": str(job.user_id),
        "session_id": job.session_id or job.message_id,
        "role": role,
        "content": content.replace("\0", ""),  # PostgreSQL's text cannot hold it
    }
