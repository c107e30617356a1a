"""docs/agents.md: its code runs, its numbers are those of the code, and it has every option."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from legato.worker import agents, limits
from legato.worker.agents import Agent
from legato.worker.agents.loading import Agents
from legato.worker.replies import agent_writer
from legato.worker.replies.steps import ApprovalDecision

if TYPE_CHECKING:
    from tests.worker.agents.folder import Folder

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "agents.md").read_text()
CHAT = (DOCS / "chat.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def numbers(row: str) -> list[int]:
    """The numbers of a row of the table of limits."""
    (cell,) = re.findall(rf"^\| {row}[^|]*\| ([^|]+) \|$", TEXT, re.MULTILINE)
    return [int(number.replace(",", "")) for number in re.findall(r"[0-9][0-9,]*", cell)]


def test_the_code_runs(folder: Folder) -> None:
    for block in BLOCKS:
        if name := re.match(r"# (\w+\.py)\n", block):
            folder.write(name[1], block)
    found = Agents({"default": "weather:agent", "tutor": "tutor:reply"})
    assert len(found) == 2
    for block in BLOCKS:
        exec(compile(block, "agents.md", "exec"), {})
    assert len(BLOCKS) == 4


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("requests to the model", [limits.AGENT_STEPS, limits.AGENT_MAX_STEPS]),
        ("tools of an agent", [limits.AGENT_MAX_TOOLS]),
        ("calls in one step", [limits.TOOL_MAX_CALLS]),
        ("time of a function", [limits.AGENT_SYSTEM_SECONDS]),
        ("time of one call", [limits.TOOL_SECONDS, 86_400]),
        ("time for an approval", [limits.APPROVAL_SECONDS, limits.APPROVAL_MAX_SECONDS]),
        ("result of a call", [limits.TOOL_MAX_OUTPUT_BYTES]),
        ("error that", [limits.TOOL_MAX_ERROR_CHARACTERS]),
        ("input or output", [limits.MAX_SHOWN_BYTES]),
        ("input of a call that", [limits.APPROVAL_MAX_INPUT_BYTES]),
        ("citations of", [limits.TOOL_MAX_CITATIONS]),
        ("each value of a citation", [limits.CITATION_MAX_CHARACTERS]),
        ("docstring", [limits.TOOL_MAX_DESCRIPTION_CHARACTERS]),
        ("schema of", [limits.TOOL_MAX_SCHEMA_BYTES]),
        ("value of `once`", [limits.HANDLER_MAX_ONCE_BYTES]),
        ("key of `once`", [limits.HANDLER_MAX_ONCE_KEY_CHARACTERS]),
    ],
)
def test_the_numbers_are_those_of_the_code(row: str, values: list[float]) -> None:
    assert numbers(row) == values


def test_the_sample_of_a_refused_call_says_what_the_worker_says() -> None:
    decided, finished = (
        msgspec.json.decode(found)
        for found in re.findall(
            r'^tool\.(?:approval_decided|finished) +(\{.*"call":"c-2".*\})$', CHAT, re.MULTILINE
        )
    )
    decision = ApprovalDecision(decided["approve"], decided["note"])
    assert finished["error"] == agent_writer._refusal(decision)
    assert finished["denied"]


def test_every_option_is_described() -> None:
    rows = " ".join(re.findall(r"^\| (`[^|]+) \|", TEXT, re.MULTILINE))
    options = {field.name for field in dataclasses.fields(Agent)}
    options |= set(inspect.signature(agents.tool).parameters) - {"function"}
    assert {name for name in options if f"`{name}`" not in rows} == set()


def test_every_public_name_is_described() -> None:
    inner = {"AgentError", "HandlerTurn", "Tool", "RequestOptions"}
    assert {name for name in agents.__all__ if name not in TEXT} <= inner
