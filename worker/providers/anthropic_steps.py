"""What a request to Anthropic's Messages API says about the finished steps of its reply.

A step's content is the list of its blocks. If its tools ran in a container of the provider, it is an object
with both, since the API wants the container named in the next request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legato.protocol.text import well_formed

from .anthropic_content import server_calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from . import base

Blocks = list[dict[str, Any]]


def kept(blocks: Blocks, container: str) -> Any:
    """:attr:`.base.Final.content` of these blocks. ``container`` is empty if there was none."""
    return {"container": container, "content": blocks} if container else blocks


def blocks_of(step: base.Step) -> Blocks:
    """The blocks of :func:`kept`; none of a step of another provider."""
    content = step.content.get("content") if isinstance(step.content, dict) else step.content
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def container_of(steps: Iterable[base.Step]) -> str:
    """The last container; empty if there was none."""
    names = [step.content.get("container") for step in steps if isinstance(step.content, dict)]
    return next((name for name in reversed(names) if isinstance(name, str)), "")


def names_of(steps: Iterable[base.Step]) -> dict[str, str]:
    """Id -> name of the tools that the provider was to call."""
    return server_calls(block for step in steps for block in blocks_of(step))


def turns(steps: Iterable[base.Step]) -> Iterator[tuple[str, Blocks]]:
    """Role and content of the turns of the steps. A step without results is one turn with the next."""
    said: Blocks = []
    for step in steps:
        said = said + blocks_of(step)
        if step.outputs:
            if said:
                yield "assistant", said
            yield "user", [_result(output) for output in step.outputs]
            said = []
    if said:
        yield "assistant", said


def without_open_calls(blocks: Blocks) -> Blocks:
    """The blocks without the calls of the provider's tools that have no result: only it could go on there."""
    done = {block.get("tool_use_id") for block in blocks}
    pending = server_calls(blocks).keys() - done
    return [block for block in blocks if block.get("id") not in pending]


def _result(output: base.ToolOutput) -> dict[str, Any]:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": output.call}
    if output.text:
        result["content"] = well_formed(output.text)
    return result | {"is_error": True} if output.failed else result
