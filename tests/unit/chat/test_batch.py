"""Batches: what is sent, and what the route would misread."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from support.scripted import ScriptedServer, reply
from vllmchat import InvalidRequestError, NotFoundError, ResponseError, VLLMProvider
from vllmchat.chat.batch import batch_request
from vllmchat.http.timeout import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from support.runners import Runner

Object = dict[str, Any]

TWO: list[Any] = ["Hello", [{"role": "user", "content": "What is the capital of France?"}]]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def refused(conversations: Any = TWO, **params: Any) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        batch_request(conversations, params)
    return [str(problem) for problem in caught.value.problems]


def test_one_reply_for_each_conversation(runner: Runner, scripted: ScriptedServer) -> None:
    recorded = recordings.load("batch")
    scripted.add(reply(json.loads(recorded.body)))
    llm = VLLMProvider("tiny-qwen3", base_url=scripted.base_url)
    answer = runner.do(llm, "chat_batch", TWO, temperature=0, max_tokens=40)
    assert [choice.message.content.strip() for choice in answer.choices] == [
        "Hello! How can I help you today?",
        "The capital of France is Paris.",
    ]
    assert answer.choices[1].message.reasoning.strip().startswith("The user asks")
    assert answer.usage.total_tokens == 106
    assert scripted.requests[0].path == recorded.path
    assert scripted.requests[0].json() == recorded.request


def answered(*places: int) -> Object:
    choices = [
        {"index": place, "message": {"role": "assistant", "content": str(place)}, "finish_reason": "stop"}
        for place in places
    ]
    return {"object": "chat.completion", "choices": choices}


def test_replies_are_in_the_order_of_the_conversations(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.add(reply(answered(1, 0)))
    answer = runner.do(VLLMProvider("m", base_url=scripted.base_url), "chat_batch", TWO)
    assert [choice.message.content for choice in answer.choices] == ["0", "1"]


@pytest.mark.parametrize("places", [(0,), (0, 1, 2)])
def test_each_conversation_has_one_reply(scripted: ScriptedServer, places: tuple[int, ...]) -> None:
    scripted.add(reply(answered(*places)))
    with pytest.raises(ResponseError, match=f"it has {len(places)} results for 2 inputs"):
        VLLMProvider("m", base_url=scripted.base_url).chat_batch(TWO)


def test_conversations_in_extra_body_are_not_counted(scripted: ScriptedServer) -> None:
    scripted.add(reply(answered(0)))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert len(llm.chat_batch(TWO, extra_body={"messages": [TWO[1]]}).choices) == 1


def test_an_old_server_does_not_have_the_route(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.add(reply({"detail": "Not Found"}, 404))
    with pytest.raises(NotFoundError, match=r"Batches of chats need vLLM 0\.19 or newer"):
        runner.do(VLLMProvider("m", base_url=scripted.base_url), "chat_batch", TWO)


def test_valid_parameters() -> None:
    params = {
        "n": 1,
        "tool_choice": "none",
        "use_beam_search": False,
        "prompt_logprobs": 0,
        "enable_thinking": False,
    }
    request = batch_request(
        TWO, {**params, "return_prompt_text": False, "kv_transfer_params": None, "tools": None}
    )
    body = json.loads(request.call("m", DEFAULT_TIMEOUT).body or b"")
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["messages"] == [[{"role": "user", "content": "Hello"}], TWO[1]]
    assert "stream" not in body


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"tools": TOOLS},
            "the server would offer no tools and parse no calls. Send the conversations one by one",
        ),
        ({"n": 2}, "n=2: must be 1 in a batch"),
        ({"use_beam_search": True}, "use_beam_search=True: is not supported in batches."),
        ({"prompt_logprobs": 5}, "would compute them but not return them"),
        ({"return_prompt_text": True}, "would not return it"),
        ({"routed_experts_prompt_start": 0}, "would not return the experts"),
        ({"kv_transfer_params": {"prompt_token_ids": [1]}}, "it describes a single prompt"),
        ({"ec_transfer_params": {"a": 1}}, "the server would not return the result"),
        ({"extra_body": {"tools": TOOLS}}, "extra_body.tools: is not supported in batches"),
        ({"stream_options": {"include_usage": True}}, "requires streaming"),
        ({"temperature": 3}, "temperature=3: must be between 0 and 2."),
        ({"stream": True}, "the method decides"),
    ],
)
def test_parameters_the_route_would_misread_are_rejected(params: Object, said: str) -> None:
    (problem,) = refused(**params)
    assert said in problem


def test_all_problems_are_reported_once() -> None:
    problems = refused(["Hello", 5], tools="x", tool_choice="required", n=0, temperature=3)
    assert [each.partition("=")[0].partition(":")[0] for each in problems] == [
        "conversations[1]",
        "temperature",
        "tools",
        "tool_choice",
        "n",
    ]


NOTHING: list[Object] = []


@pytest.mark.parametrize(
    ("conversations", "said"),
    [
        (
            "Hello",
            "conversations: must be a list of conversations, not a str. For one conversation, call .chat(...).",
        ),
        ({"role": "user"}, "must be a list of conversations, not a dict."),
        (5, "must be a list of conversations, not an int."),
        (NOTHING, "conversations=[]: must not be empty."),
        (["Hello", NOTHING], "conversations[1]=[]: must not be empty."),
        (
            [{"role": "user", "content": "Hi"}],
            "conversations[0]: must be a text or a list of messages, not one message",
        ),
        ([[{"content": "Hi"}]], "conversations[0][0]"),
        ([None], "conversations[0]: must be a str or a list of messages, not None."),
    ],
)
def test_invalid_batches(conversations: Any, said: str) -> None:
    (problem,) = refused(conversations)
    assert said in problem
