"""Tools: the schema that the model gets, and the definitions that are refused, each in one line."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.worker.agents import AgentError, Call, Meta, Tool, tool
from legato.worker.limits import CITATION_MAX_CHARACTERS, TOOL_MAX_CITATIONS
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from legato.protocol.jobs import Job


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Place:
    city: str
    zip_code: int = 0


class Order(msgspec.Struct):
    item: str
    to: Place


def schema_of(hint: Any, *default: Any) -> dict[str, Any]:
    """The schema of a tool with one parameter of this type."""

    async def look(x: Any) -> None:
        """Look."""

    look.__annotations__["x"] = hint
    look.__defaults__ = default or None
    return dict(tool(look).spec.schema)


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 - users write it
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Literal["c", "f"], {"enum": ["c", "f"]}),
        (Annotated[int, Meta(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[str, Meta(max_length=80)], {"type": "string", "maxLength": 80}),
    ],
)
def test_each_common_type_has_its_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == {
        "type": "object",
        "properties": {"x": schema},
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_parameter_with_a_default_is_optional_and_its_default_is_told() -> None:
    schema = schema_of(int, 7)
    assert schema["required"] == []
    assert schema["properties"]["x"] == {"type": "integer", "default": 7}


@pytest.mark.parametrize("kind", [Colour, Place, Order])
def test_enums_and_nested_types_are_definitions_that_can_be_found(kind: type) -> None:
    schema = schema_of(kind)
    reference = schema["properties"]["x"]["$ref"]
    assert reference == f"#/$defs/{kind.__name__}"
    found = schema["$defs"][kind.__name__]
    if kind is Colour:
        assert found["enum"] == ["blue", "red"]
    if kind is Order:
        assert found["properties"]["to"] == {"$ref": "#/$defs/Place"}
        assert schema["$defs"]["Place"]["required"] == ["city"]


def test_a_nested_type_may_have_the_name_of_the_tool() -> None:
    async def look(x: Any) -> None:
        """Look."""

    look.__annotations__["x"] = Place
    schema = tool(name="Place")(look).spec.schema
    assert schema["properties"]["x"]["$ref"].removeprefix("#/$defs/") in schema["$defs"]


def test_the_docstring_describes_the_tool_and_its_parameters() -> None:
    @tool
    async def weather(city: str, unit: Literal["c", "f"] = "c") -> str:
        """Current weather of a city.

        Note: not a forecast.
        city: such as Oslo
        :param unit: Celsius or Fahrenheit
        """
        return f"{city} {unit}"

    assert weather.name == "weather"
    assert weather.spec.description == "Current weather of a city.\n\nNote: not a forecast."
    properties = weather.spec.schema["properties"]
    assert properties["city"] == {"description": "such as Oslo", "type": "string"}
    assert properties["unit"]["description"] == "Celsius or Fahrenheit"


def test_the_parameter_for_the_call_is_none_of_the_model() -> None:
    @tool
    async def pay(amount: int, call: Call) -> None:
        """Pay."""

    assert list(pay.spec.schema["properties"]) == ["amount"]
    assert pay.call_parameter == "call"


class Odd:
    """A type that has no JSON."""


async def fine() -> None:
    """Fine."""


async def silent(city: str) -> None:
    city.upper()


async def without_hint(city) -> None:  # type: ignore[no-untyped-def]
    """Look."""


async def many(*cities: str) -> None:
    """Look."""


async def anything(**cities: str) -> None:
    """Look."""


async def positional(city: str, /) -> None:
    """Look."""


async def odd(thing: Odd) -> None:
    """Look."""


async def two_calls(a: Call, b: Call) -> None:
    """Two."""


async def two_lists(things: list[int] | set[int]) -> None:
    """Look."""


async def mutable(things: list[int] = [1]) -> None:  # noqa: B006 - that is the mistake
    """Look."""


async def odd_default(thing: int = Odd()) -> None:  # type: ignore[assignment]
    """Look."""


async def unknown(thing: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Look."""


async def umlaut(größe: int) -> None:  # noqa: PLC2401
    """Look."""


async def huge(choice: Literal["x"]) -> None:
    """Look."""


huge.__annotations__["choice"] = Literal[tuple(f"{n:0100}" for n in range(1000))]


def synchronous() -> None:
    """Look."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tool(silent), "tool silent: the function needs a docstring: the model reads it"),
        (lambda: tool(without_hint), "tool without_hint: parameter city has no type hint"),
        (lambda: tool(many), "tool many: parameter cities: expected one that can be given by name"),
        (lambda: tool(anything), "tool anything: parameter cities: expected one that can be given by name"),
        (lambda: tool(positional), "tool positional: parameter city: expected one that can be given by name"),
        (lambda: tool(synchronous), "tool synchronous: the function must be async"),
        (lambda: tool("name"), "tool tool: the function must be async"),  # type: ignore[call-overload]
        (
            lambda: tool(odd),
            f"tool odd: a type cannot be described to a model: type {Odd!r} is not supported",
        ),
        (lambda: tool(two_lists), "tool two_lists: a type cannot be described to a model: "),
        (lambda: tool(mutable), "tool mutable: Using a non-empty mutable collection ([1]) as a default"),
        (lambda: tool(odd_default), "tool odd_default: a type cannot be described to a model: "),
        (lambda: tool(unknown), "tool unknown: its type hints cannot be read: name 'Nowhere' is not defined"),
        (lambda: tool(two_calls), "tool two_calls: parameter b: a is the call already"),
        (lambda: tool(umlaut), "tool umlaut: parameter größe: the name must be 1 to 64 of A-Z a-z 0-9 _"),
        (lambda: tool(huge), "tool huge: its schema has more than 32768 bytes"),
        (lambda: tool(name="a b")(fine), "tool a b: the name must be 1 to 64 of A-Z a-z 0-9 _ -"),
        (lambda: tool(on_interrupted="again")(fine), "tool fine: on_interrupted: expected"),  # type: ignore[call-overload]
        (lambda: tool(approval_seconds=0)(fine), "tool fine: approval_seconds: expected 1 to 31536000"),
        (lambda: tool(timeout=0)(fine), "tool fine: timeout: expected seconds, more than 0 and"),
        (lambda: tool(timeout=float("nan"))(fine), "tool fine: timeout: expected seconds, more than 0 and"),
        (lambda: tool(show="all")(fine), "tool fine: show: expected"),  # type: ignore[call-overload]
        (
            lambda: tool(show="name", needs_approval=True)(fine),
            "tool fine: a call that needs approval must show its input",
        ),
    ],
)
def test_what_cannot_be_a_tool_is_refused_in_one_line(make: Callable[[], object], said: str) -> None:
    with pytest.raises(AgentError) as caught:
        make()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_what_is_said_of_a_tool_is_kept() -> None:
    made: Tool = tool(name="other", on_interrupted="retry", timeout=5, show="output")(fine)
    assert (made.name, made.on_interrupted, made.timeout, made.show) == ("other", "retry", 5, "output")
    assert (tool(fine).on_interrupted, tool(fine).needs_approval, tool(fine).show) == ("tell", False, None)


# --- citations


@pytest.fixture(scope="module")
def job() -> Job:
    return make_job()


@given(st.text(st.characters()), st.text(st.characters()))
def test_any_words_can_be_cited(title: str, text: str) -> None:
    call = Call("c", make_job())
    call.cite(title=title, text=text)
    msgspec.json.encode(call.citations)  # lone surrogates would be refused


def test_words_are_cut_and_an_address_is_not(job: Job) -> None:
    call = Call("c", job)
    call.cite(url="https://example.com/", text="x" * 10_000, source="doc-1")
    (citation,) = call.citations
    assert (citation.url, citation.source) == ("https://example.com/", "doc-1")
    assert len(citation.text) == CITATION_MAX_CHARACTERS


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": "https://example.com/" + "x" * CITATION_MAX_CHARACTERS}, "url: expected at most"),
        ({"url": "javascript:alert(1)"}, "url: expected http:// or https://"),
        ({"title": 7}, "title: expected text, got int"),
        ({"text": None}, "text: expected text, got NoneType"),
    ],
)
def test_a_citation_that_cannot_be_is_refused(job: Job, values: dict[str, Any], said: str) -> None:
    call = Call("c", job)
    with pytest.raises(ValueError, match=f"^{said}"):
        call.cite(**values)
    assert not call.citations


def test_one_citation_too_many_is_refused(job: Job) -> None:
    call = Call("c", job)
    for _ in range(TOOL_MAX_CITATIONS):
        call.cite(title="x")
    with pytest.raises(ValueError, match="at most 50"):
        call.cite(title="x")
    assert len(call.citations) == TOOL_MAX_CITATIONS
