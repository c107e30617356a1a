"""Builds the body of a request to Anthropic's Messages API.

The next request of a reply begins as the one before it, to the byte: the API has that in its cache.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from legato.protocol.text import well_formed

from . import anthropic_steps as steps
from . import conversation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from . import base

MCP_BETA: Final = "mcp-client-2026-09-15"
"""Lets the API call MCP servers, and keep to the list of tools that a server gave first."""

_MCP_BETAS: Final = MCP_BETA.rstrip("0123456789-") + "-"

PDF: Final = "application/pdf"


class Defaults(NamedTuple):
    """What the settings say, where a request says nothing."""

    model: str
    max_tokens: int
    system: str = ""


class Body(NamedTuple):
    """What to send: fields of the JSON body, and names of beta features, which are a header."""

    fields: dict[str, Any]
    betas: tuple[str, ...]


def build(request: base.ProviderRequest, defaults: Defaults) -> Body:
    """The request's body. Its order is that of the API's cache: tools, system prompt, messages."""
    options = request.options
    system = defaults.system if options.system is None else options.system
    optional = {
        "tools": _tools(request),
        "mcp_servers": [dict(server) for server in options.mcp_servers],
        "thinking": _thinking(options.thinking),
        "container": steps.container_of(request.steps),
        "system": well_formed(system),
    }
    fields: dict[str, Any] = {
        "model": options.model or defaults.model,
        "max_tokens": _max_tokens(options, defaults),
        **{name: value for name, value in optional.items() if value},
        "messages": _messages(request),
        "cache_control": {"type": "ephemeral"},
    }
    extra = dict(options.extra)
    betas = _betas(extra.pop("betas", ()), options)
    return Body({**fields, **extra, "stream": True}, betas)


def collects(request: base.ProviderRequest) -> bool:
    """Whether the blocks of the answer are needed: a plain reply is cheaper without."""
    options = request.options
    return any(
        (
            request.tools,
            request.steps,
            options.thinking,
            options.server_tools,
            options.mcp_servers,
            options.extra,
        )
    )


def secrets(options: base.RequestOptions) -> tuple[str, ...]:
    """Texts in the request that must not be logged. The address of an MCP server may hold a key."""
    tokens = [server.get("authorization_token") for server in options.mcp_servers]
    urls = [server.get("url") for server in options.mcp_servers]
    texts = (text for text in tokens + urls if isinstance(text, str))
    return tuple(text for text in texts if text)


def _max_tokens(options: base.RequestOptions, defaults: Defaults) -> int:
    """The limit on what the model writes. The API counts thinking, which the settings do not mean."""
    thinking = options.thinking.budget_tokens if options.thinking else 0
    return options.max_tokens or defaults.max_tokens + thinking


def _thinking(thinking: base.Thinking | None) -> dict[str, Any] | None:
    """Some models leave the text out unless they are asked for it; what is shown is not decided here."""
    if thinking is None:
        return None
    if thinking.budget_tokens:
        return {"type": "enabled", "budget_tokens": thinking.budget_tokens, "display": "summarized"}
    return {"type": "adaptive", "display": "summarized"}


def _tools(request: base.ProviderRequest) -> list[dict[str, Any]]:
    """The request's tools, those of the provider, and all tools of each MCP server that has no toolset."""
    options = request.options
    own = [
        {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema)}
        for tool in request.tools
    ]
    given = [dict(tool) for tool in options.server_tools]
    covered = {tool.get("mcp_server_name") for tool in given}
    names = (server.get("name") for server in options.mcp_servers)
    toolsets = [{"type": "mcp_toolset", "mcp_server_name": name} for name in names if name not in covered]
    return [*own, *given, *toolsets]


def _betas(given: str | Iterable[str], options: base.RequestOptions) -> tuple[str, ...]:
    betas = (given,) if isinstance(given, str) else tuple(given)
    if options.mcp_servers and not any(beta.startswith(_MCP_BETAS) for beta in betas):
        betas += (MCP_BETA,)
    return betas


def _messages(request: base.ProviderRequest) -> list[dict[str, Any]]:
    *before, last = conversation.opening(request)
    messages = [_message(turn.role, turn.content) for turn in before]
    messages.append(_message("user", _with_attachments(last.content, request.attachments)))
    messages += (_message(role, blocks) for role, blocks in steps.turns(request.steps))
    return messages + list(_continued(messages, request))


def _continued(messages: list[dict[str, Any]], request: base.ProviderRequest) -> Iterator[dict[str, Any]]:
    """The unfinished step. It belongs to the turn of a step before it that has no results."""
    for turn in conversation.continued(request):
        if turn.role == "assistant" == messages[-1]["role"]:
            done = steps.without_open_calls(messages.pop()["content"])
            yield _message("assistant", [*done, {"type": "text", "text": turn.content}])
        else:
            yield _message(turn.role, turn.content)


def _message(role: str, content: str | steps.Blocks) -> dict[str, Any]:
    return {"role": role, "content": content}


def _with_attachments(text: str, attachments: Iterable[base.Attachment]) -> str | steps.Blocks:
    """The message to answer. The API advises to put images and documents before the text."""
    blocks = [_attached(attachment) for attachment in attachments]
    if not blocks:
        return text
    return [*blocks, {"type": "text", "text": text}] if text.strip() else blocks


def _attached(attachment: base.Attachment) -> dict[str, Any]:
    source: Mapping[str, str] = (
        {"type": "base64", "media_type": attachment.media_type, "data": attachment.data}
        if attachment.data
        else {"type": "url", "url": well_formed(attachment.url)}
    )
    if attachment.media_type != PDF:
        return {"type": "image", "source": source}
    title = {"title": well_formed(attachment.title)} if attachment.title else {}
    return {"type": "document", "source": source, **title}
