"""Collects the blocks of an answer of Anthropic's Messages API, and tells what is in them as it comes.

A request with tools has to send the blocks of earlier steps back as they were: thinking with its signature,
encrypted search results, and kinds that are not known here.

https://platform.claude.com/docs/en/build-with-claude/streaming#content-block-delta-types
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from legato.protocol.text import Joiner, well_formed
from legato.worker.limits import (
    MAX_STEP_CONTENT_CHARACTERS,
    MAX_TOOL_INPUT_CHARACTERS,
    MAX_TOOL_NAME_CHARACTERS,
)

from . import base, event_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

INVALID_JSON: Final = "INVALID_JSON"
"""Name under which input that is no JSON object is sent back: the API wants an object.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
"""

_RESULT: Final = "_tool_result"
"""End of the type of a block with the result of a tool that the provider has run."""

_SERVER_CALLS: Final = ("server_tool_use", "mcp_tool_use")


class _Delta(msgspec.Struct):
    """Each type has some of the fields. Those of types that are not known may be anything."""

    type: str = ""
    text: Any = ""
    thinking: Any = ""
    partial_json: Any = ""
    signature: Any = ""
    citation: Any = None
    content: Any = None
    encrypted_content: Any = None


class _BlockDelta(msgspec.Struct):
    index: int
    delta: _Delta


class _BlockStarted(msgspec.Struct):
    index: int
    content_block: dict[str, Any]


class _BlockStopped(msgspec.Struct):
    index: int


_added: Final = msgspec.json.Decoder(_BlockDelta)
_started: Final = msgspec.json.Decoder(_BlockStarted)
_stopped: Final = msgspec.json.Decoder(_BlockStopped)
_any: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


class _Open:
    """A block that is not complete yet.

    :ivar fields: as the block began.
    :ivar pieces: what was added to a field; of ``input``, its JSON.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.kind = _text_of(fields, "type")
        self.pieces: dict[str, list[str]] = {}
        self.joiner = Joiner()
        self.size = 0

    def add(self, field: str, piece: Any) -> str:
        """Add a piece to the text of a field, and return it."""
        text = _string(piece, field)
        self.pieces.setdefault(field, []).append(text)
        self.size += len(text)
        return text

    def put(self, field: str, value: Any, new: Any = None) -> None:
        """Set a field. ``new`` is what it did not hold before; by default the value."""
        self.size += len(msgspec.json.encode(event_json.clean(value if new is None else new)))
        self.fields[field] = value

    def added(self, field: str) -> str:
        return "".join(self.pieces.get(field, ()))


class ContentReader:
    """The blocks of one answer.

    Text is told as it comes, also half a surrogate pair; everything else is well-formed.

    :param names: of the provider's tools, by the id of their calls in earlier steps: a result may come late.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._open: dict[int, _Open] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._names = dict(names or {})
        self._size = 0

    def started(self, body: bytes) -> Iterator[base.Event]:
        """A block begins.

        :raises ValueError: the event is garbled; also of the next two.
        :raises ProviderError: the answer is larger than any that can be kept.
        """
        event = event_json.decode(_started, body)
        self._grow(len(body))
        if event.index in self._open or event.index in self._blocks:
            raise ValueError("a block begins twice")
        block = self._open[event.index] = _Open(event.content_block)
        if block.kind == "tool_use":
            yield base.ToolStart(_name(block.fields, "id"), _name(block.fields, "name"))
        elif block.kind == "text" and (text := _text_of(block.fields, "text")):
            yield base.Text(text)
        elif block.kind == "thinking" and (text := block.joiner.feed(_text_of(block.fields, "thinking"))):
            yield base.Reasoning(text)

    def added(self, body: bytes) -> Iterator[base.Event]:
        """Something is added to a block. What is not known is left out."""
        event = event_json.decode(_added, body)
        block = self._open.get(event.index)
        if block is None:
            raise ValueError("no such block")
        add = _ADD.get(event.delta.type)
        if add is not None:
            size = block.size
            found = add(block, event.delta)
            self._grow(block.size - size)
            if found is not None:
                yield found

    def stopped(self, body: bytes) -> Iterator[base.Event]:
        """A block is complete."""
        yield from self._complete(event_json.decode(_stopped, body).index)

    def close(self) -> Iterator[base.Event]:
        """The answer has ended: complete what is still open."""
        for index in sorted(self._open):
            yield from self._complete(index)

    def blocks(self) -> list[dict[str, Any]]:
        """The complete blocks as the API takes them back: without blank text, which it refuses."""
        found = (self._blocks[index] for index in sorted(self._blocks))
        return [block for block in found if block["type"] != "text" or block["text"].strip()]

    def _complete(self, index: int) -> Iterator[base.Event]:
        block = self._open.pop(index, None)
        if block is None:
            raise ValueError("no such block")
        if (piece := _rest(block)) is not None:
            yield piece
        fields = self._blocks[index] = event_json.clean(block.fields | _joined(block))
        if block.kind == "tool_use":
            arguments = well_formed(block.added("input")) or msgspec.json.encode(fields["input"]).decode()
            yield base.ToolCall(_name(fields, "id"), _name(fields, "name"), arguments)
        elif block.kind in _SERVER_CALLS:
            call, name = _name(fields, "id"), _name(fields, "name")
            self._names[call] = name
            yield base.ServerToolCall(call, name, fields["input"])
        elif block.kind.endswith(_RESULT) and "tool_use_id" in fields:
            yield self._result(block.kind, fields)

    def _result(self, kind: str, fields: dict[str, Any]) -> base.ServerToolResult:
        call, content = _name(fields, "tool_use_id"), fields.get("content")
        error = isinstance(content, dict) and str(content.get("type")).endswith("_error")
        name = self._names.get(call) or kind.removesuffix(_RESULT)
        return base.ServerToolResult(call, name, not (error or fields.get("is_error")), _readable(content))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_STEP_CONTENT_CHARACTERS:
            raise base.ProviderError(f"the answer has more than {MAX_STEP_CONTENT_CHARACTERS} characters")


def server_calls(blocks: Iterable[Any]) -> dict[str, str]:
    """Id -> name of the tools that the provider was to call in these blocks."""
    calls = (block for block in blocks if isinstance(block, dict) and block.get("type") in _SERVER_CALLS)
    return {str(call.get("id")): str(call.get("name")) for call in calls}


def _add_text(block: _Open, delta: _Delta) -> base.Event | None:
    piece = block.add("text", delta.text)
    return base.Text(piece) if piece else None


def _add_thinking(block: _Open, delta: _Delta) -> base.Event | None:
    piece = block.joiner.feed(block.add("thinking", delta.thinking))
    return base.Reasoning(piece) if piece else None


def _add_input(block: _Open, delta: _Delta) -> base.Event | None:
    piece = block.add("input", delta.partial_json)
    if block.size > MAX_TOOL_INPUT_CHARACTERS:
        raise base.ProviderError(f"a tool's input has more than {MAX_TOOL_INPUT_CHARACTERS} characters")
    piece = block.joiner.feed(piece)
    return base.ToolInput(_name(block.fields, "id"), piece) if piece and block.kind == "tool_use" else None


def _add_signature(block: _Open, delta: _Delta) -> None:
    block.put("signature", _string(delta.signature, "signature"))


def _add_citation(block: _Open, delta: _Delta) -> base.Event | None:
    citation = event_json.clean(delta.citation)
    if isinstance(citation, dict):
        block.put("citations", [*(block.fields.get("citations") or ()), citation], citation)
        return _citation(citation)
    raise ValueError("a citation is not an object")


def _add_compaction(block: _Open, delta: _Delta) -> None:
    block.put("content", delta.content)
    block.put("encrypted_content", delta.encrypted_content)


_ADD: Final[dict[str, Callable[[_Open, _Delta], base.Event | None]]] = {
    "text_delta": _add_text,
    "thinking_delta": _add_thinking,
    "input_json_delta": _add_input,
    "signature_delta": _add_signature,
    "citations_delta": _add_citation,
    "compaction_delta": _add_compaction,
}


def _rest(block: _Open) -> base.Event | None:
    """The event of half a surrogate pair whose other half has not come."""
    rest = block.joiner.rest()
    if not rest:
        return None
    return (
        base.Reasoning(rest)
        if "thinking" in block.pieces
        else base.ToolInput(_name(block.fields, "id"), rest)
    )


def _joined(block: _Open) -> dict[str, Any]:
    """The fields that something was added to; and an ``input`` wherever there has to be one."""
    joined: dict[str, Any] = {}
    for field in block.pieces:
        if field == "input":
            text = block.added(field)
            joined[field] = _object(text) if text else block.fields.get(field)
        else:
            joined[field] = _text_of(block.fields, field) + block.added(field)
    if block.kind == "text":
        joined.setdefault("text", _text_of(block.fields, "text"))
    if block.kind == "tool_use" or block.kind in _SERVER_CALLS:
        given = joined.get("input", block.fields.get("input"))
        joined["input"] = given if isinstance(given, dict) else {}
    return joined


def _object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``. Input that was cut off by the limit of the reply's length is none."""
    try:
        found = event_json.clean(event_json.decode(_any, well_formed(text).encode()), depth=1)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {INVALID_JSON: well_formed(text)}


def _readable(content: Any) -> Any:
    """A result without what only the API can read, which may be most of it."""
    if isinstance(content, list):
        return [_readable(item) for item in content]
    if isinstance(content, dict):
        return {key: item for key, item in content.items() if not key.startswith("encrypted_")}
    return content


def _citation(citation: dict[str, Any]) -> base.Citation:
    source = _first(citation, "source", "file_id")
    if not source and isinstance(citation.get("document_index"), int):
        source = f"document:{citation['document_index']}"
    url = _first(citation, "url")
    if not url and source.startswith(("https://", "http://")):
        url, source = source, ""
    title, text = _first(citation, "title", "document_title"), _first(citation, "cited_text")
    return base.Citation(url=url, title=title, text=text, source=source)


def _first(fields: dict[str, Any], *names: str) -> str:
    return next((found for name in names if isinstance(found := fields.get(name), str) and found), "")


def _text_of(fields: dict[str, Any], name: str) -> str:
    return _string(fields.get(name) or "", name)


def _string(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{name} is not a string")


def _name(fields: dict[str, Any], name: str) -> str:
    """The id or the name of a call.

    :raises ValueError: there is none, or it is longer than any.
    """
    text = _text_of(fields, name)
    if not 0 < len(text) <= MAX_TOOL_NAME_CHARACTERS:
        raise ValueError(f"no {name}")
    return well_formed(text)
