"""Requests: every parameter of the block, once, and none of MassGen's options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from support.fake_vllm import QUESTION, WORKFLOW, FakeVLLM, collected, kinds, only, says
from vllmchat.adapters.massgen import VLLMBackend
from vllmchat.adapters.massgen.patch import massgen_names
from vllmchat.chat.check import VLLM_CHAT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_up"}}

BODY_BY_PARAMETER: dict[str, tuple[Any, dict[str, Any]]] = {
    # YAML value -> what the body must contain; None: the same value under the same name
    **{
        name: (value, {name: value})
        for name, value in {
            "add_generation_prompt": True,
            "add_special_tokens": False,
            "allowed_token_ids": [1, 2],
            "bad_words": ["bad"],
            "cache_salt": "salt",
            "chat_template": "{{ messages }}",
            "chat_template_kwargs": {"enable_thinking": False},
            "documents": [{"title": "A"}],
            "ec_transfer_params": {"a": 1},
            "echo": False,
            "frequency_penalty": 0.5,
            "ignore_eos": False,
            "include_reasoning": True,
            "include_stop_str_in_output": False,
            "kv_transfer_params": {"a": 1},
            "length_penalty": 1.0,
            "logit_bias": {"5": 1.5},
            "logprobs": True,
            "max_completion_tokens": 100,
            "max_tokens": 100,
            "media_io_kwargs": {"video": {"fps": 1}},
            "min_p": 0.1,
            "min_tokens": 1,
            "mm_payload": "none",
            "mm_processor_kwargs": {"size": 1},
            "n": 1,
            "parallel_tool_calls": False,
            "presence_penalty": 0.5,
            "priority": 3,
            "prompt_logprobs": 0,
            "reasoning_effort": "low",
            "repetition_detection": {"max_pattern_size": 8, "min_pattern_size": 2, "min_count": 3},
            "repetition_penalty": 1.2,
            "request_id": "r1",
            "response_format": {"type": "json_object"},
            "return_mm_kwargs": False,
            "return_prompt_text": False,
            "return_token_ids": False,
            "return_token_offsets": False,
            "return_tokens_as_token_ids": False,
            "return_weight_versions": False,
            "routed_experts_prompt_start": 0,
            "seed": 7,
            "session_id": "conversation-1",
            "skip_special_tokens": True,
            "spaces_between_special_tokens": True,
            "stop": ["END"],
            "stop_token_ids": [1],
            "stream_interval": 2,
            "structured_outputs": {"regex": "[0-9]+"},
            "temperature": 0,
            "thinking_token_budget": 64,
            "tool_choice": "auto",
            "top_k": 50,
            "top_p": 0.9,
            "truncate_prompt_tokens": 100,
            "truncation_side": "left",
            "use_beam_search": False,
            "user": "me",
            "vllm_xargs": {"a": 1},
            "watermarking": False,
        }.items()
    },
    "continue_final_message": (True, {"continue_final_message": True, "add_generation_prompt": False}),
    "enable_thinking": (True, {"chat_template_kwargs": {"enable_thinking": True}}),
    "extra_body": ({"a_new_field": 1}, {"a_new_field": 1}),
    "stream_options": (
        {"continuous_usage_stats": True},
        {"stream_options": {"continuous_usage_stats": True, "include_usage": True}},
    ),
}
"""A value for each parameter, and what the server must receive."""

NEEDED = {
    "top_logprobs": {"logprobs": True},
    "logprob_token_ids": {"logprobs": True},
}
BODY_BY_PARAMETER["top_logprobs"] = (2, {"top_logprobs": 2})
BODY_BY_PARAMETER["logprob_token_ids"] = ([1], {"logprob_token_ids": [1]})

ELSEWHERE = {"data_parallel_rank", "extra_headers", "max_retry_seconds", "timeout", "tools"}
"""Parameters that are not fields of the body, or that are added to what MassGen passes."""

PLAIN = {"messages", "model", "stream", "stream_options", "tools"}
"""The fields of a request without parameters."""


def test_there_is_a_value_for_every_parameter() -> None:
    assert set(BODY_BY_PARAMETER) | ELSEWHERE == VLLM_CHAT_NAMES


@pytest.mark.parametrize("name", sorted(BODY_BY_PARAMETER))
async def test_a_parameter_of_the_block_reaches_the_server_once(
    agent: Callable[..., Any], fake_vllm: FakeVLLM, name: str
) -> None:
    value, expected = BODY_BY_PARAMETER[name]
    needed = NEEDED.get(name, {})
    fake_vllm.always(says(text="42"))
    made = agent(**{name: value}, **needed)
    chunks = await collected(made.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert kinds(chunks) == ["content", "done"], chunks
    # MassGen's summaries, personas and memory call the backend like this, without the block.
    await collected(made.backend.stream_with_tools(QUESTION, []))
    assert len(fake_vllm.chats) == 2
    for request in fake_vllm.chats:
        pairs: list[tuple[str, Any]] = json.loads(request.body, object_pairs_hook=list)
        body = request.json()
        assert {field: body[field] for field in expected} == expected
        assert set(body) == {*PLAIN, *expected, *needed}
        names = [field for field, _ in pairs]
        assert len(names) == len(set(names))


async def test_a_header_of_the_block_is_sent(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    fake_vllm.next(says(text="42"))
    await collected(agent(extra_headers={"X-Team": "blue"}).chat(QUESTION, WORKFLOW, reset_chat=True))
    (request,) = fake_vllm.chats
    assert request.headers["x-team"] == "blue"
    assert set(request.json()) == PLAIN


async def test_a_block_may_say_that_it_streams(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    fake_vllm.next(says(text="42"))
    await collected(agent(stream=True).chat(QUESTION, WORKFLOW, reset_chat=True))
    assert set(fake_vllm.bodies[0]) == PLAIN


async def test_a_timeout_of_the_block_applies(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    from support.scripted import never, script

    fake_vllm.next(script(never))
    chunks = await collected(agent(timeout={"first_token": 0.2}).chat(QUESTION, WORKFLOW, reset_chat=True))
    assert "first_token" in (only(chunks, "error").error or "")


async def test_tools_of_the_block_are_added_to_massgens(
    agent: Callable[..., Any], fake_vllm: FakeVLLM
) -> None:
    fake_vllm.next(says(text="42"))
    await collected(agent(tools=[TOOL]).chat(QUESTION, WORKFLOW, reset_chat=True))
    names = [tool["function"]["name"] for tool in fake_vllm.bodies[0]["tools"]]
    assert names.count("look_up") == names.count("vote") == names.count("new_answer") == 1


async def test_nothing_of_massgens_is_sent(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    block: dict[str, Any] = {
        "api_key": "secret",
        "enable_rate_limit": True,
        "instance_id": "i1",
        "llm_circuit_breaker_enabled": True,
        "max_incomplete_response_retries": 2,
        "max_mcp_message_history": 50,
        "provider_name": "mine",
        "system_prompt": "Be brief.",
        "vote_only": False,
        "voting_sensitivity": "strict",
        "hooks": {},
        "_internal": 1,
    }
    fake_vllm.next(says(text="42"))
    await collected(agent(**block).chat(QUESTION, WORKFLOW, reset_chat=True))
    (request,) = fake_vllm.chats
    assert set(request.json()) == PLAIN
    assert request.headers["authorization"] == "Bearer secret"
    assert not set(request.json()) & (massgen_names() - VLLM_CHAT_NAMES - {"model", "stream"})


async def test_without_tools_there_is_no_choice_of_one(
    fake_vllm: FakeVLLM, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolless = VLLMBackend(
        model=model, base_url=fake_vllm.base_url, tool_choice="auto", parallel_tool_calls=False
    )
    monkeypatch.setattr(toolless.api_params_handler, "get_custom_tools", list[Any])
    fake_vllm.next(says(text="42"))
    await collected(toolless.stream_with_tools(QUESTION, []))
    assert set(fake_vllm.bodies[0]) == PLAIN - {"tools"}


async def test_the_block_is_not_changed(agent: Callable[..., Any], fake_vllm: FakeVLLM) -> None:
    extra = {"a_new_field": 1}
    template = {"a": 1}
    fake_vllm.always(says(text="42"))
    made = agent(extra_body=extra, chat_template_kwargs=template, enable_thinking=True)
    for _ in range(2):
        await collected(made.chat(QUESTION, WORKFLOW, reset_chat=True))
    assert (extra, template) == ({"a_new_field": 1}, {"a": 1})
    assert fake_vllm.bodies[0]["chat_template_kwargs"] == {"a": 1, "enable_thinking": True}


# The method for subclasses to override


def test_the_extra_body_is_what_only_vllm_knows() -> None:
    kwargs: dict[str, Any] = {
        "top_k": 50,
        "repetition_penalty": 1.2,
        "enable_thinking": True,
        "chat_template_kwargs": {"style": "short"},
        "temperature": 0.5,
        "min_p": None,
    }
    backend = VLLMBackend(model="m")
    extra = backend._build_vllm_extra_body(kwargs)  # pyright: ignore[reportPrivateUsage]  # people override it
    assert extra == {
        "top_k": 50,
        "repetition_penalty": 1.2,
        "chat_template_kwargs": {"style": "short", "enable_thinking": True},
    }
    assert kwargs == {"temperature": 0.5}


class Flavoured(VLLMBackend):
    """A backend with a key of its own."""

    parameter_names: ClassVar[frozenset[str]] = frozenset({"flavour"})

    def _build_vllm_extra_body(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        flavour = kwargs.pop("flavour", None)
        extra = super()._build_vllm_extra_body(kwargs)
        return {**extra, "x_flavour": flavour, "top_p": 0.8}


async def test_a_subclass_may_add_to_the_request(fake_vllm: FakeVLLM, model: str) -> None:
    fake_vllm.next(says(text="42"))
    flavoured = Flavoured(
        model=model, base_url=fake_vllm.base_url, flavour="mint", top_k=5, extra_body={"b": 1}
    )
    await collected(flavoured.stream_with_tools(QUESTION, WORKFLOW))
    (body,) = fake_vllm.bodies
    assert set(body) == {*PLAIN, "x_flavour", "top_p", "top_k", "b"}
    assert (body["x_flavour"], body["top_p"], body["top_k"], body["b"]) == ("mint", 0.8, 5, 1)
