"""One call of a tool: whatever the model writes and whatever the tool does, there is a result."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import parts
from legato.worker.agents import Call, ToolError, calling, tool
from legato.worker.limits import TOOL_MAX_ERROR_CHARACTERS, TOOL_MAX_OUTPUT_BYTES
from legato.worker.providers import base
from tests.waiting import WAIT
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.worker.agents import Tool
    from legato.worker.agents.calling import CallResult


async def call(one: Tool | None, arguments: str = "{}") -> CallResult:
    name = "gone" if one is None else one.name
    async with asyncio.timeout(WAIT):
        return await calling.run(one, base.ToolCall("c1", name, arguments), make_job())


def answering(value: Any) -> Tool:
    @tool
    async def answer() -> Any:
        """Answer."""
        return value

    return answer


def raising(error: BaseException) -> Tool:
    @tool
    async def fail() -> None:
        """Fail."""
        raise error

    return fail


def fails(result: CallResult) -> str:
    """Why, for the model; checked to be what any provider and the log can take."""
    assert result.output.failed
    assert result.value is msgspec.UNSET
    msgspec.json.encode(result.output)
    assert 0 < len(result.output.text) <= TOOL_MAX_ERROR_CHARACTERS
    return result.output.text


@tool
async def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@tool
async def repeat(text: str) -> str:
    """Repeat."""
    return text


@tool
async def tree(node: list[Any]) -> int:
    """Count."""
    return len(node)


async def test_the_arguments_are_given_by_name_and_the_result_is_json() -> None:
    result = await call(add, '{"a": 2}')
    assert result.output == base.ToolOutput("c1", "add", "3")
    assert result.value == 3


async def test_no_arguments_are_an_empty_object() -> None:
    assert (await call(answering(1), "")).value == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *("[1]", "7", '{"a": "x"}', '{"a": 1, "c": 2}', "{}", '{"a": 1', "nonsense", '{"a": 1} {"a": 2}'),
        *("\ud800", "[" * 100_000),
    ],
)
async def test_arguments_that_do_not_fit_are_told_to_the_model(arguments: str) -> None:
    assert fails(await call(add, arguments)).startswith("The arguments are invalid: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("no such span"), "KeyError: 'no such span'"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
async def test_whatever_a_types_own_code_raises_is_told_to_the_model(error: BaseException, said: str) -> None:
    class Span(msgspec.Struct):
        days: int

        def __post_init__(self) -> None:
            raise error

    async def book(span: Any) -> None:
        """Book."""

    book.__annotations__["span"] = Span
    assert fails(await call(tool(book), '{"span":{"days":1}}')) == f"The arguments are invalid: {said}"


async def test_an_error_that_cannot_say_what_it_is_ends_nothing() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise SystemExit(1)

    assert fails(await call(raising(MuteError()))) == "MuteError"


async def test_deep_arguments_are_told_to_the_model() -> None:
    deep = '{"node": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert fails(await call(tree, deep)).startswith("The arguments are invalid: ")


@pytest.mark.parametrize("arguments", ['{"text": "\\ud800"}', '{"text": "\ud800"}'])
async def test_a_lone_surrogate_in_the_arguments_is_replaced(arguments: str) -> None:
    assert (await call(repeat, arguments)).value == "\ufffd"


async def test_a_tool_that_does_not_exist_is_told_to_the_model() -> None:
    assert fails(await call(None)) == "There is no tool 'gone'."


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Place:
    city: str


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        (None, "null", None),
        ("words", "words", "words"),
        ("", "", ""),
        ("\ud83d\ude00\ud83d", "😀\ufffd", "😀\ufffd"),
        ({"a": ["\udc00", 1.5, None]}, '{"a":["\\ufffd",1.5,null]}', {"a": ["\ufffd", 1.5, None]}),
        ({1: (2, 3)}, '{"1":[2,3]}', {"1": [2, 3]}),
        (Place("Oslo"), '{"city":"Oslo"}', {"city": "Oslo"}),
        (Colour.RED, "red", "red"),
        ({"null": [None, 1e308]}, '{"null":[null,1e308]}', {"null": [None, 1e308]}),
        (b"\xff\xfe", "//4=", "//4="),
        (2**100, str(2**100), 2**100),
    ],
)
async def test_any_result_that_is_json_reaches_the_model(value: Any, text: str, shown: Any) -> None:
    result = await call(answering(value))
    assert not result.output.failed
    assert result.output.text == text
    assert result.value == shown


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=10,
)


@given(_JSON)
def test_any_json_is_answered_and_shown_alike(value: Any) -> None:
    result = asyncio.run(call(answering(value)))
    assert not result.output.failed
    msgspec.json.encode(result.output)
    assert msgspec.json.decode(msgspec.json.encode(result.value)) == result.value
    if not isinstance(result.value, str):
        assert json.loads(result.output.text) == result.value


_LOOP: list[Any] = []
_LOOP.append(_LOOP)


class Nasty:
    """Raises when it is looked at."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise OSError("no")


@pytest.mark.parametrize("value", [object(), {None: 1}, {"a": {object()}}, _LOOP, Nasty(), lambda: 1])
async def test_a_result_that_is_no_json_is_told_to_the_model(value: Any) -> None:
    said = fails(await call(answering(value)))
    assert said.startswith("The tool answered what is no JSON: ")
    assert "\n" not in said


class Weight(msgspec.Struct):
    kilos: float


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "around", [lambda x: x, lambda x: {"a": [1, (2, x)]}, Weight, lambda x: {1: x}, lambda x: ["\ud800", x]]
)
async def test_a_number_that_json_does_not_have_is_told_to_the_model(
    around: Callable[[float], Any], bad: float
) -> None:
    """Not null, which would say that there is no value."""
    said = fails(await call(answering(around(bad))))
    assert said == "The tool answered what is no JSON: JSON has no number for nan or inf"


async def test_a_result_that_is_too_long_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    decode = msgspec.json.decode

    def counted(encoded: bytes, **options: Any) -> Any:
        read.append(len(encoded))
        return decode(encoded, **options)

    monkeypatch.setattr(msgspec.json, "decode", counted)
    assert (await call(answering("x" * TOOL_MAX_OUTPUT_BYTES))).output.failed
    assert max(read, default=0) < TOOL_MAX_OUTPUT_BYTES
    await call(answering("x" * 9_000))
    assert max(read) == 9_002


async def test_a_result_that_is_too_long_is_told_to_the_model() -> None:
    assert fails(await call(answering("x" * 1_000_000))).startswith("The result has 1000002 bytes")
    assert (await call(answering("x" * (TOOL_MAX_OUTPUT_BYTES - 2)))).output.failed is False
    assert (await call(answering("x" * (TOOL_MAX_OUTPUT_BYTES - 1)))).output.failed is True


class MuteError(Exception):
    def __str__(self) -> str:
        raise OSError("no")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ToolError("no such order"), "no such order"),
        (ToolError(), "The tool failed."),
        (ToolError("\ud800"), "\ufffd"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError(), "ValueError"),
        (MuteError(), "MuteError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError(), "CancelledError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (ValueError("x" * 1_000_000), "ValueError: " + "x" * (TOOL_MAX_ERROR_CHARACTERS - 12)),
    ],
)
async def test_whatever_a_tool_raises_is_told_to_the_model(error: BaseException, said: str) -> None:
    assert fails(await call(raising(error))) == said


async def test_an_error_of_a_tool_is_one_line_in_the_log_of_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "legato.worker")
    await call(raising(ValueError("two\nlines")))
    (record,) = caplog.records
    assert record.getMessage() == "tool fail: ValueError: two lines"
    assert record.exc_info is None


@tool(timeout=0.01)
async def hang() -> None:
    """Hang."""
    await asyncio.Event().wait()


async def test_a_tool_that_hangs_is_ended_after_its_time() -> None:
    assert fails(await call(hang)) == "The tool did not answer within 0.01 seconds."


async def test_a_tool_that_blocks_the_process_beyond_its_time_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "TOOL_OVERRUN_SECONDS", 0.0)

    @tool(timeout=0.01)
    async def block() -> str:
        """Block."""
        time.sleep(0.02)  # noqa: ASYNC251 - that is the mistake
        return "done"

    assert (await call(block)).value == "done"
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "tool block: 0.0 s instead of at most 0.01 s: something has blocked"
    )
    caplog.clear()
    monkeypatch.undo()
    assert "did not answer" in fails(await call(hang))
    assert (await call(add, '{"a": 2}')).value == 3
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def test_a_tool_that_ignores_its_end_is_left_behind() -> None:
    ended, go_on = asyncio.Event(), asyncio.Event()

    @tool(timeout=0.01)
    async def stubborn() -> str:
        """Goes on."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await go_on.wait()
        ended.set()
        return "too late"

    assert "did not answer" in fails(await call(stubborn))
    assert not ended.is_set()
    go_on.set()
    async with asyncio.timeout(WAIT):
        await ended.wait()


async def test_cancelling_the_call_cancels_the_tool() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> None:
        """Wait."""
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(call(wait))
    async with asyncio.timeout(WAIT):
        await started.wait()
        task.cancel()
        await asyncio.wait({task})
        await cancelled.wait()
    assert task.cancelled()


async def test_a_tool_gets_its_call_and_names_its_sources() -> None:
    @tool
    async def search(query: str, call: Call) -> str:
        """Search."""
        for number in range(3):
            call.cite(url=f"https://example.com/{query}/{number}")
        return f"{call.id} {call.job.user_id}"

    result = await call(search, '{"query": "q"}')
    assert result.value == "c1 7"
    assert [one.url for one in result.citations if isinstance(one, parts.CitationReceived)] == [
        f"https://example.com/q/{number}" for number in range(3)
    ]


@pytest.mark.parametrize("catch", [False, True])
async def test_hundreds_of_sources_are_refused_and_the_tool_may_go_on(catch: bool) -> None:
    @tool
    async def search(call: Call) -> str:
        """Search."""
        for _ in range(500):
            try:
                call.cite(title="x")
            except ValueError:
                if not catch:
                    raise
        return "done"

    result = await call(search)
    assert len(result.citations) == (50 if catch else 0)
    assert result.output.failed is not catch


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x.upper()])
async def test_calls_at_the_same_time_do_not_mix(change: Callable[[str], str]) -> None:
    texts = [change(f"t{number}") for number in range(20)]
    results = await asyncio.gather(*(call(repeat, json.dumps({"text": text})) for text in texts))
    assert [result.value for result in results] == texts
