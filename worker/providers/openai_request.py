"""Builds the body of a request to the Chat Completions API.

The next request of a reply begins as the one before it, to the byte: many servers have that in a cache.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from legato.protocol.text import well_formed

from . import base, conversation
from .openai_calls import AnswerCollector
from .reasons import is_too_long

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PDF: Final = "application/pdf"


class ApiDialect(NamedTuple):
    """Which optional request fields the server supports.

    :ivar limit: name of the field that limits the length of the reply.
    :ivar usage: whether to request the usage.
    """

    limit: str = "max_tokens"
    usage: bool = True

    def without(self, status: int, body: str) -> ApiDialect | None:
        """The dialect without the field that an error response names; None if it names none."""
        if status not in (400, 422) or is_too_long(body):
            return None
        if self.usage and ("stream_options" in body or "include_usage" in body):
            return self._replace(usage=False)
        if self.limit == "max_tokens" and "max_completion_tokens" in body:  # OpenAI's reasoning models
            return self._replace(limit="max_completion_tokens")
        return None


class RequestDefaults(NamedTuple):
    """What the settings say, where a request says nothing."""

    model: str
    max_tokens: int
    system: str = ""


def build(request: base.ProviderRequest, defaults: RequestDefaults, dialect: ApiDialect) -> dict[str, Any]:
    """The body.

    :raises RequestRefusedError: a step of the request is not this API's.
    """
    options = request.options
    body: dict[str, Any] = {
        "model": options.model or defaults.model,
        "messages": list(_messages(request, defaults)),
        "stream": True,
        dialect.limit: options.max_tokens or defaults.max_tokens,
    }
    if dialect.usage:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    return {**body, **options.extra, "stream": True} if options.extra else body


def collector(request: base.ProviderRequest) -> AnswerCollector | None:
    """What collects the answer; None if no further step can follow: a plain reply is cheaper without."""
    if not (request.tools or request.steps):
        return None
    return AnswerCollector([_said(turn.role, turn.content) for turn in conversation.continued(request)])


def _messages(request: base.ProviderRequest, defaults: RequestDefaults) -> Iterator[dict[str, Any]]:
    system = request.options.system
    if system is None:
        system = defaults.system
    if system:
        yield _said("system", well_formed(system))
    *before, last = conversation.opening(request)
    for turn in before:
        yield _said(turn.role, turn.content)
    yield _said("user", _with_attachments(last.content, request.attachments))
    for step in request.steps:
        yield from _step(step)
    for turn in conversation.continued(request):
        yield _said(turn.role, turn.content)


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _step(step: base.Step) -> Iterator[dict[str, Any]]:
    """What the model has said, as it was, and the results of its calls."""
    said = step.content
    ours = isinstance(said, list) and said and all(isinstance(each, dict) and "role" in each for each in said)
    if not ours:
        raise base.RequestRefusedError("a step of the reply is another provider's")
    yield from said
    calls = said[-1].get("tool_calls") or ()
    if len(calls) != len(step.outputs):
        raise base.RequestRefusedError("a step of the reply needs one result for each call")
    for call, output in zip(calls, step.outputs, strict=True):
        yield {"role": "tool", "tool_call_id": call["id"], "content": well_formed(output.text)}


def _tool(tool: base.ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.schema)}
    return {"type": "function", "function": function}


def _with_attachments(text: str, attachments: Iterable[base.Attachment]) -> str | list[dict[str, Any]]:
    parts = [_attached(attachment) for attachment in attachments]
    if not parts:
        return text
    return [{"type": "text", "text": text}, *parts] if text.strip() else parts


def _attached(attachment: base.Attachment) -> dict[str, Any]:
    """An image, or a PDF: OpenAI takes it as data only, OpenRouter also by its address."""
    url = f"data:{attachment.media_type};base64,{attachment.data}" if attachment.data else attachment.url
    if attachment.media_type != PDF:
        return {"type": "image_url", "image_url": {"url": url}}
    name = well_formed(attachment.title) or "document.pdf"
    return {"type": "file", "file": {"filename": name, "file_data": url}}
