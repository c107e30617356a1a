"""The errors of agents."""

from __future__ import annotations


class AgentError(ValueError):
    """An agent or a tool is defined wrongly. One line for the developer."""


class ToolError(Exception):
    """Raise it in a tool to tell the model that the call failed. The text goes to the model as it is."""
