"""What ``HttpAgent`` of AG-UI sends: the input of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from legato.protocol.jobs import InvalidRequest

from .requests import Said, TextPart, chat_request, key_of, parse, text_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.jobs import ChatRequest

MAX_RUN_ID: Final = 256
"""Characters of a thread's and of a run's id, which the client makes up."""


class RunMessage(NamedTuple):
    """A message of the client. ``raw``: all of it, for a snapshot."""

    id: str
    raw: msgspec.Raw


class ToolAnswer(NamedTuple):
    """A person's decision on a call."""

    call: str
    approve: bool
    note: str


class RunInput(NamedTuple):
    """The input of a run.

    :ivar request: what to answer. None if the run goes on with a reply that waits for the :attr:`answers`,
        or for a reason in :attr:`refusal`.
    :ivar knows_outcomes: the client knows outcomes other than success; older ones reject the run.
    :ivar answers: to the interrupts of the run before.
    :ivar refusal: why a new run cannot begin. A client that comes back to a run sends what it has of the
        reply, too, so that no message of the user comes last.
    """

    thread_id: str
    run_id: str
    messages: Sequence[RunMessage] = ()
    request: ChatRequest | None = None
    knows_outcomes: bool = True
    answers: Sequence[ToolAnswer] = ()
    refusal: InvalidRequest | None = None

    @property
    def key(self) -> str:
        """The same for a run that is known: then the client comes back to it."""
        return key_of("ag-ui", self.thread_id, self.run_id)


class _RunMessage(msgspec.Struct, frozen=True):
    role: str
    id: str = ""
    content: Any = None

    def said(self) -> Said:
        content = self.content
        if isinstance(content, list):
            content = [
                TextPart("text", part.get("text"))
                for part in content
                if isinstance(part, dict) and part.get("type") == "text"
            ]
        return Said(self.role, text_in(content if isinstance(content, list | str) else None))


class _Resume(msgspec.Struct, frozen=True, rename="camel"):
    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None

    def answer(self) -> ToolAnswer:
        payload = self.payload if isinstance(self.payload, dict) else {"approve": self.payload}
        refused = any(payload.get(name) is False for name in ("approve", "approved"))
        note = payload.get("note")
        approve = self.status == "resolved" and not refused
        return ToolAnswer(self.interrupt_id, approve, note if isinstance(note, str) else "")


class _RunBody(msgspec.Struct, frozen=True, rename="camel"):
    thread_id: str
    run_id: str
    messages: list[msgspec.Raw]
    protocol_version: str | None = None
    resume: list[_Resume] | None = None


_body_decoder: Final = msgspec.json.Decoder(_RunBody)
_message_decoder: Final = msgspec.json.Decoder(_RunMessage)


def parse_run(body: bytes) -> RunInput:
    """Parse the body of ``POST /api/ag-ui``.

    :raises InvalidRequest: it does not fit.
    """
    asked = parse(_body_decoder, body)
    for name, value in (("threadId", asked.thread_id), ("runId", asked.run_id)):
        if not 1 <= len(value) <= MAX_RUN_ID:
            raise InvalidRequest(name, f"Expected 1 to {MAX_RUN_ID} characters")
    messages = [_message(index, raw) for index, raw in enumerate(asked.messages)]
    answers = tuple(one.answer() for one in asked.resume or ())
    request, refusal = None, None
    try:
        request = None if answers else chat_request([one.said() for one in messages], "messages")
    except InvalidRequest as error:
        refusal = error
    kept = [RunMessage(one.id, raw) for one, raw in zip(messages, asked.messages, strict=True)]
    knows = asked.protocol_version is not None
    return RunInput(asked.thread_id, asked.run_id, kept, request, knows, answers, refusal)


def _message(index: int, raw: msgspec.Raw) -> _RunMessage:
    try:
        return parse(_message_decoder, bytes(raw))
    except InvalidRequest as error:
        raise InvalidRequest(f"messages.{index}.{error.field}", error.reason) from error
