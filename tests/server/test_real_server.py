"""A real server asked what it is and how it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from support.vllm import API_KEY
from vllm_server import EXAMPLES_MODEL_NAME, TINY_MODEL_NAME
from vllmchat import AuthenticationError, InvalidRequestError, OpenAIProvider, VLLMProvider

if TYPE_CHECKING:
    from support.vllm import LiveServer

NAMES = [TINY_MODEL_NAME, EXAMPLES_MODEL_NAME]


def test_it_says_what_it_is(vllm_server: LiveServer) -> None:
    with VLLMProvider(base_url=vllm_server.base_url) as llm:
        assert llm.health() is True
        assert llm.version() == vllm_server.version
        assert llm.load() == 0
        model, alias = llm.models().data
        assert (model.id, model.max_model_len, model.owned_by) == (vllm_server.model, 2048, "vllm")
        assert (alias.id, alias.root, alias.parent) == (EXAMPLES_MODEL_NAME, model.root, None)
        llm.ready(10)


def test_several_names_of_its_model_are_no_choice(vllm_server: LiveServer) -> None:
    with VLLMProvider(base_url=vllm_server.base_url) as llm:
        assert llm.chat("Hello", max_tokens=1).model == vllm_server.model
        assert llm.model == vllm_server.model
        by_alias = llm.chat("Hello", model=EXAMPLES_MODEL_NAME, temperature=0)
        assert by_alias.text == llm.chat("Hello", temperature=0).text


@pytest.mark.anyio
async def test_it_says_so_to_those_who_await(vllm_server: LiveServer) -> None:
    async with VLLMProvider(base_url=vllm_server.base_url) as llm:
        assert await llm.ahealth() is True
        assert await llm.aversion() == vllm_server.version
        assert await llm.aload() == 0
        assert [model.id for model in (await llm.amodels()).data] == NAMES
        await llm.aready(10, model=vllm_server.model)


def test_other_providers_ask_for_models_too(vllm_server: LiveServer) -> None:
    with OpenAIProvider(base_url=vllm_server.base_url) as llm:
        assert [model.id for model in llm.models().data] == NAMES


def test_what_needs_no_key_and_what_does(keyed_server: LiveServer) -> None:
    with VLLMProvider(base_url=keyed_server.base_url, api_key="wrong") as llm:
        assert llm.health() is True
        assert llm.version() == keyed_server.version
        assert llm.load() == 0
        assert len(llm.metrics()) > 0
        with pytest.raises(AuthenticationError):
            llm.models()
        # Waiting does not make a key right.
        with pytest.raises(AuthenticationError):
            llm.ready(60)
        llm.with_options(api_key=API_KEY).ready(10)


def test_a_model_that_is_not_served_is_not_waited_for(vllm_server: LiveServer) -> None:
    begun = time.monotonic()
    with (
        VLLMProvider("other", base_url=vllm_server.base_url) as llm,
        pytest.raises(
            InvalidRequestError, match=f"is not served by this server, which serves {', '.join(NAMES)}"
        ),
    ):
        llm.ready(60)
    assert time.monotonic() - begun < 30


def test_metrics_count_what_is_generated(vllm_server: LiveServer) -> None:
    with VLLMProvider(base_url=vllm_server.base_url) as llm:
        before = llm.metrics()
        reply = llm.chat("Hello", temperature=0)
        after = llm.metrics()
    assert reply.usage is not None
    assert before.prompt_tokens is not None
    assert before.generation_tokens is not None
    assert after.prompt_tokens == before.prompt_tokens + reply.usage.prompt_tokens
    assert after.generation_tokens == before.generation_tokens + reply.usage.completion_tokens
    assert after.requests_finished["stop"] == before.requests_finished["stop"] + 1
    assert after.kv_cache_usage is not None
    assert 0 <= after.kv_cache_usage <= 1
    assert after.requests_running is not None
    assert after.requests_waiting is not None
    for histogram in (
        after.time_to_first_token,
        after.inter_token_latency,
        after.request_latency,
        after.queue_time,
    ):
        assert histogram is not None
        assert histogram.mean is not None
    assert after["vllm:cache_config_info"].samples[0].labels["enable_prefix_caching"] == "True"


def test_a_pooling_server_has_the_same_methods(pooling_server: LiveServer) -> None:
    with VLLMProvider(base_url=pooling_server.base_url) as llm:
        llm.ready(10)
        assert llm.version() == pooling_server.version
        assert [model.id for model in llm.models().data] == [pooling_server.model]
        assert llm.metrics().requests_running == 0
