"""Functions as tools: their descriptions and calls."""

from __future__ import annotations

import functools
import gc
import json
import weakref
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import Doc

from vllmchat import FunctionTool, InvalidRequestError, Tool
from vllmchat.chat.check import OPENAI_CHAT, check_vllm
from vllmchat.schemas.docstrings import parse
from vllmchat.schemas.functions import text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Object = dict[str, Any]


class Place(BaseModel):
    """Where."""

    city: str
    country: str = "France"


class Unit(StrEnum):
    C = "C"
    F = "F"


# Docstrings

GOOGLE = """Current weather.

    It is measured, not forecast.

    Args:
        city: The city, such as
            Paris.
        days (int, optional): How many: 1 to 7.
        *rest: More.
        **others: Even more.
        unit (Literal["C", "F"]):
            C or F.
        empty:
        not an item

    Returns:
        A text.

    Note:
        This is kept.
    """

NUMPY = """Current weather.

    It is measured, not forecast.

    Parameters
    ----------
    city : str
        The city, such as
        Paris.
    days, hours : int
        How many.
    plain
        C or F.
    empty : int

    Returns
    -------
    str
        A text.

    Notes
    -----
    This is kept.
    """

REST = """Current weather.

    It is measured, not forecast.

    :param city: The city, such as
        Paris.
    :param int days: How many: 1 to 7.
    :type city: str
    :returns: A text.
    :raises ValueError: Never.
    :meta: kept

    This is kept.
    """


def test_google() -> None:
    found = parse(GOOGLE)
    assert found.text == "Current weather.\n\nIt is measured, not forecast.\n\nNote:\n    This is kept."
    assert found.parameters == {
        "city": "The city, such as Paris.",
        "days": "How many: 1 to 7.",
        "rest": "More.",
        "others": "Even more.",
        "unit": "C or F.",
    }


def test_numpy() -> None:
    found = parse(NUMPY)
    assert found.text == "Current weather.\n\nIt is measured, not forecast.\n\nNotes\n-----\nThis is kept."
    assert found.parameters == {
        "city": "The city, such as Paris.",
        "days": "How many.",
        "hours": "How many.",
        "plain": "C or F.",
    }


def test_rest() -> None:
    found = parse(REST)
    assert found.text == "Current weather.\n\nIt is measured, not forecast.\n\n:meta: kept\n\nThis is kept."
    assert found.parameters == {"city": "The city, such as Paris.", "days": "How many: 1 to 7."}


@pytest.mark.parametrize(
    "text", [None, "", "   ", "Args:", "Returns:\n    x", "Args:\n\n\nRaises:", "Raises:\n    x\n"]
)
def test_no_docstring(text: str | None) -> None:
    assert parse(text).text == ""
    assert parse(text).parameters == {}


def test_a_docstring_may_start_with_its_parameters() -> None:
    assert parse("Args:\n        a: The a,\n            all of it.\n        b: The b.\n    ").parameters == {
        "a": "The a, all of it.",
        "b": "The b.",
    }
    assert parse("Args:\n        a: The a.\n\n    Returns:\n        x\n    ").parameters == {"a": "The a."}


def test_a_heading_without_a_section_is_text() -> None:
    assert parse("Look:\n    at this\n\nTitle\n-----").text == "Look:\n    at this\n\nTitle\n-----"
    assert parse("Look.\n\n:param: nothing").parameters == {}
    assert parse("Look.\n\n:param a:\n    The a.").parameters == {"a": "The a."}


# Descriptions


def get_weather(
    city: str,
    place: Place,
    days: Annotated[int, Field(description="From the annotation.", ge=1)] = 3,
    unit: Literal["C", "F"] = "C",
    note: Annotated[str, "From a text."] = "",
    doc: Annotated[str, Doc("From a Doc.")] = "",
    **others: int,
) -> str:
    """Current weather.

    Args:
        city: The city.
        place: The place.
        days: Not this.
        unit: The unit.
        note: Not this.
    """
    return f"{city}, {place.country}: {days} {unit} {note}{doc}{others}"


WEATHER: Object = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city."},
                "place": {"$ref": "#/$defs/Place", "description": "The place."},
                "days": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "From the annotation.",
                    "default": 3,
                },
                "unit": {
                    "type": "string",
                    "enum": ["C", "F"],
                    "description": "The unit.",
                    "default": "C",
                },
                "note": {"type": "string", "description": "From a text.", "default": ""},
                "doc": {"type": "string", "description": "From a Doc.", "default": ""},
            },
            "required": ["city", "place"],
            "additionalProperties": False,
            "$defs": {
                "Place": {
                    "type": "object",
                    "title": "Place",
                    "description": "Where.",
                    "properties": {
                        "city": {"type": "string"},
                        "country": {"type": "string", "default": "France"},
                    },
                    "required": ["city"],
                }
            },
        },
    },
}


def parameters(function: Callable[..., object]) -> Object:
    definition: Any = Tool(function, name="any").definition
    found: Object = definition["function"]["parameters"]
    return found


def test_a_function_is_described_by_its_signature_and_docstring() -> None:
    assert Tool(get_weather).definition == WEATHER
    assert repr(Tool(get_weather)) == "Tool('get_weather')"


def nothing() -> None: ...


def test_a_function_without_annotations_or_docstring() -> None:
    assert Tool(nothing).definition == {
        "type": "function",
        "function": {
            "name": "nothing",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    }
    assert Tool(nothing).bind("")() is None


class Station:
    """A station."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, hour: int) -> str:
        """Reads."""
        return f"{self.name} at {hour}"

    async def aread(self, hour: int) -> str:
        return self.read(hour)

    @classmethod
    def find(cls, name: str) -> Station:
        return cls(name)

    @staticmethod
    def count(most: int = 1) -> int:
        return most

    def __call__(self, hour: int) -> str:
        return self.read(hour)


class Caller:
    """Waits."""

    async def __call__(self) -> str:
        """Calls."""
        return "called"


def test_all_kinds_of_callables() -> None:
    station = Station("North")
    for function, name, description, arguments, result in (
        (station.read, "read", "Reads.", '{"hour": 1}', "North at 1"),
        (station, "Station", "A station.", '{"hour": 2}', "North at 2"),
        (Station.count, "count", "", '{"most": 4}', 4),
        (functools.partial(get_weather, "Oslo", days=1), "get_weather", "Current weather.", None, None),
        (functools.partial(functools.partial(station.read)), "read", "Reads.", '{"hour": 3}', "North at 3"),
    ):
        tool = Tool(function)
        assert (tool.name, tool.description) == (name, description)
        assert not tool.is_async
        if arguments is not None:
            assert tool.bind(arguments)() == result
    assert Tool(Station.find).bind('{"name": "South"}')().name == "South"  # type: ignore[attr-defined] # pyright: ignore
    assert Tool(Caller()).description == "Calls."
    waiting: list[Callable[..., object]] = [station.aread, Caller(), functools.partial(station.aread, 1)]
    assert all(Tool(function).is_async for function in waiting)


def test_arguments_bound_by_a_partial_are_hidden() -> None:
    def look(city: str, key: str, *, level: int = 1) -> str:
        return f"{city} {key} {level}"

    tool = Tool(functools.partial(look, key="secret", level=2))
    assert "secret" not in json.dumps(tool.definition)
    assert parameters(tool.function)["properties"] == {"city": {"type": "string"}}
    assert tool.bind('{"city": "Oslo"}')() == "Oslo secret 2"
    with pytest.raises(ValidationError):
        tool.bind('{"city": "Oslo", "key": "mine"}')


def test_a_wrapper_is_described_by_the_wrapped_function() -> None:
    @functools.wraps(get_weather)
    def wrapper(*args: object, **kwargs: object) -> object:
        return "wrapped"

    tool = Tool(wrapper)
    assert tool.definition == WEATHER
    assert tool.bind('{"city": "Paris", "place": {"city": "Paris"}}')() == "wrapped"


def test_given_descriptions_take_precedence() -> None:
    tool = Tool(get_weather, name="weather", description="Else.", parameters={"type": "object"})
    assert tool.definition == {
        "type": "function",
        "function": {"name": "weather", "description": "Else.", "parameters": {"type": "object"}},
    }
    assert "description" not in Tool(get_weather, description="").definition["function"]
    same: Callable[[int], int] = lambda x: x  # noqa: E731 - it has no name
    assert Tool(same, name="same").name == "same"
    # Without an annotation, anything is accepted.
    assert parameters(Tool(same, name="same").function)["properties"] == {"x": {}}


def test_a_tool_can_be_called() -> None:
    assert Tool(Station.count)(3) == 3
    assert Tool(Station.count)(most=5) == 5


def test_positional_arguments_and_pydantic_defaults() -> None:
    def look(
        a: int,
        b: int = 2,
        /,
        c: int = Field(default=3, description="The c."),
        *,
        d: list[int] = Field(default_factory=list),  # noqa: B008 - pydantic's own way
    ) -> object:
        return a, b, c, d

    shown = parameters(look)
    assert shown["required"] == ["a"]
    assert shown["properties"]["c"] == {"type": "integer", "description": "The c.", "default": 3}
    tool = Tool(look)
    assert tool.bind('{"a": 1}')() == (1, 2, 3, [])
    assert tool.bind('{"d": [4], "b": 5, "a": 6, "c": 7}')() == (6, 5, 7, [4])

    def must(a: int = Field(description="The a.")) -> int:
        return a

    assert parameters(must)["required"] == ["a"]
    assert Tool(must).bind('{"a": 1}')() == 1


def test_a_default_that_is_not_json_is_left_out() -> None:
    def look(a: object = nothing, b: Unit = Unit.C) -> object:
        return a, b

    assert "default" not in parameters(look)["properties"]["a"]
    assert parameters(look)["properties"]["b"]["default"] == "C"
    assert Tool(look).bind('{"b": "F"}')() == (nothing, Unit.F)


def test_any_name_may_be_a_parameter() -> None:
    def look(json: int, model_config: int, _private: int, schema: int = 0) -> int:
        return json + model_config + _private + schema

    assert Tool(look).bind('{"json": 1, "model_config": 2, "_private": 3}')() == 6


def needs_missing(value: object) -> None: ...


needs_missing.__annotations__["value"] = "Missing"  # like an import under TYPE_CHECKING


class Opaque:
    pass


def takes_opaque(value: Opaque) -> None: ...


def takes_many(*values: int) -> None: ...


async def yields_later(count: int) -> AsyncIterator[int]:
    yield count


def takes_twins(a: Annotated[int, Field(alias="c")] = 1, b: Annotated[int, Field(alias="c")] = 2) -> None: ...


def test_a_parameter_is_described_by_its_alias() -> None:
    def add(first: Annotated[int, Field(alias="from")] = 3, second: int = 4) -> int:
        """Adds.

        Args:
            first: Where to begin.
            second: What to add.
        """
        return first + second

    tool = Tool(add)
    assert tool.parameters is not None
    assert tool.parameters["properties"] == {
        "from": {"type": "integer", "description": "Where to begin.", "default": 3},
        "second": {"type": "integer", "description": "What to add.", "default": 4},
    }
    assert tool.bind('{"from": 10}')() == 14
    assert tool.bind("{}")() == 7


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (takes_many, "has *values, but a model passes arguments by name."),
        (lambda: None, "has no name."),
        (Station, "is a class, not a function."),
        (Place, "is a class, not a function."),
        (Station.read, "is an unbound method: its first parameter is self."),
        (
            needs_missing,
            "has annotations that cannot be resolved (NameError: name 'Missing' is not defined).",
        ),
        (takes_opaque, "has no JSON schema: Unable to generate pydantic-core schema for"),
        (max, "has no signature (no signature found for builtin <built-in function max>)."),
        (5, "must be a function, not an int."),
        (yields_later, "is an async generator, which returns no result."),
        (takes_twins, "has two parameters with the same alias."),
    ],
)
def test_functions_that_cannot_be_described_are_rejected(function: Any, rule: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Tool(function)
    [problem] = caught.value.problems
    assert problem.parameter == "function"
    assert problem.rule.startswith(rule)
    assert "locals" not in str(problem)
    if callable(function):
        with pytest.raises(InvalidRequestError) as caught:
            check_vllm({"tools": [get_weather, function]}, stream=False)
        assert [problem.parameter for problem in caught.value.problems] == ["tools[1]"]


def test_a_given_schema_replaces_an_unsupported_signature() -> None:
    def look(value: Opaque) -> Opaque:
        return value

    tool = Tool(look, parameters={"type": "object", "properties": {"value": {}}})
    assert tool.bind('{"value": 5}')() == 5
    with pytest.raises(ValueError, match="not a JSON object"):
        tool.bind("[1]")


# As parameters


def test_functions_can_be_mixed_with_mappings() -> None:
    by_hand: FunctionTool = {"type": "function", "function": {"name": "other"}}
    named = Tool(nothing, name="named")
    for check in (check_vllm, OPENAI_CHAT.check):
        sent = check({"tools": [get_weather, by_hand, named], "tool_choice": "auto"}, stream=False).fields
        assert sent["tools"] == [WEATHER, by_hand, named.definition]
    choice = {"type": "function", "function": {"name": "get_weather"}}
    assert check_vllm({"tools": (get_weather,), "tool_choice": choice}, stream=True).fields["tools"] == [
        WEATHER
    ]
    with pytest.raises(InvalidRequestError, match="must name one of the `tools`"):
        check_vllm({"tools": [nothing], "tool_choice": choice}, stream=False)


@pytest.mark.parametrize("tools", [get_weather, {"type": "function", "function": {"name": "a"}}])
def test_a_single_function_is_not_a_list(tools: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_vllm({"tools": tools}, stream=False)
    [problem] = caught.value.problems
    assert problem.rule.startswith("must be a list of mappings or functions, not a")
    assert problem.suggestion == "Wrap it in [...]."


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_vllm({"tools": [takes_many, lambda: None], "top_k": "5"}, stream=False)
    assert [problem.parameter for problem in caught.value.problems] == ["tools[0]", "tools[1]", "top_k"]


def test_functions_are_not_kept_alive() -> None:
    def look(a: int) -> int:
        return a

    Tool(look)
    gone = weakref.ref(look)
    del look
    gc.collect()
    assert gone() is None


# Arguments and results


@pytest.mark.parametrize(
    "arguments",
    ['{"city": "Paris"}', '{"city": 5, "place": {"city": "Paris"}}', '{"more": 1}', "[]", "{", '{"city"'],
)
def test_invalid_arguments(arguments: str) -> None:
    with pytest.raises(ValidationError):
        Tool(get_weather).bind(arguments)


def test_arguments_are_converted_to_the_annotated_types() -> None:
    result = Tool(get_weather).bind('{"city": "Paris", "place": {"city": "Paris"}, "days": "2"}')()
    assert result == "Paris, France: 2 C {}"


@dataclass
class Reading:
    value: float
    unit: Unit = Unit.C


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("21 C, sunny", "21 C, sunny"),
        ("", ""),
        (None, "null"),
        (21, "21"),
        ([1, "é"], '[1,"é"]'),
        (Place(city="Paris"), '{"city":"Paris","country":"France"}'),
        (Reading(1.5), '{"value":1.5,"unit":"C"}'),
        (float("nan"), '"NaN"'),
        (Opaque(), None),
    ],
)
def test_results_become_text(result: object, text: str | None) -> None:
    assert text_of(result) == text if text is not None else "Opaque" in text_of(result)
