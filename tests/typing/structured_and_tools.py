"""What type checkers say of types as formats, of values, and of functions as tools: read, never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, assert_type

from pydantic import BaseModel
from typing_extensions import TypedDict

from vllmchat import (
    Parsed,
    ParseStream,
    RunEvent,
    Tool,
    ToolRun,
    arun_tools,
    astream_run_tools,
    run_tools,
    stream_run_tools,
)

if TYPE_CHECKING:
    from vllmchat import (
        AsyncToolRunStream,
        FunctionTool,
        OpenAIProvider,
        Provider,
        ToolCall,
        ToolRunStream,
        VLLMProvider,
    )


class User(BaseModel):
    name: str


@dataclass
class Point:
    x: int


class Film(TypedDict):
    title: str


class City(StrEnum):
    PARIS = "Paris"


def look(city: str) -> str:
    return city


async def alook(city: str) -> str:
    return city


def formats(llm: VLLMProvider, other: OpenAIProvider, any_of_them: Provider) -> None:
    llm.chat("Hi", response_format=User)
    llm.chat("Hi", response_format=Point)
    llm.chat("Hi", response_format=Film)
    llm.chat("Hi", response_format=list[User])
    llm.chat("Hi", response_format=Literal["a", "b"])
    llm.chat("Hi", response_format=int | None)
    llm.chat("Hi", response_format={"type": "json_object"})
    llm.chat("Hi", structured_outputs={"json": User})
    llm.chat("Hi", structured_outputs={"json": {"type": "object"}})
    other.stream("Hi", response_format=User)
    any_of_them.chat("Hi", response_format=User)
    llm.chat("Hi", response_format="json")  # type: ignore[arg-type]
    llm.chat("Hi", response_format=User(name="Ada"))  # type: ignore[arg-type]
    llm.chat("Hi", structured_outputs={"json": 5})  # type: ignore[arg-type]


async def values(llm: VLLMProvider, other: OpenAIProvider) -> None:
    assert_type(llm.parse("Hi", User), Parsed[User])
    assert_type(llm.parse("Hi", Point, top_k=5).value, Point)
    assert_type(other.parse("Hi", Film).value, Film)
    assert_type(await llm.aparse("Hi", list[int]), Parsed[list[int]])
    assert_type((await other.aparse("Hi", int | None)).value, int | None)
    assert_type(llm.parse("Hi", Literal["a", "b"]).value, Literal["a", "b"])
    assert_type(llm.stream_parse("Hi", User), ParseStream[User])
    with llm.stream_parse("Hi", User) as stream:
        for partial in stream:
            assert_type(partial.value, User | None)
            assert_type(partial.data, object)
        assert_type(stream.until_done().value, User)
    async with other.astream_parse("Hi", User) as astream:
        async for partial in astream:
            assert_type(partial.value, User | None)
        assert_type((await astream.until_done()).value, User)
    llm.parse("Hi", User, temprature=0)  # type: ignore[call-arg]
    other.parse("Hi", User, top_k=5)  # type: ignore[call-arg]


async def choices(llm: VLLMProvider, other: OpenAIProvider, words: list[str]) -> None:
    assert_type(llm.choose("Hi", City), City)
    assert_type(await other.achoose("Hi", list(City)), City)
    assert_type(llm.choose("Hi", words), str)
    assert_type(await llm.achoose("Hi", Literal["a", "b"]), Literal["a", "b"])
    llm.choose("Hi", [1, 2])  # type: ignore[type-var]


async def tools(
    llm: VLLMProvider, other: OpenAIProvider, any_of_them: Provider, by_hand: FunctionTool
) -> None:
    llm.chat("Hi", tools=[look, alook, by_hand, Tool(look, name="other")])
    other.chat("Hi", tools=[look, {"type": "custom", "custom": {"name": "c"}}])
    any_of_them.chat("Hi", tools=[look])
    llm.chat("Hi", tools=[5])  # type: ignore[list-item]

    def hook(call: ToolCall, error: Exception) -> None: ...

    assert_type(llm.run_tools("Hi", tools=[look], max_turns=3, on_tool_error=hook, top_k=5), ToolRun)
    assert_type(await other.arun_tools("Hi", tools=[alook]), ToolRun)
    assert_type(run_tools(any_of_them, "Hi", tools=[look], temperature=0), ToolRun)
    assert_type(await arun_tools(any_of_them, "Hi", tools=[look]), ToolRun)
    stream: ToolRunStream = stream_run_tools(any_of_them, "Hi", tools=[look])
    astream: AsyncToolRunStream = astream_run_tools(any_of_them, "Hi", tools=[look])
    for event in stream:
        assert_type(event, RunEvent)
    async for event in astream:
        assert_type(event, RunEvent)
    run_tools(any_of_them, "Hi", tools=[look], top_k=5)  # type: ignore[call-arg]
    llm.run_tools("Hi", tools=look)  # type: ignore[arg-type]
