"""Values of replies, on the real server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from vllmchat import OpenAIProvider, StructuredOutputError, VLLMProvider

if TYPE_CHECKING:
    from support.vllm import LiveServer

ADA = "Write JSON for a user named Ada, age 36."
CAPITAL = "What is the capital of France?"


class User(BaseModel):
    name: str
    age: int


@dataclass
class Person:
    name: str
    age: int


class City(StrEnum):
    PARIS = "Paris"
    OSLO = "Oslo"


@pytest.mark.parametrize("thinking", [True, False])
def test_parse(llm: VLLMProvider, thinking: bool) -> None:
    parsed = llm.parse(ADA, User, temperature=0, enable_thinking=thinking)
    assert parsed.value == User(name="Ada", age=36)
    assert (parsed.completion.reasoning is not None) is thinking
    assert llm.parse(ADA, Person, temperature=0, enable_thinking=thinking).value == Person("Ada", 36)


@pytest.mark.anyio
async def test_aparse(allm: VLLMProvider) -> None:
    parsed = await allm.aparse(ADA, dict[str, str | int], temperature=0)
    assert parsed.value == {"name": "Ada", "age": 36}


def test_values_that_are_not_objects(llm: VLLMProvider) -> None:
    """The server constrains the reply to any schema, whatever the model would have said."""
    digit = Annotated[int, Field(ge=1, le=9)]
    assert llm.parse("Count from 1 to 100.", digit, temperature=0, enable_thinking=False).value in range(
        1, 10
    )
    # A list it begins well, but this model does not know how to end one.
    with pytest.raises(StructuredOutputError) as caught:
        llm.parse("Count from 1 to 100.", list[int], temperature=0, enable_thinking=False, max_tokens=8)
    assert caught.value.completion.text.startswith("[")
    assert llm.parse(CAPITAL, Literal["Paris", "Oslo"], temperature=0, enable_thinking=False).value in (
        "Paris",
        "Oslo",
    )
    assert llm.parse("Hello", bool, temperature=0, enable_thinking=False).value in (True, False)


def test_types_as_parameters(llm: VLLMProvider) -> None:
    for reply in (
        llm.chat(ADA, response_format=User, temperature=0),
        llm.chat(ADA, structured_outputs={"json": User}, temperature=0),
    ):
        assert User.model_validate_json(reply.text) == User(name="Ada", age=36)


def test_other_servers_protocol(vllm_server: LiveServer) -> None:
    with OpenAIProvider(vllm_server.model, base_url=vllm_server.base_url) as llm:
        assert llm.parse(ADA, User, temperature=0).value == User(name="Ada", age=36)
        assert llm.choose(CAPITAL, City, temperature=0) in list(City)


def test_a_reply_that_is_cut(llm: VLLMProvider) -> None:
    with pytest.raises(StructuredOutputError) as caught:
        llm.parse(ADA, User, temperature=0, enable_thinking=False, max_tokens=4)
    assert caught.value.reason == "truncated"
    assert caught.value.completion.finish_reason == "length"


def test_stream_parse(llm: VLLMProvider) -> None:
    with llm.stream_parse(ADA, User, temperature=0) as stream:
        values = list(stream)
    assert {"name": "Ada"} in [value.data for value in values]
    assert values[-1].complete
    assert values[-1].value == stream.until_done().value == User(name="Ada", age=36)
    assert stream.completion.usage is not None


@pytest.mark.anyio
async def test_astream_parse(allm: VLLMProvider) -> None:
    async with allm.astream_parse(ADA, User, temperature=0) as stream:
        values = [value async for value in stream]
    assert values[-1].value == (await stream.until_done()).value == User(name="Ada", age=36)


@pytest.mark.parametrize("thinking", [True, False])
def test_choose(llm: VLLMProvider, thinking: bool) -> None:
    assert llm.choose(CAPITAL, City, temperature=0, enable_thinking=thinking) in list(City)
    assert llm.choose(CAPITAL, ["Paris", "Oslo"], temperature=0, enable_thinking=thinking) in (
        "Paris",
        "Oslo",
    )


@pytest.mark.anyio
async def test_achoose(allm: VLLMProvider) -> None:
    assert await allm.achoose(CAPITAL, Literal["Paris", "Oslo"], temperature=0) in ("Paris", "Oslo")
