"""Functions as tools, and runs to the answer, on the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from vllmchat import (
    Finished,
    MaxTurnsError,
    OpenAIProvider,
    TextDelta,
    ToolCallDone,
    ToolResult,
    VLLMProvider,
    arun_tools,
    run_tools,
)

if TYPE_CHECKING:
    from support.vllm import LiveServer

OSLO = "What is the weather in Oslo?"
PARIS = "What is the weather in Paris?"
BOTH = "Compare the weather in Paris and Oslo."
TOLD = {"Paris": "21 C, sunny", "Oslo": "4 C, rain"}
ANSWERS = {PARIS: "It is 21 C and sunny in Paris.", OSLO: "It is 4 C with rain in Oslo."}


def get_weather(city: str) -> str:
    """Current weather in a city.

    Args:
        city: The city.
    """
    return TOLD[city]


async def aget_weather(city: str) -> str:
    """Current weather in a city."""
    await anyio.lowlevel.checkpoint()
    return TOLD[city]


aget_weather.__name__ = "get_weather"


def test_the_dialogues_are_these(llm: VLLMProvider) -> None:
    reply = llm.chat(PARIS, tools=[get_weather], temperature=0)
    assert [(call.name, call.parse()) for call in reply.tool_calls] == [("get_weather", {"city": "Paris"})]


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("question", ANSWERS)
def test_run_tools(question: str, thinking: bool, llm: VLLMProvider) -> None:
    run = llm.run_tools(question, tools=[get_weather], temperature=0, enable_thinking=thinking)
    # After reasoning, a reply begins with a blank line.
    assert run.text.strip() == ANSWERS[question]
    [result] = run.results
    assert result.value in TOLD.values()
    assert len(run.turns) == 2
    assert all((turn.completion.reasoning is not None) is thinking for turn in run.turns)
    assert run.usage is not None
    assert run.usage.total_tokens == sum(turn.usage.total_tokens for turn in run.turns if turn.usage)


@pytest.mark.anyio
async def test_arun_tools(allm: VLLMProvider) -> None:
    for tool in (get_weather, aget_weather):
        run = await allm.arun_tools(PARIS, tools=[tool], temperature=0)
        assert run.text.strip() == ANSWERS[PARIS]


def test_two_calls_at_once(llm: VLLMProvider) -> None:
    run = llm.run_tools(BOTH, tools=[get_weather], temperature=0)
    assert [result.value for result in run.turns[0].results] == list(TOLD.values())
    assert run.text


def test_a_run_can_be_forced_and_goes_on(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    run = llm.run_tools(
        PARIS,
        tools=[get_weather],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        temperature=0,
        enable_thinking=False,
    )
    assert [result.call.name for result in run.results] == ["get_weather"]
    assert run.text
    if vllm_server.since(
        "0.25"
    ):  # before, the tiny model is not constrained to the arguments it has memorized
        assert run.text.strip() == ANSWERS[PARIS]


def test_a_run_that_stops_can_be_taken_up(llm: VLLMProvider) -> None:
    with pytest.raises(MaxTurnsError) as caught:
        llm.run_tools(OSLO, tools=[get_weather], temperature=0, max_turns=1)
    run = llm.run_tools(caught.value.messages, tools=[get_weather], temperature=0)
    assert run.text.strip() == ANSWERS[OSLO]


def test_stream_run_tools(llm: VLLMProvider) -> None:
    with llm.stream_run_tools(PARIS, tools=[get_weather], temperature=0) as run:
        events = list(run)
    kinds = [type(event) for event in events if isinstance(event, ToolCallDone | Finished | ToolResult)]
    assert kinds == [ToolCallDone, Finished, ToolResult, Finished]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text.strip() == run.until_done().text.strip() == ANSWERS[PARIS]


@pytest.mark.anyio
async def test_astream_run_tools(allm: VLLMProvider) -> None:
    async with allm.astream_run_tools(PARIS, tools=[aget_weather], temperature=0) as run:
        results = [event.value async for event in run if isinstance(event, ToolResult)]
    assert results == [TOLD["Paris"]]
    assert (await run.until_done()).text.strip() == ANSWERS[PARIS]


@pytest.mark.anyio
async def test_any_provider(vllm_server: LiveServer) -> None:
    async with OpenAIProvider(vllm_server.model, base_url=vllm_server.base_url) as llm:
        run = await arun_tools(llm, PARIS, tools=[get_weather], temperature=0)
        assert run.text.strip() == ANSWERS[PARIS]
        with llm:
            run = run_tools(llm, PARIS, tools=[get_weather], temperature=0)
        assert run.text.strip() == ANSWERS[PARIS]
