"""The agent of the scenarios in a browser: one tool that runs at once, and one that needs an approval."""

from __future__ import annotations

from legato.worker.agents import Agent, tool


@tool
async def weather(city: str) -> dict[str, object]:
    """Current weather of a city."""
    return {"city": city, "temperature": 7}


@tool(needs_approval=True)
async def send_mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


agent = Agent(tools=[weather, send_mail], show_tools="output", show_reasoning=True)
