"""A provider that answers by a script: what comes out is what a real server's reply would be."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Literal

import anyio
import pytest
from pydantic import BaseModel

from support.runners import NAMES, Runner, runner_of
from vllmchat import (
    APIConnectionError,
    APITimeoutError,
    ChatCompletion,
    ContextWindowExceededError,
    Finished,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    Provider,
    RateLimitError,
    ReasoningDelta,
    ResponseError,
    ServiceUnavailableError,
    StreamInterruptedError,
    SyncProvider,
    TextDelta,
    ToolCallDone,
    Usage,
    VLLMProvider,
    arun_tools,
    run_tools,
    tool_message,
)
from vllmchat.testing import (
    Call,
    ScriptedProvider,
    ScriptError,
    drip,
    drop,
    error,
    fail,
    garbage,
    hang_up,
    reply,
    slow,
    stall,
    tool_call,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat.testing import Answer


class User(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather.

    Args:
        city: Where.
    """
    return f"sunny in {city}"


@pytest.fixture(params=NAMES)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Sync, and async on both event loops."""
    with runner_of(request.param) as made:
        yield made


# Scripts


def test_it_is_a_provider() -> None:
    llm = ScriptedProvider("Hello")
    assert isinstance(llm, Provider)
    assert isinstance(llm, SyncProvider)
    assert isinstance(llm, VLLMProvider)
    assert (llm.name, llm.model) == ("vllm", "scripted")


def test_a_list_answers_one_call_each(runner: Runner) -> None:
    llm = ScriptedProvider(["one", reply("two", reasoning="Hm."), tool_call("get_weather", {"city": "Oslo"})])
    first, second, third = (runner.chat(llm) for _ in range(3))
    assert first.text == "one"
    assert first.finish_reason == "stop"
    assert (second.text, second.reasoning) == ("two", "Hm.")
    assert third.finish_reason == "tool_calls"
    assert [(call.name, call.parse()) for call in third.tool_calls] == [("get_weather", {"city": "Oslo"})]
    assert third.tool_calls[0].id
    llm.assert_done()


def test_a_function_answers_all_calls(runner: Runner) -> None:
    def answer(call: Call) -> Answer:
        return reply(call.text.upper(), finish_reason="length") if call.params.get("top_k") == 1 else "no"

    llm = ScriptedProvider(answer)
    assert runner.chat(llm, "hi", top_k=1).text == "HI"  # type: ignore[call-arg]
    assert runner.chat(llm, "hi").text == "no"
    llm.assert_done()


def test_one_answer_is_for_all_calls_and_added_ones_come_first() -> None:
    llm = ScriptedProvider("always")
    llm.answer("once")
    assert [llm.chat("x").text for _ in range(3)] == ["once", "always", "always"]


def test_a_whole_completion_is_an_answer() -> None:
    recorded = ChatCompletion.model_validate(
        {
            "choices": [
                {"message": {"content": "42", "reasoning": "Six by seven."}, "finish_reason": "length"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }
    )
    got = ScriptedProvider([recorded]).stream("x").until_done()
    assert (got.text, got.reasoning, got.finish_reason) == ("42", "Six by seven.", "length")
    assert got.usage is not None
    assert got.usage.total_tokens == 7


def test_a_script_that_has_run_out_says_so(runner: Runner) -> None:
    llm = ScriptedProvider(["one"])
    runner.chat(llm)
    with pytest.raises(ScriptError, match=r"the script has 1 answer, and this is call 2: 'And\?'"):
        runner.chat(llm, "And?")
    with pytest.raises(ScriptError, match=r"1 call had no answer: 'And\?'"):
        llm.assert_done()


def test_answers_that_are_left_are_an_error() -> None:
    llm = ScriptedProvider(["one", "two", reply("three")])
    llm.chat("x")
    with pytest.raises(ScriptError, match="2 of 3 scripted answers are left; the next one is 'two'"):
        llm.assert_done()


def test_errors_of_a_provider_do_not_hide_that_of_a_script() -> None:
    assert not issubclass(ScriptError, (OSError, ValueError))
    assert issubclass(ScriptError, AssertionError)


@pytest.mark.parametrize("wrong", [42, {"name": "Ada"}, None, ("a", 3), (), slow(b"Ada")])
def test_what_is_not_an_answer_is_rejected(wrong: object) -> None:
    with pytest.raises(TypeError, match="an answer must be a str"):
        ScriptedProvider([wrong])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="an answer must be a str"):
        ScriptedProvider(lambda _: wrong).chat("x")  # type: ignore[arg-type] # pyright: ignore


# Calls


def test_calls_are_recorded_as_they_are_sent(runner: Runner) -> None:
    llm = ScriptedProvider("ok")
    runner.do(llm, "chat", "Hello", top_k=20, enable_thinking=False, tools=[get_weather])
    runner.stream(llm, [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]).until_done()
    first, second = llm.calls
    assert first.messages == [{"role": "user", "content": "Hello"}]
    assert first.params["top_k"] == 20
    assert first.params["chat_template_kwargs"] == {"enable_thinking": False}
    assert (first.tool_names, first.stream, first.model) == (["get_weather"], False, "scripted")
    assert (second.text, second.stream, second.tool_names) == ("Hi", True, [])


def test_parameters_are_checked_as_by_a_real_provider(runner: Runner) -> None:
    llm = ScriptedProvider("ok")
    with pytest.raises(InvalidRequestError, match="Did you mean `top_k`"):
        runner.do(llm, "chat", "x", topk=20)
    with pytest.raises(InvalidRequestError, match="temperature"):
        runner.do(llm, "chat", "x", temperature=-1)
    assert llm.calls == []


def test_an_old_server_lacks_what_it_lacks() -> None:
    with pytest.raises(InvalidRequestError, match=r"0\.10\.2"):
        ScriptedProvider("ok", version="0.8.5").chat("x", return_token_ids=True)
    assert ScriptedProvider("ok").chat("x", return_token_ids=True).choices[0].token_ids


def test_a_copy_with_other_settings_has_the_same_script() -> None:
    llm = ScriptedProvider(["one", "two"])
    copy = llm.with_options(model="other")
    assert (copy.chat("x").text, llm.chat("x").text) == ("one", "two")
    assert [call.model for call in llm.calls] == ["other", "scripted"]
    assert copy.calls == llm.calls


# Streams


def test_a_stream_has_the_pieces_that_were_chosen(runner: Runner) -> None:
    llm = ScriptedProvider(
        [
            reply("Hello, you there."),
            reply("Hello", chunk=2),
            reply(pieces=["Hel", "", "lo"]),
        ]
    )
    texts = [runner.stream(llm).texts() for _ in range(3)]
    assert texts == [["Hello", ",", " you", " there", "."], ["He", "ll", "o"], ["Hel", "lo"]]


def test_a_provider_can_choose_the_pieces_of_all() -> None:
    llm = ScriptedProvider("Hello", chunk=4)
    assert [chunk.text for chunk in llm.stream("x") if chunk.text] == ["Hell", "o"]


def test_a_stream_has_reasoning_text_and_calls_as_events(runner: Runner) -> None:
    call = tool_call("get_weather", {"city": "Oslo"}, id="call-1")
    llm = ScriptedProvider([reply("Let me see.", reasoning="Weather?", tool_calls=[call])])
    events = list(runner.stream(llm).events())
    assert "".join(each.text for each in events if isinstance(each, ReasoningDelta)) == "Weather?"
    assert "".join(each.text for each in events if isinstance(each, TextDelta)) == "Let me see."
    [done] = [each for each in events if isinstance(each, ToolCallDone)]
    assert (done.tool_call.id, done.tool_call.parse()) == ("call-1", {"city": "Oslo"})
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.completion.usage is not None
    assert last.completion.finish_reason == "tool_calls"


def test_a_stream_and_a_whole_reply_are_the_same(runner: Runner) -> None:
    answer = reply(
        "Hello, you.", reasoning="A greeting.", tool_calls=[tool_call("f"), tool_call("g", {"a": [1]})]
    )
    llm = ScriptedProvider(answer)
    params = {"logprobs": True, "top_logprobs": 2, "return_token_ids": True, "n": 2}
    whole = runner.do(llm, "chat", "x", **params)
    streamed = runner.open(llm, "stream", "x", **params).until_done()
    for each in (whole, streamed):
        each.id, each.created = "", 0
        for choice in each.choices:
            for call in choice.message.tool_calls:
                call.id = ""
    assert whole.model_dump() == streamed.model_dump()
    assert len(whole.choices) == 2
    assert whole.choices[0].logprobs.content[0].top_logprobs[1].logprob < -1


def test_choices_can_differ(runner: Runner) -> None:
    llm = ScriptedProvider([("heads", reply("tails", finish_reason="length"))])
    got = runner.do(llm, "chat", "Toss.", n=2)
    assert [(each.message.content, each.finish_reason) for each in got.choices] == [
        ("heads", "stop"),
        ("tails", "length"),
    ]


def test_choices_must_be_as_many_as_requested() -> None:
    with pytest.raises(ScriptError, match="asks for 3 choices, and its answer has 2"):
        ScriptedProvider([("a", "b")]).chat("x", n=3)


def test_the_usage_can_be_given_and_is_counted_otherwise() -> None:
    usage = Usage(prompt_tokens=100, completion_tokens=7, total_tokens=107)
    llm = ScriptedProvider([reply("Hello, you.", usage=usage), "Hello, you."])
    given, counted = llm.chat("x").usage, llm.chat("x").usage
    assert given == usage
    assert counted is not None
    assert counted.completion_tokens == 5  # three words and marks, the space's word, and the end
    assert counted.total_tokens == counted.prompt_tokens + 5


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_does_not_make_a_scripted_call_look_truncated(stream: bool) -> None:
    llm = ScriptedProvider(tool_call("get_weather", {"city": "a long name of a city"}))
    got = llm.stream("x", max_tokens=3).until_done() if stream else llm.chat("x", max_tokens=3)
    assert got.tool_calls[0].complete
    assert got.usage is not None
    assert got.usage.completion_tokens < 3


def test_a_truncated_call_is_one() -> None:
    broken = reply(tool_calls=[tool_call("get_weather", '{"city": "Os')], finish_reason="length")
    assert ScriptedProvider(broken).chat("x", max_tokens=3).tool_calls[0].truncated


# What is built on chats


def test_values_are_parsed(runner: Runner) -> None:
    ada = User(name="Ada", age=36)
    llm = ScriptedProvider([reply(ada), reply([1, 2]), "yes", reply(ada)])
    assert runner.do(llm, "parse", "x", User).value == ada
    assert runner.do(llm, "parse", "x", list[int]).value == [1, 2]
    assert runner.do(llm, "choose", "x", Literal["yes", "no"]) == "yes"
    assert runner.open(llm, "stream_parse", "x", User).until_done().value == ada  # type: ignore[attr-defined]
    assert "response_format" in llm.calls[0].params


def test_tools_are_run(runner: Runner) -> None:
    llm = ScriptedProvider([tool_call("get_weather", {"city": "Oslo"}), "It is sunny."])
    run = runner.do(llm, "run_tools", "Weather?", tools=[get_weather])
    assert run.text == "It is sunny."
    sent = llm.calls[1].messages
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[-1].get("content") == "sunny in Oslo"


@pytest.mark.anyio
async def test_the_functions_for_any_provider_run_on_it() -> None:
    script: list[Answer] = [tool_call("get_weather", {"city": "Oslo"}), "Sunny."]
    assert run_tools(ScriptedProvider(script), "x", tools=[get_weather]).text == "Sunny."
    assert (await arun_tools(ScriptedProvider(script), "x", tools=[get_weather])).text == "Sunny."


def test_a_history_goes_on() -> None:
    llm = ScriptedProvider([tool_call("f", id="call-7"), "done"])
    first = llm.chat("x")
    call = first.tool_calls[0]
    llm.chat([{"role": "user", "content": "x"}, first.message, tool_message(call, "result")])
    assert llm.calls[1].messages[2] == {"role": "tool", "tool_call_id": "call-7", "content": "result"}


def test_other_endpoints_have_what_a_server_has(runner: Runner) -> None:
    llm = ScriptedProvider("and so on")
    assert runner.do(llm, "complete", "Once").text == "and so on"
    assert runner.open(llm, "stream_complete", "Once").until_done().text == "and so on"
    first, second, again = runner.do(llm, "embed", ["a", "b", "a"]).vectors
    assert list(first) == list(again) != list(second)
    assert sum(each * each for each in first) == pytest.approx(1)
    tokens = runner.do(llm, "tokenize", "Hello, you.").tokens
    assert runner.do(llm, "detokenize", tokens) == "Hello, you."
    assert runner.do(llm, "count_tokens", "Hello") > 1
    assert runner.do(llm, "models").data[0].id == "scripted"
    assert runner.do(llm, "health") is True
    with pytest.raises(NotFoundError):
        runner.do(llm, "rerank", "x", ["a"])
    llm.on(
        "/v1/rerank",
        {"id": "r", "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "a"}}]},
    )
    assert runner.do(llm, "rerank", "x", ["a"]).results[0].relevance_score == 0.5


# Errors


def test_exceptions_are_raised(runner: Runner) -> None:
    own = RuntimeError("mine")
    llm = ScriptedProvider([own, "fine", RateLimitError("busy", status_code=429)])
    with pytest.raises(RuntimeError, match="mine") as caught:
        runner.chat(llm)
    assert caught.value is own
    assert runner.chat(llm).text == "fine"
    with pytest.raises(RateLimitError, match="busy"):
        runner.stream(llm).until_done()


def test_errors_of_the_server_are_raised_as_their_classes(runner: Runner) -> None:
    llm = ScriptedProvider(
        [error(429), error(503, retry_after=9), error(500, "The GPU is on fire."), error(404)]
    )
    for cls in (RateLimitError, ServiceUnavailableError, InternalServerError, NotFoundError):
        with pytest.raises(cls):
            runner.chat(llm)


def test_errors_are_retried_if_that_is_asked_for(runner: Runner) -> None:
    llm = ScriptedProvider([error(429, retry_after=0), error(503, retry_after=0), "at last"], max_retries=2)
    assert runner.chat(llm).text == "at last"
    assert len(llm.calls) == 3


@pytest.mark.parametrize("status", [200, 302, 600])
def test_only_errors_are_errors(status: int) -> None:
    with pytest.raises(ValueError, match="status must be 400 to 599"):
        error(status)


def test_a_prompt_can_be_too_long() -> None:
    with pytest.raises(ContextWindowExceededError):
        ScriptedProvider("ok").chat("word " * 40_000)


def test_a_stream_can_break(runner: Runner) -> None:
    llm = ScriptedProvider([drop("Once upon a time", after=3), drop("x"), garbage("Once upon", after=2)])
    with pytest.raises(StreamInterruptedError) as caught:
        runner.stream(llm).until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Once upon"
    with pytest.raises(APIConnectionError):
        runner.chat(llm)
    with pytest.raises(ResponseError):
        runner.stream(llm).until_done()


def test_a_stream_can_fail_on_the_server(runner: Runner) -> None:
    llm = ScriptedProvider(fail("Once upon a time", error(500, "The engine died."), after=2))
    with pytest.raises(InternalServerError, match="The engine died") as caught:
        runner.stream(llm).until_done()
    assert caught.value.partial is not None
    with pytest.raises(InternalServerError, match="The engine died"):
        runner.chat(llm)


def test_a_stalled_answer_times_out(runner: Runner) -> None:
    llm = ScriptedProvider([stall(), stall("Once upon", after=2), slow("late", before=9)], timeout=0.05)
    for _ in range(3):
        with pytest.raises(APITimeoutError):
            runner.stream(llm).until_done()


def test_slow_and_dripping_answers_arrive_whole(runner: Runner) -> None:
    llm = ScriptedProvider(
        [slow("Hello, you", before=0.01, between=0.01), drip("Hello", size=7), hang_up(drip("Hello"))]
    )
    began = time.monotonic()
    assert runner.stream(llm).until_done().text == "Hello, you"
    assert time.monotonic() - began > 0.04
    assert runner.stream(llm).until_done().text == "Hello"
    assert runner.chat(llm).text == "Hello"


def test_a_stalled_stream_can_be_closed_from_another_thread() -> None:
    stream = ScriptedProvider(stall("Once upon", after=2)).stream("x")
    seen: list[str] = []
    read = threading.Event()

    def consume() -> None:
        for chunk in stream:
            seen.append(chunk.text)
            if len(seen) == 2:
                read.set()

    thread = threading.Thread(target=consume)
    thread.start()
    assert read.wait(5)
    stream.close()
    thread.join(5)
    assert not thread.is_alive()
    assert seen == ["", "Once"]


@pytest.mark.anyio
async def test_a_stalled_stream_can_be_cancelled() -> None:
    llm = ScriptedProvider([stall("Once", after=1), "next"])
    with anyio.move_on_after(0.05) as scope:
        await llm.astream("x").until_done()
    assert scope.cancelled_caught
    assert (await llm.achat("x")).text == "next"


@pytest.mark.anyio
async def test_other_tasks_run_while_a_stream_is_read() -> None:
    llm, order = ScriptedProvider("one two three"), list[str]()

    async def consume(name: str) -> None:
        async for _ in llm.astream("x"):
            order.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(consume, "a")
        group.start_soon(consume, "b")
    assert "".join(order) not in ("a" * 6 + "b" * 6, "b" * 6 + "a" * 6)


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_chunk_has_at_least_one_character(wrong: int) -> None:
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        ScriptedProvider("x", chunk=wrong)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        reply("x", chunk=wrong)


def test_a_text_and_its_pieces_are_one() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        reply("Hello", pieces=["Hel", "lo"])
