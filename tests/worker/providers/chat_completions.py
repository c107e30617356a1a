"""What servers of the Chat Completions API send, as steps of :class:`.sse_server.SseServer`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.worker.providers.sse_server import EOF_, STREAM, Step, chunk, send

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = "test-model-1"

PROMPT = {"prompt_tokens": 16, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5}}
"""A usage: 11 tokens of input, 5 of them cached, 9 of output."""

DONE = chunk(b"data: [DONE]\n\n")
COMMENT = chunk(b": PROCESSING\n\n")
COMMENTS = Step("pings", COMMENT.data)


def data(value: Any) -> Step:
    """One server-sent event, as one HTTP chunk."""
    return chunk(f"data: {json.dumps(value)}\n\n".encode())


def piece(delta: Any, finish: str | None = None, **fields: Any) -> Any:
    """One chunk of the API, with a single choice."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": None,
        **fields,
    }


ROLE = data(piece({"role": "assistant", "content": ""}))


def text(content: Any) -> Step:
    return data(piece({"content": content}))


def finished(reason: str = "stop") -> Step:
    return data(piece({}, reason))


def usage(counts: Any) -> Step:
    """The chunk behind the model's end. It has no choice."""
    return data({**piece({}), "choices": [], "usage": counts})


def whole(*pieces: str, reason: str = "stop") -> list[Step]:
    """A reply from start to end."""
    return [STREAM, ROLE, *map(text, pieces), finished(reason), usage(PROMPT), DONE, EOF_]


def error_event(**error: Any) -> Step:
    return data({"error": error})


def refused(status: int, *headers: str, body: Any = None, **error: Any) -> list[Step]:
    """A plain HTTP error with the body ``{"error": error}``, or another one."""
    content = json.dumps({"error": error} if body is None else body).encode()
    return answered(status, content, "Content-Type: application/json", *headers)


def answered(status: int, content: bytes, *headers: str) -> list[Step]:
    """An answer that is no stream."""
    lines: Sequence[str] = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(content)}", *headers]
    return [send("\r\n".join(lines).encode() + b"\r\n\r\n" + content)]
