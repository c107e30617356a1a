"""Schemas that a model's API would refuse are refused at the start, in one line that names the keyword."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from legato.worker.agents import AgentError, Meta, schemas, tool
from tests.worker.agents.test_tools import schema_of


def extra(**keywords: Any) -> Any:
    """A hint with these keywords in its schema."""
    own = {name.replace("_", "$"): value for name, value in keywords.items()}
    return Annotated[str, Meta(extra_json_schema=own)]


def refusal(schema: dict[str, Any]) -> str:
    with pytest.raises(AgentError) as caught:
        schemas.check(schema)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("hint", "default", "said"),
    [
        (extra(minLength="x"), (), "its schema has minLength 'x'; expected a whole number of 0 or more"),
        (extra(minLength=-1), (), "its schema has minLength '-1'; expected a whole number of 0 or more"),
        (extra(minLength=True), (), "its schema has minLength 'True'; expected a whole number"),
        (extra(minimum="1"), (), "its schema has minimum '1'; expected a number"),
        (extra(multipleOf=0), (), "its schema has multipleOf '0'; expected a number above 0"),
        (extra(description=7), (), "its schema has description '7'; expected a text"),
        (extra(enum=[]), (), "its schema has enum '[]'; expected a list of values"),
        (extra(anyOf=[7]), (), "its schema has anyOf '[7]'; expected a list of schemas"),
        (extra(properties={"a": 7}), (), "its schema has properties "),
        (extra(anyOf=[{"minLength": "x"}]), (), "its schema has minLength 'x'"),
        (extra(properties={"a": {"items": {"type": "int"}}}), (), "its schema has type 'int'; expected one"),
        (extra(_ref="#/nowhere"), (), "its schema refers to '#/nowhere', which is not in it"),
        (extra(_ref="#anchor"), (), "its schema refers to '#anchor', which is not in it"),
        (extra(_ref="https://example.com/s"), (), "its schema refers to 'https://example.com/s', which"),
        (extra(examples=[float("nan")]), (), "its schema has a number that JSON does not have"),
        (extra(examples=[object()]), (), "a type cannot be described to a model: Encoding objects"),
        (Annotated[int, Meta(ge=10, le=5)], (), "its schema has minimum 10 and maximum 5: no value fits"),
        (Annotated[int, Meta(ge=5, lt=5)], (), "its schema has minimum 5 and exclusiveMaximum 5: no value"),
        (Annotated[str, Meta(min_length=5, max_length=4)], (), "its schema has minLength 5 and maxLength 4"),
        (float, (float("nan"),), "its schema has a number that JSON does not have"),
        (list[float], ((float("inf"),),), "its schema has a number that JSON does not have"),
    ],
)
def test_what_a_model_would_refuse_is_refused_in_one_line(hint: Any, default: Any, said: str) -> None:
    with pytest.raises(AgentError) as caught:
        schema_of(hint, *default)
    assert str(caught.value).startswith(f"tool look: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "hint",
    [
        extra(minLength=0, examples=[{"minLength": "x", "$ref": "#/nowhere"}], default="x"),
        extra(_ref="#"),
        extra(_ref="#/properties/x"),
        extra(type=["string", "null"], additionalProperties=False, items=True),
        extra(title="A", pattern="(?i)a", **{"x-own": [1]}),
        Annotated[int, Meta(ge=5, le=5)],
        Annotated[float, Meta(gt=0.5, lt=0.6)],
        Annotated[str, Meta(min_length=4, max_length=4)],
    ],
)
def test_what_a_model_takes_is_accepted(hint: Any) -> None:
    assert "x" in schema_of(hint)["properties"]


def test_a_name_in_a_reference_may_be_escaped() -> None:
    schemas.check({"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": {"type": "string"}}})
    assert "'#/$defs/a~1b'" in refusal({"$ref": "#/$defs/a~1b", "$defs": {"a/b~c": {}}})


def test_a_schema_as_deep_as_can_be_ends_nothing() -> None:
    for levels in (100, 100_000):
        deep: dict[str, Any] = {"type": "strin"}
        for _ in range(levels):
            deep = {"items": deep}
        assert refusal(deep).startswith("its schema ")


def test_a_schema_with_itself_in_it_is_no_json() -> None:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    assert refusal(schema).startswith("its schema is no JSON: ")


def test_a_type_with_the_name_of_another_is_found() -> None:
    @tool
    async def look(x: list[list[int]]) -> None:
        """Look."""

    schemas.check(look.spec.schema)
