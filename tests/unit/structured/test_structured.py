"""Types as schemas, and replies as values: complete, partial, chosen."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, cast

import pytest
import typing_extensions
from hypothesis import given, strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from support.chats import chunks, completion
from vllmchat import (
    ChatCompletion,
    InvalidRequestError,
    OpenAIProvider,
    Parsed,
    PartialValue,
    StreamError,
    StreamInterruptedError,
    StructuredOutputError,
    VLLMProvider,
)
from vllmchat.chat.check import OPENAI_CHAT, check_vllm
from vllmchat.schemas.types import SchemaError, adapter_of, is_type, name_of
from vllmchat.structured.choices import Choices
from vllmchat.structured.output_type import OutputType
from vllmchat.structured.stream import PartialReader
from vllmchat.testing import FakeServer, ScriptedProvider, drop, reply as scripted_reply, stall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

Object = dict[str, Any]


class User(BaseModel):
    name: str
    age: int


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Film(typing_extensions.TypedDict):
    title: str
    year: typing_extensions.NotRequired[int]


class Tree(BaseModel):
    label: str
    children: list[Tree] = []


class City(StrEnum):
    PARIS = "Paris"
    OSLO = "Oslo"


class Answer(str, Enum):  # noqa: UP042 - its str() is not its value
    YES = "yes"
    NO = "no"


class Opaque:
    pass


Id = NewType("Id", int)
Word = typing_extensions.TypeAliasType("Word", Literal["a", "b"])

USER_SCHEMA = {
    "properties": {"name": {"title": "Name", "type": "string"}, "age": {"title": "Age", "type": "integer"}},
    "required": ["name", "age"],
    "title": "User",
    "type": "object",
}


# Types as parameters


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (User, "User"),
        (Point, "Point"),
        (Film, "Film"),
        (list[User], "list_User"),
        (dict[str, int], "dict_str_int"),
        (Literal["a", "b"], "Literal_a_b"),
        (int | None, "int_None"),
        (Annotated[int, Field(ge=1)], None),
        (Annotated[list[int], ["not hashable"]], None),
        (Id, "Id"),
        (Word, "Word"),
        (City, "City"),
        (int, "int"),
        (Any, "Any"),
    ],
)
def test_a_type_is_sent_as_its_schema(kind: Any, name: str | None) -> None:
    schema = TypeAdapter(kind).json_schema()
    for check in (check_vllm, OPENAI_CHAT.check):
        for stream in (True, False):
            sent: Any = check({"response_format": kind}, stream=stream).fields["response_format"]
            assert sent["type"] == "json_schema"
            assert sent["json_schema"]["schema"] == schema
            written = sent["json_schema"]["name"]
            assert written == (name or written)
            assert written.isascii()
            assert 1 <= len(written) <= 64
    outputs: Any = check_vllm({"structured_outputs": {"json": kind}}, stream=False).fields
    assert outputs == {"structured_outputs": {"json": schema}}


def test_other_keys_are_kept() -> None:
    given = {"json": User, "disable_any_whitespace": True}
    sent = check_vllm({"structured_outputs": given}, stream=False).fields["structured_outputs"]
    assert sent == {"json": USER_SCHEMA, "disable_any_whitespace": True}
    assert given["json"] is User


@pytest.mark.parametrize("value", ["{}", {"type": "object"}])
def test_schemas_are_sent_unchanged(value: object) -> None:
    sent: Any = check_vllm({"structured_outputs": {"json": value}}, stream=False).fields
    assert sent["structured_outputs"]["json"] is value


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Opaque, "has no JSON schema: Unable to generate pydantic-core schema for"),
        (
            Callable[[int], int],
            "has no JSON schema: Cannot generate a JsonSchema for core_schema.CallableSchema",
        ),
    ],
)
def test_a_type_without_a_schema_is_rejected(kind: object, rule: str) -> None:
    for params, path in (
        ({"response_format": kind}, "response_format"),
        ({"structured_outputs": {"json": kind}}, "structured_outputs.json"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            check_vllm(params, stream=False)
        [problem] = caught.value.problems
        assert problem.parameter == path
        assert problem.rule.startswith(rule)
    with pytest.raises(InvalidRequestError, match=r"kind=.*has no JSON schema"):
        VLLMProvider("m").parse("Hi", cast("type[object]", kind))


@pytest.mark.parametrize("value", [User(name="A", age=1), 5, "User", [User]])
def test_values_that_are_not_types_are_rejected(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="must be a mapping or a type") as caught:
        check_vllm({"response_format": value}, stream=False)
    if isinstance(value, User):
        assert caught.value.problems[0].suggestion == "Pass the class itself: User."


def test_types_are_distinguished_from_values() -> None:
    assert all(map(is_type, [int, list[int], Literal["a"], int | None, Id, Word, Any, User]))
    assert not any(map(is_type, [1, "int", {"type": "object"}, User(name="A", age=1), None, print]))


def test_schemas_are_cached() -> None:
    assert adapter_of(list[User]) is adapter_of(list[User])
    with pytest.raises(SchemaError):
        adapter_of(Opaque)


def test_a_local_type_has_a_plain_name() -> None:
    class Inner(BaseModel):
        a: int

    assert name_of(Inner) == "Inner"
    assert name_of(list[Inner]) == "list_Inner"
    assert name_of(Literal["é"]) == "Literal"
    assert name_of(Literal["-" * 100]) == "Literal_" + "-" * 56


# parse


def reply(text: str, finish: str = "stop", **message: Any) -> Object:
    made = completion(text)
    made["choices"][0]["finish_reason"] = finish
    made["choices"][0]["message"].update(message)
    return made


@pytest.fixture
def llm() -> Iterator[ScriptedProvider]:
    provider = ScriptedProvider(version="0.32.0")
    yield provider
    provider.assert_done()


@pytest.fixture
def other(scripted: ScriptedServer) -> OpenAIProvider:
    return OpenAIProvider("m", base_url=scripted.base_url)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (User, '{"name": "Ada", "age": 36}', User(name="Ada", age=36)),
        (Point, ' {"x": 1}\n', Point(1)),
        (Film, '{"title": "M"}', {"title": "M"}),
        (list[int], "[1, 2]", [1, 2]),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (Literal["a", "b"], '"a"', "a"),
        (int | None, "null", None),
        (datetime.date, '"2026-11-23"', datetime.date(2026, 11, 23)),
        (City, '"Oslo"', City.OSLO),
    ],
)
def test_parse(kind: Any, text: str, value: object, runner: Runner, llm: ScriptedProvider) -> None:
    llm.answer(text)
    parsed: Parsed[object] = runner.do(llm, "parse", "Hi", kind, temperature=0)
    assert type(parsed) is Parsed
    assert parsed.value == value
    assert parsed.completion.message.content == text
    params = llm.calls[0].params
    assert params["temperature"] == 0
    sent: Any = params["response_format"]
    assert sent["json_schema"]["schema"] == TypeAdapter(kind).json_schema()


def test_other_servers_accept_only_objects(
    scripted: ScriptedServer, runner: Runner, other: OpenAIProvider
) -> None:
    scripted.reply(reply('{"name": "Ada", "age": 36}'))
    assert runner.do(other, "parse", "Hi", User).value == User(name="Ada", age=36)
    sent: Any = scripted.requests[-1].json()["response_format"]
    assert sent["json_schema"] == {"name": "User", "schema": USER_SCHEMA}
    scripted.reply(reply('{"value": [{"name": "Ada", "age": 36}]}'))
    assert runner.do(other, "parse", "Hi", list[User]).value == [User(name="Ada", age=36)]
    sent = scripted.requests[-1].json()["response_format"]
    assert sent["json_schema"]["schema"] == {
        "type": "object",
        "properties": {"value": {"items": {"$ref": "#/$defs/User"}, "type": "array"}},
        "required": ["value"],
        "additionalProperties": False,
        "$defs": {"User": USER_SCHEMA},
    }


@pytest.mark.parametrize("text", ["[1]", '{"values": [1]}', "nothing", '{"value": ["a"]}'])
def test_other_servers_may_not_enforce_the_schema(
    text: str, scripted: ScriptedServer, other: OpenAIProvider
) -> None:
    scripted.reply(reply(text))
    with pytest.raises(StructuredOutputError, match=r"is not a valid list\[int\]") as caught:
        other.parse("Hi", list[int])
    assert caught.value.reason == "mismatch"


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (
            reply('{"name": "A', "length"),
            "truncated",
            'a complete User (finish reason \'length\'): raise max_tokens; it is: {"name": "A',
        ),
        (
            reply("", "abort"),
            "truncated",
            "the reply was truncated before it was a complete User (finish reason 'abort'); it has no",
        ),
        (reply("", "stop", refusal="I will not."), "refused", "the model refused: I will not."),
        (reply("{", "content_filter"), "refused", "the model refused (finish reason 'content_filter')"),
        (
            reply('{"name": "Ada"}'),
            "mismatch",
            'the reply is not a valid User (age: Field required); it is: {"name": "Ada"}',
        ),
        (reply("Ada" * 100), "mismatch", "it starts with: AdaAda"),
        (reply("", reasoning="Hm."), "mismatch", "it has no text, only reasoning"),
        (
            reply(
                "", "tool_calls", tool_calls=[{"id": "c", "function": {"name": "look", "arguments": "{}"}}]
            ),
            "mismatch",
            "the reply is a tool call: the model called look",
        ),
    ],
)
def test_a_reply_that_is_not_a_value(
    answer: Object, reason: str, message: str, runner: Runner, llm: ScriptedProvider
) -> None:
    llm.answer(ChatCompletion.model_validate(answer))
    with pytest.raises(StructuredOutputError) as caught:
        runner.do(llm, "parse", "Hi", User)
    error = caught.value
    assert error.reason == reason
    assert message in str(error)
    assert error.completion is error.partial
    assert error.completion.text == answer["choices"][0]["message"]["content"]
    assert isinstance(error.__cause__, ValidationError) is (reason == "mismatch")


@pytest.mark.parametrize("method", ["parse", "stream_parse"])
@pytest.mark.parametrize(
    ("params", "parameter"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"n": 2}, "n"),
        ({"top_k": "5"}, "top_k"),
    ],
)
def test_contradicting_parameters_are_rejected(
    method: str, params: Object, parameter: str, llm: VLLMProvider
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        getattr(llm, method)("Hi", User, **params)
    assert [problem.parameter for problem in caught.value.problems] == [parameter]


# stream_parse

PIECES = ['{"na', 'me": "A', "da", '", "ag', 'e": 3', "6", "}"]
GROWING: list[object] = [{}, {"name": "A"}, {"name": "Ada"}, {"name": "Ada", "age": 36}]


def test_partial_values(runner: Runner, llm: ScriptedProvider) -> None:
    llm.answer(scripted_reply(pieces=PIECES))
    with runner.open(llm, "stream_parse", "Hi", User, temperature=0) as stream:
        values = cast("list[PartialValue[User]]", list(stream))
        assert [each.data for each in values] == [*GROWING, GROWING[-1]]
        assert [each.complete for each in values] == [False] * 4 + [True]
        assert [each.value for each in values] == [None] * 3 + [User(name="Ada", age=36)] * 2
        assert values[0].value is None
        assert repr(values[-1]) == "PartialValue({'name': 'Ada', 'age': 36}, complete=True)"
        assert stream.completion.text == '{"name": "Ada", "age": 36}'
        done = cast("Parsed[User]", stream.until_done())
    assert done.value == User(name="Ada", age=36)
    [call] = llm.calls
    assert call.stream
    sent: Any = call.params["response_format"]
    assert sent["json_schema"]["schema"] == USER_SCHEMA


def test_partial_values_of_other_types(
    scripted: ScriptedServer, runner: Runner, llm: ScriptedProvider, other: OpenAIProvider
) -> None:
    llm.answer(scripted_reply(pieces=["[1", "0, 2", "]"]))
    stream = runner.open(llm, "stream_parse", "Hi", list[int])
    assert [cast("Any", each).data for each in stream] == [[], [10], [10, 2], [10, 2]]
    scripted.stream(chunks('{"val', 'ue": [1', "0, 2", "]}"))
    stream = runner.open(other, "stream_parse", "Hi", list[int])
    assert [cast("Any", each).data for each in stream] == [[], [10], [10, 2], [10, 2]]


def test_until_done_reads_the_rest(runner: Runner, llm: ScriptedProvider) -> None:
    llm.answer(scripted_reply(pieces=PIECES))
    stream = runner.open(llm, "stream_parse", "Hi", User)
    assert cast("Any", stream.until_done()).value == User(name="Ada", age=36)
    with pytest.raises(StreamError, match="only once"):
        iter(stream)


def test_an_invalid_reply_raises_at_the_end_of_the_stream(runner: Runner, llm: ScriptedProvider) -> None:
    llm.answer(scripted_reply(pieces=['{"name": "Ada"'], finish_reason="length"))
    stream = runner.open(llm, "stream_parse", "Hi", User)
    assert cast("Any", next(stream)).data == {"name": "Ada"}
    with pytest.raises(StructuredOutputError) as caught:
        next(stream)
    assert caught.value.reason == "truncated"
    assert caught.value.completion.text == '{"name": "Ada"'
    with pytest.raises(StopIteration):
        next(stream)
    with pytest.raises(StreamError):
        stream.until_done()


def test_an_interrupted_stream_raises(runner: Runner, llm: ScriptedProvider) -> None:
    llm.answer(drop(scripted_reply(pieces=['{"name": "Ada"']), after=2))
    stream = runner.open(llm, "stream_parse", "Hi", User)
    next(stream)
    with pytest.raises(StreamInterruptedError):
        next(stream)


def test_a_stream_can_be_left_early(fake_vllm: FakeServer, runner: Runner) -> None:
    fake_vllm.answer(stall(scripted_reply(pieces=['{"name": "Ada"', "}"]), after=2))
    with runner.open(VLLMProvider("m"), "stream_parse", "Hi", User) as stream:
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)
    fake_vllm.wait_abandoned()


def shape(kind: Any) -> OutputType[Any]:
    return OutputType(kind, wrap=False)


def grown(kind: Any, *pieces: str) -> list[tuple[object, object]]:
    reader = PartialReader(shape(kind))
    values = [value for piece in pieces if (value := reader.feed(piece)) is not None]
    return [(value.data, value.value) for value in values]


def test_an_incomplete_end_is_left_out_of_the_value() -> None:
    first = User(name="A", age=1)
    assert grown(list[User], '[{"name": "A", "age": 1}', ', {"name": "B', '", "age": 2}') == [
        ([{"name": "A", "age": 1}], [first]),
        ([{"name": "A", "age": 1}, {"name": "B"}], [first]),
        ([{"name": "A", "age": 1}, {"name": "B", "age": 2}], [first, User(name="B", age=2)]),
    ]
    assert grown(Tree, '{"label": "a", "children": [{"label": "b"}, {"chil') == [
        (
            {"label": "a", "children": [{"label": "b"}, {}]},
            Tree(label="a", children=[Tree(label="b")]),
        )
    ]
    assert grown(Film, '{"year": 1931, "title": "M') == [
        ({"year": 1931, "title": "M"}, {"year": 1931, "title": "M"})
    ]
    assert grown(Literal["one", "two"], '"o', "n", 'e"') == [("o", None), ("on", None), ("one", "one")]
    assert grown(User, "no JSON") == []


def test_digits_in_a_string_are_not_a_number() -> None:
    assert grown(list[str], '["a 1', "2") == [(["a 1"], ["a 1"]), (["a 12"], ["a 12"])]
    assert grown(list[str], '["a\\"1') == [(['a"1'], ['a"1'])]
    assert grown(list[float], "[1.5", "e3", " ") == [([], []), ([1500.0], [1500.0])]


def test_a_partial_value_is_computed_once() -> None:
    made: list[object] = []

    class Counted(BaseModel):
        a: str

        @model_validator(mode="after")
        def count(self) -> Counted:
            made.append(self)
            return self

    reader = PartialReader(shape(Counted))
    value = reader.feed('{"a": "x')
    assert value is not None
    assert made == []
    assert value.value is value.value
    assert len(made) == 1


def test_a_long_text_is_not_parsed_again_for_each_piece() -> None:
    reader = PartialReader(shape(list[str]))
    values = [reader.feed(piece) for piece in ['["', *["x"] * 4000]]
    assert 900 < sum(value is not None for value in values) < 1400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.booleans(), st.integers(1, 7))
def test_partial_parsing_ends_with_the_whole_json(value: object, ascii_only: bool, size: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    reader = PartialReader(shape(Any))
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    last = reader.finish(ChatCompletion.model_validate(reply(text)))
    assert last.complete
    assert last.value == value


# choose


@pytest.mark.parametrize(
    ("options", "text", "chosen"),
    [
        (["Paris", "Oslo"], "Oslo", "Oslo"),
        (("Paris", "Oslo"), "\nOslo ", "Oslo"),
        (Literal["Paris", "Oslo"], "Paris", "Paris"),
        (Word, "b", "b"),
        (City, "Oslo", City.OSLO),
        (list(City), "Paris", City.PARIS),
        (Answer, "no", Answer.NO),
        (["a", "ab"], "ab", "ab"),
        ([" a", "a"], " a", " a"),
    ],
)
def test_choose(
    options: Any,
    text: str,
    chosen: str,
    scripted: ScriptedServer,
    runner: Runner,
    llm: ScriptedProvider,
    other: OpenAIProvider,
) -> None:
    names = Choices(options).names
    llm.answer(text)
    answer = runner.do(llm, "choose", "Where?", options, temperature=0)
    assert answer == chosen
    assert type(answer) is type(chosen)
    params = llm.calls[0].params
    assert params["structured_outputs"] == {"choice": names}
    assert params["temperature"] == 0
    # OpenAI's API only has schemas.
    name = chosen.value if isinstance(chosen, Enum) else chosen
    scripted.reply(reply(json.dumps({"value": name})))
    answer = runner.do(other, "choose", "Where?", options)
    assert answer == chosen
    assert type(answer) is type(chosen)
    sent: Any = scripted.requests[-1].json()["response_format"]
    assert sent["json_schema"]["schema"]["properties"]["value"] == {"enum": names, "type": "string"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply("Rome"), "mismatch"),
        (reply("Os", "length"), "truncated"),
        (reply("", refusal="No."), "refused"),
        (reply("New York", "length"), "truncated"),  # it could have become New York City
    ],
)
def test_a_reply_that_is_not_an_option(
    answer: Object, reason: str, runner: Runner, llm: ScriptedProvider
) -> None:
    llm.answer(ChatCompletion.model_validate(answer))
    with pytest.raises(StructuredOutputError) as caught:
        runner.do(llm, "choose", "Where?", ["Oslo", "New York", "New York City"])
    assert caught.value.reason == reason
    if reason == "mismatch":
        assert "is not one of 'Oslo', 'New York', 'New York City'; it is: Rome" in str(caught.value)


def test_a_complete_option_is_not_truncated(llm: ScriptedProvider) -> None:
    llm.answer(scripted_reply("New York City", finish_reason="length"))
    assert llm.choose("Where?", ["Oslo", "New York", "New York City"]) == "New York City"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ([], "must not be empty."),
        ("yes", "must be a list of strings, a Literal or an enum, not a str."),
        (int, "must be a list of strings, a Literal or an enum, not int."),
        ([1, 2], "must be strings; 1 is an int."),
        (Literal["a", 1], "must be strings; 1 is an int."),
    ],
)
def test_invalid_options_are_rejected(
    options: Any, rule: str, llm: VLLMProvider, other: OpenAIProvider
) -> None:
    for provider in (llm, other):
        with pytest.raises(InvalidRequestError) as caught:
            provider.choose("Where?", options)
        assert [problem.rule for problem in caught.value.problems] == [rule]
    with pytest.raises(InvalidRequestError, match="is set by this method"):
        llm.choose("Where?", ["a"], structured_outputs={"regex": "a"})


@pytest.mark.parametrize("cls", [VLLMProvider, OpenAIProvider])
def test_problems_of_messages_and_parameters_are_reported_together(
    cls: type[VLLMProvider | OpenAIProvider], runner: Runner
) -> None:
    llm = cls("m", base_url="http://localhost:1")
    wrong: Any = {"topk": 5, "n": 0, "response_format": {"type": "text"}}
    for method, kind in (("parse", int), ("choose", ["a", "b"])):
        with pytest.raises(InvalidRequestError) as caught:
            runner.do(llm, method, [{"role": 5}], kind, **wrong)
        found = [problem.parameter for problem in caught.value.problems]
        assert found == ["messages[0].role", "response_format", "n", "topk"]
