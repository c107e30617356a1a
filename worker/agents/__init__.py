"""Agents: what answers a message besides a single request to a model. The public interface for users' code.

An :class:`Agent` is a model with tools. A handler is the user's own async generator, called with a
:class:`HandlerTurn`. Both run under the guarantees of a plain reply: whatever dies, readers get each part
once and in order, and a tool that has finished is not called again.
"""

from legato.worker.providers.base import (
    Citation,
    Final,
    Reasoning,
    RequestOptions,
    ServerToolCall,
    ServerToolResult,
    Text,
    Thinking,
)

from .agent import Agent
from .errors import AgentError, ToolError
from .handler import HandlerTurn
from .tools import Call, Meta, Tool, tool

__all__ = [
    "Agent",
    "AgentError",
    "Call",
    "Citation",
    "Final",
    "HandlerTurn",
    "Meta",
    "Reasoning",
    "RequestOptions",
    "ServerToolCall",
    "ServerToolResult",
    "Text",
    "Thinking",
    "Tool",
    "ToolError",
    "tool",
]
