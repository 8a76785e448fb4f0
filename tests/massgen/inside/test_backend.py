"""The backend as MassGen uses it, including everything that its own vLLM backend gets wrong."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from massgen.backend.base import LLMBackend, StreamChunk
from massgen.backend.chat_completions import ChatCompletionsBackend

from support.fake_vllm import QUESTION, WORKFLOW, FakeVLLM, collected, events, kinds, only, refusal, says
from support.scripted import (
    Gate,
    ScriptedServer,
    in_thread,
    never,
    refusing_origin,
    reset,
    script,
    stream,
)
from vllmchat.adapters.massgen import VLLMBackend, context
from vllmchat.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

pytestmark = pytest.mark.anyio

OVERFLOW = (
    "This model's maximum context length is 2048 tokens. However, you requested 3000 output tokens and your prompt "
    "contains at least 100 input tokens"
)


# What it is


def test_it_is_a_massgen_backend(backend: VLLMBackend) -> None:
    assert isinstance(backend, LLMBackend)
    assert isinstance(backend, ChatCompletionsBackend)
    assert backend.get_provider_name() == "vLLM"
    assert backend.get_supported_builtin_tools() == []


def test_the_key_comes_from_the_block_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VLLMBackend(model="m").api_key == "EMPTY"
    monkeypatch.setenv("VLLM_API_KEY", "from-environment")
    assert VLLMBackend(model="m").api_key == "from-environment"
    assert VLLMBackend(model="m", api_key="from-block").api_key == "from-block"


def test_the_url_comes_from_the_block_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VLLMBackend(model="m").config["base_url"] == "http://localhost:8000/v1"
    monkeypatch.setenv("VLLM_BASE_URL", "http://gpu:8000/v1")
    assert VLLMBackend(model="m").config["base_url"] == "http://gpu:8000/v1"
    assert VLLMBackend(model="m", base_url="http://other/v1").config["base_url"] == "http://other/v1"


def test_a_bad_block_is_rejected_at_once() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        VLLMBackend(model="m", base_url="localhost:8000", topk=5)
    assert {problem.parameter for problem in caught.value.problems} == {"base_url", "topk"}


# The order of a turn


async def test_reasoning_then_text(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.next(says(reasoning="Six sevens.", text="42"))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["reasoning", "reasoning_done", "content", "complete_message", "done"]
    reasoning = [chunk for chunk in chunks if chunk.type == "reasoning"]
    assert "".join(chunk.reasoning_delta or "" for chunk in reasoning) == "Six sevens."
    assert only(chunks, "complete_message").complete_message == {"role": "assistant", "content": "42"}


@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
async def test_reasoning_then_a_call_whatever_the_finish_reason(
    backend: VLLMBackend, fake_vllm: FakeVLLM, finish: str
) -> None:
    fake_vllm.next(says(reasoning="I know.", calls=[("new_answer", '{"content": "42"}')], finish=finish))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["reasoning", "reasoning_done", "tool_calls", "complete_message", "done"]
    (call,) = only(chunks, "tool_calls").tool_calls or [{}]
    assert call["function"] == {"name": "new_answer", "arguments": '{"content": "42"}'}
    message = only(chunks, "complete_message").complete_message
    assert message is not None
    assert message["tool_calls"] == [call]


async def test_each_chunk_may_be_pulled_in_a_separate_task(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    # So does MassGen's orchestrator. A cancel scope around a `yield` would break here.
    fake_vllm.next(says(reasoning="Six sevens.", text="42", calls=[("vote", "{}")]))
    chunks = backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")
    pulled: list[str] = []
    while (chunk := await asyncio.create_task(_pull(chunks))) is not None:
        pulled.append(chunk.type)
    assert pulled[-1] == "done"


async def _pull(chunks: Any) -> Any:
    return await anext(chunks, None)


# Replies that must not be acted on


async def test_a_cut_call_is_reported_and_the_model_learns_of_it(
    backend: VLLMBackend, fake_vllm: FakeVLLM
) -> None:
    fake_vllm.next(says(text="So: ", calls=[("new_answer", '{"content": "4')], finish="length"))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["content", "error", "complete_message", "done"]
    error = only(chunks, "error")
    assert error.status is None  # MassGen retries.
    assert error.error is not None
    assert "was truncated" in error.error
    assert "max_tokens" in error.error
    # MassGen shows this buffer to the model when it retries.
    assert error.error in (backend._get_streaming_buffer() or "")


async def test_a_cut_call_of_a_custom_tool_is_not_executed(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    fake_vllm.next(says(calls=[("custom_tool__two_num_tool", '{"x": 6, "y": 7')], finish="length"))
    chunks = await collected(calculating.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert len(fake_vllm.chats) == 1
    assert "custom_tool_status" not in kinds(chunks)
    assert "error" in kinds(chunks)


BROKEN = {
    "no closing brace": '{"content": "42"',
    "no closing quote": '{"content": "42',
    "encoded twice": '"{\\"content\\": \\"42\\"}"',
}
"""Arguments that MassGen repairs."""


@pytest.mark.parametrize("arguments", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
async def test_arguments_that_massgen_repairs_are_repaired(
    backend: VLLMBackend, fake_vllm: FakeVLLM, arguments: str, finish: str
) -> None:
    fake_vllm.next(says(calls=[("new_answer", arguments)], finish=finish))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["tool_calls", "complete_message", "done"]
    (call,) = only(chunks, "tool_calls").tool_calls or [{}]
    assert call["function"] == {"name": "new_answer", "arguments": '{"content": "42"}'}
    message = only(chunks, "complete_message").complete_message
    assert message is not None
    assert message["tool_calls"] == [call]


async def test_right_arguments_stay_as_the_model_wrote_them(
    backend: VLLMBackend, fake_vllm: FakeVLLM
) -> None:
    fake_vllm.next(says(calls=[("new_answer", '{"content":   "42"}')]))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    (call,) = only(chunks, "tool_calls").tool_calls or [{}]
    assert call["function"]["arguments"] == '{"content":   "42"}'


@pytest.mark.parametrize("arguments", ['{"content": "42",}', '{"content": "4\n2"}', "42", "[" * 5000])
async def test_a_workflow_call_beyond_repair_is_not_taken_for_an_empty_one(
    backend: VLLMBackend, fake_vllm: FakeVLLM, arguments: str
) -> None:
    fake_vllm.next(says(calls=[("new_answer", arguments)]))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["error", "done"]
    error = only(chunks, "error")
    assert error.status is None  # MassGen retries.
    assert error.error is not None
    for part in ("'new_answer'", "not a JSON object", arguments[:2], "not executed"):
        assert part in error.error
    assert error.error in (backend._get_streaming_buffer() or "")


async def test_a_custom_tool_gets_repaired_arguments(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    fake_vllm.next(
        says(calls=[("custom_tool__two_num_tool", '{"x": 20, "y": 22')]),
        says(calls=[("new_answer", '{"content": "42"}')]),
    )
    await collected(calculating.chat(QUESTION, WORKFLOW, reset_chat=True))
    _, assistant, result = fake_vllm.bodies[1]["messages"]
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"x": 20, "y": 22}
    assert "42" in result["content"]


@pytest.mark.parametrize("kind", ["custom", "mcp"])
async def test_a_tool_whose_arguments_are_beyond_repair_answers_inside_the_turn(
    agent: Callable[..., Any], fake_vllm: FakeVLLM, mcp_server: Any, kind: str
) -> None:
    if kind == "custom":
        name = "custom_tool__two_num_tool"
        using = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    else:
        name = "mcp__weather__forecast"
        using = agent(mcp_servers=[mcp_server])
    fake_vllm.next(
        says(calls=[(name, '{"x": 20,, "y": 22}')]), says(calls=[("new_answer", '{"content": "42"}')])
    )
    chunks = await collected(using.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert "error" not in kinds(chunks)
    _, assistant, result = fake_vllm.bodies[1]["messages"]
    # The server would reject a conversation with the text that the model wrote.
    assert assistant["tool_calls"][0]["function"]["arguments"] == "{}"
    assert "must be a JSON object" in result["content"]


async def test_calls_with_one_id_are_executed_once(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    call = {
        "id": "same",
        "type": "function",
        "function": {"name": "custom_tool__two_num_tool", "arguments": '{"x": 20, "y": 22}'},
    }
    deltas = [{"tool_calls": [{**call, "index": index}]} for index in (0, 1)]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    bodies: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    bodies.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    fake_vllm.next(
        stream([{**head, **body} for body in bodies]), says(calls=[("new_answer", '{"content": "42"}')])
    )
    chunks = await collected(calculating.chat(QUESTION, WORKFLOW, reset_chat=True))
    called = [chunk for chunk in chunks if chunk.status == "custom_tool_called"]
    assert len(called) == 1
    _, assistant, result = fake_vllm.bodies[1]["messages"]
    assert [each["id"] for each in assistant["tool_calls"]] == ["same"]
    assert (result["role"], result["tool_call_id"]) == ("tool", "same")


async def test_calls_of_the_workflow_are_never_run_here(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    both = [("custom_tool__two_num_tool", '{"x": 6, "y": 7}'), ("vote", '{"agent_id": "agent1"}')]
    fake_vllm.next(says(calls=both))
    chunks = await collected(calculating.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert len(fake_vllm.chats) == 1
    assert kinds(chunks) == ["tool_calls", "done"]
    assert [call["function"]["name"] for call in only(chunks, "tool_calls").tool_calls or ()] == [
        name for name, _ in both
    ]


# When it breaks


@pytest.mark.parametrize("end", ["early", "reset"])
async def test_a_stream_without_an_end_is_reported_and_keeps_the_text(
    backend: VLLMBackend, fake_vllm: FakeVLLM, end: str
) -> None:
    begun = events(text="Once upon a time", finish="")
    fake_vllm.next(stream([*begun, reset]) if end == "reset" else stream(begun, done=False))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["content", "error", "complete_message", "done"]
    error = only(chunks, "error")
    assert error.status is None
    assert error.error is not None
    assert "before the reply was complete" in error.error
    assert "16 characters" in error.error
    message = only(chunks, "complete_message").complete_message
    assert message == {"role": "assistant", "content": "Once upon a time"}
    assert backend._get_streaming_buffer() is not None
    assert backend.token_usage.output_tokens > 0  # An estimate: the server reported no usage.
    (timed,) = backend.get_api_call_history()
    assert timed.success is False


async def test_calls_of_a_broken_stream_are_dropped(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.next(stream(events(calls=[("vote", '{"agent_id": "agent1"}')], finish=""), done=False))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["error", "done"]


@pytest.mark.parametrize(
    ("status", "message", "parts"),
    [
        (401, "Unauthorized", ("API key", "VLLM_API_KEY")),
        (404, "The model `m` does not exist.", ("/models", "model:")),
        (400, "min_tokens must be less than or equal to max_tokens=5, got 10.", ("min_tokens",)),
    ],
)
async def test_what_a_retry_cannot_fix_ends_the_agent_at_once(
    backend: VLLMBackend, fake_vllm: FakeVLLM, status: int, message: str, parts: tuple[str, ...]
) -> None:
    fake_vllm.next(refusal(status, message))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["error", "done"]
    error = only(chunks, "error")
    assert error.status == "fatal"
    for part in parts:
        assert part in (error.error or "")
    assert len(fake_vllm.chats) == 1


async def test_an_error_inside_the_stream_is_an_error(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    failed = {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}
    fake_vllm.next(stream([*events(text="Once", finish=""), failed]))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["content", "error", "complete_message", "done"]
    assert "EngineCore died" in (only(chunks, "error").error or "")
    assert backend.token_usage.output_tokens > 0
    (timed,) = backend.get_api_call_history()
    assert timed.success is False
    assert "EngineCore died" in (timed.error_message or "")


async def test_an_overflow_is_compressed_and_retried(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    keyed = agent(api_key="secret", top_k=20)
    fake_vllm.next(refusal(400, OVERFLOW), says(reasoning="Shorten.", text="They greeted."), says(text="42"))
    long = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        *QUESTION,
    ]
    chunks = await collected(keyed.chat(long, WORKFLOW, reset_chat=True))
    assert kinds(chunks) == ["compression_status", "content", "done"]
    refused, summary, retried = fake_vllm.bodies
    assert summary["messages"][0]["content"] != refused["messages"][0]["content"]
    # The summary comes from a second backend that MassGen makes: it gets the parameters and the key anyway.
    assert summary["top_k"] == 20
    assert {request.headers["authorization"] for request in fake_vllm.chats} == {"Bearer secret"}
    told = str(retried["messages"])
    assert "They greeted." in told
    assert "Shorten." not in told
    assert retried["messages"][0] == long[0]
    # The summary's tokens count as the agent's: two replies of 10 and 5 tokens.
    assert (keyed.backend.token_usage.input_tokens, keyed.backend.token_usage.output_tokens) == (20, 10)


async def test_an_overflow_that_stays_is_reported_once(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.next(refusal(400, OVERFLOW), says(text="A summary."), refusal(400, OVERFLOW))
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, *QUESTION]
    chunks = await collected(backend.stream_with_tools(messages, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["compression_status", "error", "done"]
    assert "maximum context length" in (only(chunks, "error").error or "")


# Failing again and again


async def statuses(backend: VLLMBackend, turns: int) -> list[str | None]:
    """The status of the error of each turn."""
    found: list[str | None] = []
    for _ in range(turns):
        chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
        found.append(only(chunks, "error").status)
    return found


NO_TOOL_RESULTS = "Only user and assistant roles are supported!"
"""What chat templates without the role `tool` answer to the result of a tool."""


async def test_the_same_refusal_after_a_tool_ends_the_agent(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    # MassGen does not count attempts in which a tool ran, so it would go on without end.
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    tool = says(calls=[("custom_tool__two_num_tool", '{"x": 20, "y": 22}')])
    refused = refusal(400, NO_TOOL_RESULTS)
    fake_vllm.next(tool, refused, tool, refused)
    found = [
        only(await collected(calculating.chat(QUESTION, WORKFLOW, reset_chat=True)), "error")
        for _ in range(2)
    ]
    assert [error.status for error in found] == [None, "fatal"]
    assert NO_TOOL_RESULTS in (found[1].error or "")


async def test_a_failure_after_a_tool_is_not_repeated_without_end(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    tool = says(calls=[("custom_tool__two_num_tool", '{"x": 20, "y": 22}')])
    fake_vllm.next(*[tool, refusal(500, "EngineCore died")] * 3)
    found = [
        only(await collected(calculating.chat(QUESTION, WORKFLOW, reset_chat=True)), "error").status
        for _ in range(3)
    ]
    assert found == [None, None, "fatal"]


async def test_an_overflow_that_stays_ends_the_agent(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    tool = says(calls=[("custom_tool__two_num_tool", '{"x": 20, "y": 22}')])
    overflow = refusal(400, OVERFLOW)
    long = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, *QUESTION]
    fake_vllm.next(*[tool, overflow, says(text="A summary."), overflow] * 2)
    found = [
        only(await collected(calculating.chat(long, WORKFLOW, reset_chat=True)), "error").status
        for _ in range(2)
    ]
    assert found == [None, "fatal"]


async def test_the_third_cut_reply_in_a_row_ends_the_agent_with_its_reason(
    backend: VLLMBackend, fake_vllm: FakeVLLM
) -> None:
    fake_vllm.always(says(calls=[("new_answer", '{"content": "4')], finish="length"))
    assert await statuses(backend, 3) == [None, None, "fatal"]
    assert "max_tokens" in (backend.last_failure or "")


async def test_a_turn_that_goes_well_begins_to_count_anew(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    cut = says(calls=[("new_answer", '{"content": "4')], finish="length")
    fake_vllm.next(cut, cut, says(text="42"), cut, cut)
    assert await statuses(backend, 2) == [None, None]
    await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert backend.last_failure is None
    assert await statuses(backend, 2) == [None, None]


async def test_an_interruption_is_not_a_failure(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.always(stream([*events(text="Once", finish=""), never]))
    for _ in range(4):
        chunks = backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")
        await anext(chunks)
        await backend.interrupt()
        assert [chunk.status for chunk in await collected(chunks)] == [None]
    assert backend.last_failure is None


async def test_a_failure_that_massgen_retries_is_a_warning(
    backend: VLLMBackend, fake_vllm: FakeVLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from massgen.logger_config import logger

    warned: list[str] = []
    monkeypatch.setattr(logger, "warning", warned.append)
    fake_vllm.next(
        says(calls=[("new_answer", '{"content": "4')], finish="length"), refusal(401, "Unauthorized")
    )
    assert await statuses(backend, 2) == [None, "fatal"]
    (line,) = warned  # MassGen itself reports a fatal one.
    assert "max_tokens" in line


async def test_a_file_that_is_missing_ends_the_agent_at_once(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    lost = agent(upload_files=[{"image_path": "lost.png"}])
    chunks = await collected(lost.chat(QUESTION, WORKFLOW, reset_chat=True))
    error = only(chunks, "error")
    assert error.status == "fatal"
    assert "upload_files: File not found" in (error.error or "")
    assert fake_vllm.chats == []


# The server's models


async def test_a_server_is_asked_for_its_models_once(fake_vllm: FakeVLLM, model: str) -> None:
    fake_vllm.always(says(text="42"))
    backends = [
        VLLMBackend(model=name, base_url=fake_vllm.base_url, agent_id=name)
        for name in (model, model, f"{model}-too")
    ]
    async with asyncio.TaskGroup() as group:
        for each in backends * 2:
            group.create_task(collected(each.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")))
    assert len(fake_vllm.chats) == 6
    assert [request.path for request in fake_vllm.server.requests].count("/v1/models") == 1


@pytest.mark.parametrize("answer", [refusal(404, "Not Found"), script(reset)], ids=["404", "reset"])
async def test_a_server_without_a_list_of_models_is_not_asked_again(model: str, answer: Any) -> None:
    asked: list[str] = []

    def respond(request: Any) -> Any:
        asked.append(request.path)
        return answer if request.path == "/v1/models" else says(text="42")

    with ScriptedServer() as server:
        server.always(respond)
        for _ in range(3):
            each = VLLMBackend(model=model, base_url=server.base_url, agent_id="qwen")
            await collected(each.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert asked.count("/v1/chat/completions") == 3
    assert asked.count("/v1/models") == 1


async def test_a_server_that_could_not_be_reached_is_asked_later(model: str) -> None:
    with refusing_origin() as origin:
        lost = VLLMBackend(model=model, base_url=f"{origin}/v1", agent_id="qwen")
        await collected(lost.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
        assert vars(context)["_lists"] == {}


async def test_nobody_waits_for_the_list_of_models_of_another(
    fake_vllm: FakeVLLM, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    with ScriptedServer() as server:
        server.always(lambda request: script(gate) if request.path == "/v1/models" else says(text="42"))
        first, second = (
            VLLMBackend(model=model, base_url=server.base_url, agent_id=name) for name in ("a", "b")
        )
        waiting = asyncio.create_task(collected(first.stream_with_tools(QUESTION, WORKFLOW, agent_id="a")))
        await in_thread(gate.wait_reached)
        chunks = await collected(second.stream_with_tools(QUESTION, WORKFLOW, agent_id="b"))
        assert kinds(chunks) == ["content", "complete_message", "done"]
        await first.interrupt()
        assert kinds(await waiting) == ["error"]


# Stopping


async def test_interrupt_stops_the_server_while_it_is_read(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    gate = Gate()
    fake_vllm.next(stream([*events(text="12", finish=""), gate]))
    chunks = backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")
    assert [(await anext(chunks)).content, (await anext(chunks)).content] == ["1", "2"]
    reading = asyncio.create_task(collected(chunks))
    await in_thread(gate.wait_reached)
    began = time.monotonic()
    await backend.interrupt()
    assert await in_thread(lambda: fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0))
    assert time.monotonic() - began < 0.1
    assert kinds(await reading) == ["error"]


async def test_interrupt_stops_a_request_that_waits_for_its_response(
    backend: VLLMBackend, fake_vllm: FakeVLLM
) -> None:
    gate = Gate()
    fake_vllm.next(script(gate))
    reading = asyncio.create_task(collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")))
    await in_thread(gate.wait_reached)
    began = time.monotonic()
    await backend.interrupt()
    assert await in_thread(lambda: fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0))
    assert time.monotonic() - began < 0.1
    assert kinds(await reading) == ["error"]


async def test_interrupt_between_two_chunks_stops_the_server(
    backend: VLLMBackend, fake_vllm: FakeVLLM
) -> None:
    fake_vllm.next(stream([*events(text="Once", finish=""), never]))
    chunks = backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")
    first = await anext(chunks)
    assert first.type == "content"
    began = time.monotonic()
    await backend.interrupt()
    assert await in_thread(lambda: fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0))
    assert time.monotonic() - began < 0.1
    assert "content" not in kinds(await collected(chunks))[1:]


async def test_closing_an_agents_stream_stops_the_server(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    fake_vllm.next(stream([*events(text="Once", finish=""), never]))
    chunks = agent().chat(QUESTION, WORKFLOW, reset_chat=True)
    assert (await anext(chunks)).type == "content"
    began = time.monotonic()
    await chunks.aclose()
    assert await in_thread(lambda: fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0))
    assert time.monotonic() - began < 0.1


async def test_cancelling_the_reader_stops_the_server(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    gate = Gate()
    fake_vllm.next(stream([*events(text="Once", finish=""), gate]))
    reading = asyncio.create_task(collected(agent().chat(QUESTION, WORKFLOW, reset_chat=True)))
    await in_thread(gate.wait_reached)
    began = time.monotonic()
    reading.cancel()
    assert await in_thread(lambda: fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0))
    assert time.monotonic() - began < 0.1
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_the_backend_is_usable_after_an_interruption(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.next(stream([*events(text="Once", finish=""), never]), says(text="42"))
    chunks = backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")
    await anext(chunks)
    await backend.interrupt()
    await collected(chunks)
    again = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(again) == ["content", "complete_message", "done"]


# Connections


async def test_one_connection_serves_many_calls(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.always(says(text="42"))
    for _ in range(5):
        await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert len(fake_vllm.chats) == 5
    assert fake_vllm.server.connections == 1


async def _left_open(backend: VLLMBackend, kept: list[Any]) -> None:
    chunks = backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")
    kept.append(chunks)
    await anext(chunks)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: kept.append(context))


def test_a_stream_that_is_left_open_ends_with_the_event_loop(
    backend: VLLMBackend, fake_vllm: FakeVLLM
) -> None:
    # As after Ctrl-C: the event loop closes all generators at the same time, the outer and the inner ones.
    for _ in range(5):
        fake_vllm.next(stream([*events(text="Once", finish=""), never]))
        kept: list[Any] = []
        asyncio.run(_left_open(backend, kept))
        assert kept[1:] == []
        assert fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0)


def test_the_connections_end_with_the_event_loop(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.always(says(text="42"))
    for _ in range(2):
        asyncio.run(collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen")))
        assert fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0)


# Counting


async def test_the_servers_counts_are_in_massgens_metrics(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "total_tokens": 130,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    fake_vllm.next(says(text="42", usage=usage))
    await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    counted = backend.token_usage
    assert (counted.input_tokens, counted.output_tokens) == (100, 30)
    assert (counted.reasoning_tokens, counted.cached_input_tokens) == (20, 64)
    assert counted.estimated_cost == 0
    assert backend._last_call_input_tokens == 100
    (timed,) = backend.get_api_call_history()
    assert timed.success
    assert timed.time_to_first_token_ms > 0


async def test_a_reply_without_counts_is_estimated(backend: VLLMBackend, fake_vllm: FakeVLLM) -> None:
    fake_vllm.next(stream(events(text="Six times seven is forty-two.")[:-1]))
    await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert backend.token_usage.output_tokens > 0


async def test_nothing_is_printed(
    backend: VLLMBackend, fake_vllm: FakeVLLM, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_vllm.next(says(reasoning="Hm.", text="42"), stream(events(text="4", finish=""), done=False))
    backend.start_round_tracking(0, "initial_answer", "qwen")
    for _ in range(2):
        await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    backend.end_round_tracking("answer")
    assert capfd.readouterr().out == ""


async def test_the_context_size_is_the_servers(
    fake_vllm: FakeVLLM, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from massgen.backend import _compression_utils

    size_of = _compression_utils._get_context_window_for_backend  # pyright: ignore[reportPrivateUsage]  # MassGen's
    asked: list[int] = []

    def note(backend: Any) -> tuple[int, str]:
        asked.append(size_of(backend)[0])
        return size_of(backend)

    monkeypatch.setattr(_compression_utils, "_get_context_window_for_backend", note)
    other = FakeVLLM(max_model_len=8192)
    other.always(says(text="42"))
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, *QUESTION]
    with other.server:
        # Another server of the same model, with another size, is known as well.
        larger = VLLMBackend(model=model, base_url=other.base_url)
        await collected(larger.stream_with_tools(QUESTION, WORKFLOW, agent_id="glm"))
        fake_vllm.max_model_len = 2048
        fake_vllm.next(refusal(400, OVERFLOW), says(text="A summary."), says(text="42"))
        small = VLLMBackend(model=model, base_url=fake_vllm.base_url)
        small.start_round_tracking(0, "initial_answer", "qwen")
        await collected(small.stream_with_tools(messages, WORKFLOW, agent_id="qwen"))
        ended = small.end_round_tracking("answer")
        larger.start_round_tracking(0, "initial_answer", "glm")
        ended_larger = larger.end_round_tracking("answer")
    assert set(asked) == {2048}
    assert ended is not None
    assert ended.context_window_size == 2048
    assert ended_larger is not None
    assert ended_larger.context_window_size == 8192


def test_a_monitor_knows_the_size_before_the_first_request(
    fake_vllm: FakeVLLM, model: str, installed: None
) -> None:
    from massgen.memory._context_monitor import ContextWindowMonitor

    fake_vllm.max_model_len = 4096
    kept = VLLMBackend(model=model, base_url=fake_vllm.base_url)
    assert ContextWindowMonitor(model, provider="vllm").context_window == 4096
    assert [request.path for request in fake_vllm.server.requests] == ["/v1/models"]
    del kept


async def test_a_size_that_cannot_be_looked_up_stays_unknown(model: str, installed: None) -> None:
    from massgen.memory._context_monitor import ContextWindowMonitor

    with refusing_origin() as origin:
        lost = VLLMBackend(model=model, base_url=f"{origin}/v1")
        assert ContextWindowMonitor(model, provider="vllm").context_window == 128_000  # MassGen's own guess
        chunks = await collected(lost.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["error", "done"]
    assert only(chunks, "error").status == "fatal"
    assert origin in (only(chunks, "error").error or "")


async def test_the_size_is_that_of_the_model_asked_for(fake_vllm: FakeVLLM, model: str) -> None:
    fake_vllm.models = [{"id": "small", "max_model_len": 1024}, {"id": model, "max_model_len": 8192}]
    fake_vllm.next(says(text="42"))
    chosen = VLLMBackend(model=model, base_url=fake_vllm.base_url)
    await collected(chosen.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    pricing = chosen.token_calculator.get_model_pricing("vLLM", model)
    assert pricing is not None
    assert (pricing.context_window, pricing.input_cost_per_1k) == (8192, 0)


def test_prices_of_other_providers_are_massgens(backend: VLLMBackend) -> None:
    pricing = backend.token_calculator.get_model_pricing("OpenAI", "gpt-4o")
    assert pricing is not None
    assert pricing.input_cost_per_1k > 0


# Tools that MassGen runs


async def test_a_custom_tool_is_run_and_its_result_sent_back(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    calculating = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    fake_vllm.next(
        says(
            reasoning="I add.",
            text="Let me see.",
            calls=[("custom_tool__two_num_tool", '{"x": 20, "y": 22}')],
        ),
        says(calls=[("new_answer", '{"content": "42"}')]),
    )
    chunks = await collected(calculating.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert kinds(chunks) == [
        "reasoning",
        "reasoning_done",
        "content",
        "tool_calls",
        "custom_tool_status",
        "tool_calls",
        "done",
    ]
    first, second = fake_vllm.bodies
    assert any(tool["function"]["name"] == "custom_tool__two_num_tool" for tool in first["tools"])
    _, assistant, result = second["messages"]
    assert assistant["content"] == "Let me see."
    assert assistant["reasoning"] == "I add."
    (call,) = assistant["tool_calls"]
    assert result["tool_call_id"] == call["id"]
    assert "The sum of 20 and 22 is 42" in result["content"]
    trace = calculating.backend._get_execution_trace()
    assert trace is not None


async def test_a_tool_of_an_mcp_server_is_run(
    agent: Callable[..., Any], fake_vllm: FakeVLLM, mcp_server: Any
) -> None:
    connected = agent(mcp_servers=[mcp_server])
    fake_vllm.next(
        says(calls=[("mcp__weather__forecast", '{"city": "Oslo"}')]),
        says(calls=[("new_answer", '{"content": "-2"}')]),
    )
    chunks = await collected(connected.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert "mcp_status" in kinds(chunks), chunks
    first, second = fake_vllm.bodies
    assert any(tool["function"]["name"] == "mcp__weather__forecast" for tool in first["tools"])
    assert "Oslo: -2 degrees" in second["messages"][-1]["content"]


async def test_planning_blocks_the_tools_of_mcp_servers(
    agent: Callable[..., Any], fake_vllm: FakeVLLM, mcp_server: Any
) -> None:
    planning = agent(mcp_servers=[mcp_server])
    planning.backend.set_planning_mode(True)
    fake_vllm.next(
        says(calls=[("mcp__weather__forecast", '{"city": "Oslo"}')]),
        says(calls=[("new_answer", '{"content": "A plan."}')]),
    )
    chunks = await collected(planning.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert "planning_mode_blocked" in [chunk.status for chunk in chunks]
    assert "was not executed" in fake_vllm.bodies[1]["messages"][-1]["content"]


async def test_blocked_mcp_servers_are_not_called(
    agent: Callable[..., Any], fake_vllm: FakeVLLM, mcp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = agent(mcp_servers=[mcp_server])

    async def blocked() -> bool:
        return False

    monkeypatch.setattr(connected.backend, "_check_circuit_breaker_before_execution", blocked)
    fake_vllm.next(
        says(calls=[("mcp__weather__forecast", '{"city": "Oslo"}')]),
        says(calls=[("new_answer", '{"content": "Unknown."}')]),
    )
    chunks = await collected(connected.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert "mcp_blocked" in [chunk.status for chunk in chunks]
    assert "was not executed" in fake_vllm.bodies[1]["messages"][-1]["content"]


@pytest.mark.parametrize("works", [True, False])
async def test_massgens_router_is_asked_first(
    agent: Callable[..., Any], fake_vllm: FakeVLLM, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    routed = agent(custom_tools=[{"name": ["two_num_tool"], "function": ["two_num_tool"]}])
    routed.backend.set_nlip_router(object(), enabled=True)

    async def route(
        call: dict[str, Any], config: Any, messages: list[dict[str, Any]], processed: set[str]
    ) -> AsyncGenerator[StreamChunk]:
        if not works:
            raise ConnectionError("no route")
        processed.add(call["call_id"])
        messages.append({"role": "tool", "tool_call_id": call["call_id"], "content": "42, by another way"})
        yield StreamChunk(config.chunk_type, content="routed", status=config.status_response)

    monkeypatch.setattr(routed.backend, "_stream_tool_execution_via_nlip", route)
    fake_vllm.next(
        says(calls=[("custom_tool__two_num_tool", '{"x": 20, "y": 22}')]),
        says(calls=[("new_answer", '{"content": "42"}')]),
    )
    await collected(routed.chat(QUESTION, WORKFLOW, reset_chat=True))
    (result,) = [message for message in fake_vllm.bodies[1]["messages"] if message["role"] == "tool"]
    assert ("by another way" in result["content"]) is works
    assert "42" in result["content"]


async def test_without_mcp_servers_the_agent_goes_on(
    backend: VLLMBackend, fake_vllm: FakeVLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: VLLMBackend) -> VLLMBackend:
        raise RuntimeError("no MCP today")

    monkeypatch.setattr(VLLMBackend, "__aenter__", broken, raising=False)
    fake_vllm.next(says(text="42"))
    chunks = await collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert kinds(chunks) == ["content", "complete_message", "done"]


async def test_an_mcp_server_that_fails_does_not_stop_the_agent(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    broken: dict[str, Any] = {"name": "broken", "type": "stdio", "command": "/nonexistent", "args": []}
    fake_vllm.next(says(calls=[("new_answer", '{"content": "42"}')]))
    chunks = await collected(agent(mcp_servers=[broken]).chat(QUESTION, WORKFLOW, reset_chat=True))
    assert kinds(chunks)[-2:] == ["tool_calls", "done"]


async def test_the_response_to_a_rejected_vote_follows_the_vote(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    voting = agent()
    fake_vllm.next(
        says(calls=[("vote", '{"agent_id": "agent9"}')]), says(calls=[("vote", '{"agent_id": "agent1"}')])
    )
    chunks = await collected(voting.chat(QUESTION, WORKFLOW, reset_chat=True))
    (call,) = only(chunks, "tool_calls").tool_calls or [{}]
    objection = voting.backend.create_tool_result_message(call, "Invalid agent_id 'agent9'.")
    await collected(voting.chat([objection], WORKFLOW))
    _, second = fake_vllm.bodies
    question, vote, refused = second["messages"]
    assert question == QUESTION[0]
    assert vote["tool_calls"] == [call]
    assert refused == {"role": "tool", "tool_call_id": call["id"], "content": "Invalid agent_id 'agent9'."}


def test_a_workspace_is_set_up(agent: Callable[..., Any]) -> None:
    assert agent(cwd="workspace").backend.filesystem_manager is not None


async def test_an_image_is_sent(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    picture = {"image_path": "https://example.org/cat.png"}
    fake_vllm.next(says(text="A cat."))
    await collected(agent(upload_files=[picture]).chat(QUESTION, WORKFLOW, reset_chat=True))
    (body,) = fake_vllm.bodies
    parts = body["messages"][-1]["content"]
    assert {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}} in parts
    assert "upload_files" not in body


async def test_direct_callers_of_the_backend_get_no_reasoning_in_the_text(
    backend: VLLMBackend, fake_vllm: FakeVLLM
) -> None:
    fake_vllm.next(says(reasoning="Hm.", text="A persona."))
    chunks = await collected(backend.stream_with_tools(QUESTION, []))
    assert "".join(chunk.content or "" for chunk in chunks) == "A persona."


async def test_massgens_circuit_breaker_works(backend: VLLMBackend, fake_vllm: FakeVLLM, model: str) -> None:
    guarded = VLLMBackend(
        model=model,
        base_url=fake_vllm.base_url,
        llm_circuit_breaker_enabled=True,
        llm_circuit_breaker_max_failures=1,
    )
    fake_vllm.next(refusal(500, "EngineCore died"))
    chunks = await collected(guarded.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert "error" in kinds(chunks)
    chunks = await collected(guarded.stream_with_tools(QUESTION, WORKFLOW, agent_id="qwen"))
    assert "ircuit breaker" in (only(chunks, "error").error or "")
    assert len(fake_vllm.chats) == 1
