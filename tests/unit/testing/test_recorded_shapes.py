"""A fake server answers in the shape in which a real vLLM 0.32 answered the same request."""

from __future__ import annotations

import re

import httpx
import pytest

from support import recordings
from support.shapes import differences, fake_answer, seen
from vllmchat import VLLMProvider
from vllmchat.testing import FakeServer

NAMES = [
    "chat",
    "chat_json_schema",
    "chat_length",
    "chat_logprobs",
    "chat_n2",
    "chat_reasoning",
    "chat_token_ids",
    "chat_tool_call",
    "chat_tool_calls_parallel",
    "chat_tool_named",
    "chat_tool_required",
    "chat_vllm_params",
    "completion",
    "completion_stream",
    "detokenize",
    "embeddings",
    "embeddings_base64",
    "embeddings_messages",
    "error_auth_missing",
    "error_auth_wrong",
    "error_context",
    "error_empty_messages",
    "error_json_body",
    "error_max_tokens",
    "error_method",
    "error_model",
    "error_not_found",
    "error_temperature",
    "health",
    "load",
    "models",
    "stream",
    "stream_continuous_usage",
    "stream_logprobs_token_ids",
    "stream_n2",
    "stream_reasoning",
    "stream_tool_call",
    "stream_tool_calls_parallel",
    "stream_tool_required",
    "stream_unicode",
    "tokenize",
    "tokenize_chat",
    "version",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_is_that_of_a_real_answer(name: str) -> None:
    recording = recordings.load(name)
    real = seen(recording.status, recording.headers.get("content-type", ""), recording.body)
    fake = fake_answer(
        recording.method,
        recording.path,
        recording.request,
        {},
        real,
        recording.body,
        model=recording.fields.get("model", "tiny-qwen3") if recording.status == 200 else "tiny-qwen3",
        api_key="key-of-the-test" if name.startswith("error_auth") else None,
    )
    assert differences(fake, real) == []


def test_the_metrics_have_the_names_of_real_ones() -> None:
    recording = recordings.load("metrics")
    with FakeServer("ok") as server, VLLMProvider("m", base_url=server.base_url) as llm:
        llm.chat("x")
        text = httpx.get(f"{server.url}/metrics")
    types = [line for line in text.text.splitlines() if line.startswith("# TYPE")]
    assert types
    assert set(types) <= set(recording.body.decode().splitlines())
    assert text.headers["content-type"] == recording.headers["content-type"]
    labels = re.findall(r"vllm:request_success_total\{(.*?)\} 1", text.text)
    assert [re.findall(r"(\w+)=", each) for each in labels] == [["engine", "finished_reason", "model_name"]]
