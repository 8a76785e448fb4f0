"""A reply goes back into the history as it is, and the model goes on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from vllmchat import ChatCompletion, VLLMChatParams
from vllmchat.chat.messages import tool_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.vllm import LiveServer
    from tiny_model.dialogues import Script
    from vllmchat import ChatMessage, Message, VLLMProvider
    from vllmchat.schemas.tool_params import FunctionTool

    History = list[Message | ChatMessage]
    Ask = Callable[[VLLMProvider, History, VLLMChatParams], ChatCompletion]

WEATHER = {"Paris": "21 C, sunny", "Oslo": "4 C, rain"}


def by_chat(llm: VLLMProvider, history: History, params: VLLMChatParams) -> ChatCompletion:
    return llm.chat(history, **params)


def by_stream(llm: VLLMProvider, history: History, params: VLLMChatParams) -> ChatCompletion:
    return llm.stream(history, **params).until_done()


def tools(script: Script) -> list[FunctionTool]:
    return cast("list[FunctionTool]", list(script["weather_paris"].tools))


def prompt_of(llm: VLLMProvider, reply: ChatCompletion) -> str:
    """The prompt that a reply was made from; `return_prompt_text` would need vLLM 0.21."""
    assert reply.prompt_token_ids
    return llm.detokenize(reply.prompt_token_ids)


@pytest.mark.parametrize("ask", [by_chat, by_stream])
@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("which", ["weather_paris", "weather_oslo", "weather_both"])
def test_a_tool_is_called_and_its_result_told(
    llm: VLLMProvider, vllm_server: LiveServer, script: Script, ask: Ask, which: str, thinking: bool
) -> None:
    params = VLLMChatParams(temperature=0, enable_thinking=thinking, tools=tools(script))
    history: History = list(cast("list[Message]", list(script[which].messages)))

    reply = ask(llm, history, params)
    kept = vllm_server.kept
    assert kept(reply.message.reasoning) == kept(script[which].thoughts(thinking=thinking))
    history.append(reply.message)
    for call in reply.tool_calls:
        history.append(tool_message(call, WEATHER[str(call.parse()["city"])]))
    answer = ask(llm, history, params)

    told = script[f"{which}_told"]
    assert answer.tool_calls == []
    assert kept(answer.message.content) == kept(told.content(thinking=thinking))
    assert kept(answer.message.reasoning) == kept(told.thoughts(thinking=thinking))
    assert answer.text == told.answer
    # What was sent has not been touched.
    assert history[1] is reply.message
    assert reply.message.to_request()["role"] == "assistant"


@pytest.mark.parametrize("ask", [by_chat, by_stream])
def test_a_second_question_knows_the_first(llm: VLLMProvider, script: Script, ask: Ask) -> None:
    params = VLLMChatParams(temperature=0, enable_thinking=False)
    history: History = [{"role": "user", "content": "What is the capital of France?"}]
    history.append(ask(llm, history, params).message)
    history.append({"role": "user", "content": "And of Norway?"})
    assert ask(llm, history, params).text == script["follow_up"].answer


def test_reasoning_goes_back_with_the_message(llm: VLLMProvider) -> None:
    reply = llm.chat("What is the capital of France?", temperature=0)
    assert reply.reasoning
    # With the line breaks around both, which the model wrote.
    assert reply.message.to_request() == {
        "role": "assistant",
        "content": f"\n\n{reply.text}",
        "reasoning": f"\n{reply.reasoning}\n",
    }
    # The server takes it, and its template decides whether the model sees it.
    history: History = [
        {"role": "user", "content": "What is the capital of France?"},
        reply.message,
        {"role": "user", "content": "And of Norway?"},
    ]
    again = llm.chat(history, chat_template_kwargs={"enable_thinking": False}, return_token_ids=True)
    assert "The capital of France is Paris.<|im_end|>" in prompt_of(llm, again)


def test_content_in_parts(llm: VLLMProvider, script: Script) -> None:
    messages: list[Message] = [
        {"role": "system", "content": [{"type": "text", "text": "You are terse."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is the capital "},
                {"type": "text", "text": "of France?"},
            ],
        },
    ]
    reply = llm.chat(messages, temperature=0, enable_thinking=False, return_token_ids=True)
    prompt = prompt_of(llm, reply)
    assert "You are terse." in prompt
    assert "What is the capital \nof France?" in prompt  # vLLM joins parts with line breaks
    assert reply.text


def test_roles_and_keys_of_ones_own_reach_the_template(llm: VLLMProvider) -> None:
    messages: list[Message] = [
        {"role": "developer", "content": "You are terse."},
        {"role": "user", "content": "Hello", "name": "Ada"},
    ]
    reply = llm.chat(messages, temperature=0, enable_thinking=False, return_token_ids=True)
    assert reply.text == "Hello! How can I help you today?"
    assert prompt_of(llm, reply).startswith("<|im_start|>system\nYou are terse.<|im_end|>")
