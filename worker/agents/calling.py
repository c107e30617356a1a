"""Calls one tool: checks the arguments, bounds the time and the result, and turns every fault into a text.

A tool's fault is told to the model, which can do something about it. Nothing here raises an error of a tool.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from legato.protocol.text import decode_json, well_formed
from legato.worker.importing import text_of
from legato.worker.limits import TOOL_MAX_ERROR_CHARACTERS, TOOL_MAX_OUTPUT_BYTES, TOOL_OVERRUN_SECONDS
from legato.worker.providers import base

from .errors import ToolError
from .tools import Call
from .values import encode_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol import parts
    from legato.protocol.jobs import Job

    from .tools import Tool

log: Final = logging.getLogger("legato.worker")


class CallResult(NamedTuple):
    """What a call has brought.

    :ivar output: for the model.
    :ivar value: the same for readers, any JSON; UNSET if the call failed.
    :ivar citations: sources that the tool names.
    """

    output: base.ToolOutput
    value: Any = msgspec.UNSET
    citations: Sequence[parts.CitationReceived] = ()


def failed(call: base.ToolCall, reason: str) -> CallResult:
    """A call that brought nothing, for this reason."""
    text = well_formed(reason)[:TOOL_MAX_ERROR_CHARACTERS]
    return CallResult(base.ToolOutput(call.call, call.name, text, failed=True))


async def run(tool: Tool | None, call: base.ToolCall, job: Job) -> CallResult:
    """Call the tool. Cancelling this cancels the tool."""
    if tool is None:
        return failed(call, f"There is no tool {call.name!r}.")
    given = arguments_of(tool, call)
    if isinstance(given, CallResult):
        return given
    context = Call(call.call, job)
    if tool.call_parameter:
        given[tool.call_parameter] = context
    return await _bounded(tool, call, context, given)


def arguments_of(tool: Tool, call: base.ToolCall) -> dict[str, Any] | CallResult:
    """The arguments by name; a failed result if they do not fit the type hints."""
    try:
        decoder: msgspec.json.Decoder[msgspec.Struct] = msgspec.json.Decoder(tool.arguments)
        arguments = decode_json(decoder, call.arguments.strip() or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return failed(call, f"The arguments are invalid: {error}")
    except BaseException as error:  # noqa: BLE001 - a type's own code may run, and nothing is awaited
        return failed(call, f"The arguments are invalid: {_reason(tool, error)}")
    return {name: getattr(arguments, name) for name in tool.arguments.__struct_fields__}


async def _bounded(tool: Tool, call: base.ToolCall, context: Call, given: dict[str, Any]) -> CallResult:
    """Run the function for at most its time; a function that survives its cancellation is left behind."""
    clock = asyncio.get_running_loop().time
    task, begun = asyncio.ensure_future(_guarded(tool, given)), clock()
    try:
        await asyncio.wait({task}, timeout=tool.timeout)
    finally:
        if not task.done():
            task.cancel()
    if (took := clock() - begun) > tool.timeout + TOOL_OVERRUN_SECONDS:
        log.warning(
            "tool %s: %.1f s instead of at most %g s: something has blocked the process, perhaps the tool",
            *(tool.name, took, tool.timeout),
        )
    if not task.done():
        log.info("tool %s: timed out after %g s", tool.name, tool.timeout)
        return failed(call, f"The tool did not answer within {tool.timeout:g} seconds.")
    value = None if task.cancelled() else task.result()
    if task.cancelled() or isinstance(value, BaseException):
        return failed(call, _reason(tool, value))
    return _succeeded(call, value, context)


async def _guarded(tool: Tool, given: dict[str, Any]) -> Any:
    """The result, or the error instead of raising it: one of SystemExit's kind would end the process."""
    try:
        return await tool.function(**given)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises
        return error


def _reason(tool: Tool, error: BaseException | None) -> str:
    """What the model is told, and the log of the worker: a tool's fault is no fault of ours."""
    said = "" if error is None else text_of(error)
    if isinstance(error, ToolError):
        return said or "The tool failed."
    name = "CancelledError" if error is None else type(error).__name__
    reason = f"{name}: {said}" if said else name
    log.info("tool %s: %s", tool.name, " ".join(reason.split())[:TOOL_MAX_ERROR_CHARACTERS])
    log.debug("tool %s: failed", tool.name, exc_info=error)
    return reason


def _succeeded(call: base.ToolCall, value: Any, context: Call) -> CallResult:
    try:
        encoded = encode_json(value)
        if len(encoded) > TOOL_MAX_OUTPUT_BYTES:
            return failed(
                call, f"The result has {len(encoded)} bytes, more than the {TOOL_MAX_OUTPUT_BYTES} that fit."
            )
        shown = msgspec.json.decode(encoded)
    except (ValueError, RecursionError) as error:
        return failed(call, f"The tool answered what is no JSON: {error}")
    text = shown if isinstance(shown, str) else encoded.decode()
    return CallResult(base.ToolOutput(call.call, call.name, text), shown, tuple(context.citations))
