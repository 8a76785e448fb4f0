"""`OpenAIProvider` has the methods of OpenAI's own endpoints, with the parameters of OpenAI's API."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat import (
    InvalidRequestError,
    NotFoundError,
    OpenAIProvider,
    Transcription,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

METHODS = {
    "chat", "stream", "parse", "stream_parse", "choose", "map", "run_tools", "stream_run_tools", "complete",
    "stream_complete", "respond", "stream_respond", "embed", "transcribe", "translate", "models",
    "get", "post",
}  # fmt: skip
MESSAGE: dict[str, Any] = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello!", "annotations": []}],
}
RESPONSE: dict[str, Any] = {"id": "resp_1", "object": "response", "status": "completed", "output": [MESSAGE]}


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner) -> Iterator[OpenAIProvider]:
    llm = OpenAIProvider("m", base_url=scripted.base_url, max_retries=0)
    yield llm
    runner.close(llm)


def test_the_methods() -> None:
    public = {
        name
        for name, _ in inspect.getmembers(OpenAIProvider, inspect.isfunction)
        if not name.startswith("_") and name not in ("close", "aclose", "with_options")
    }
    assert public == METHODS | {f"a{name}" for name in METHODS}
    assert public < {name for name, _ in inspect.getmembers(VLLMProvider, inspect.isfunction)}


def test_respond(llm: OpenAIProvider, scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(RESPONSE)
    params: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0,
        "instructions": "Be short.",
        "reasoning": {"effort": "low"},
        "service_tier": "flex",
        "conversation": "conv_1",
    }
    assert runner.do(llm, "respond", "Hi", **params).text == "Hello!"
    [request] = scripted.requests
    assert (request.path, request.json()) == ("/v1/responses", {"model": "m", "input": "Hi", **params})


def test_stream_respond(llm: OpenAIProvider, scripted: ScriptedServer, runner: Runner) -> None:
    created: dict[str, Any] = {**RESPONSE, "status": "in_progress", "output": []}
    delta: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "Hello!"}
    scripted.stream(
        [
            {"type": "response.created", "response": created},
            {"type": "response.output_item.added", "output_index": 0, "item": {**MESSAGE, "content": []}},
            {"type": "response.output_text.delta", **delta},
            {"type": "response.completed", "response": RESPONSE},
        ],
        done=False,
    )
    assert runner.open(llm, "stream_respond", "Hi", temperature=0).until_done().text == "Hello!"
    body: Any = scripted.requests[0].json()
    assert body == {"model": "m", "input": "Hi", "temperature": 0, "stream": True}


@pytest.mark.parametrize(("inputs", "count"), [("a", 1), (["a", "b"], 2), ([1, 2], 1), ([[1], [2]], 2)])
@pytest.mark.parametrize("packed", [False, True])
def test_embed(
    inputs: object, count: int, packed: bool, llm: OpenAIProvider, scripted: ScriptedServer, runner: Runner
) -> None:
    vector: object = "AAAAPwAAgD8=" if packed else [0.5, 1.0]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    scripted.reply(
        {"object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    )
    params: dict[str, Any] = {"encoding_format": "base64"} if packed else {"dimensions": 2, "user": "u"}
    assert runner.do(llm, "embed", inputs, **params).vectors == [[0.5, 1.0]] * count
    [request] = scripted.requests
    assert (request.path, request.json()) == ("/v1/embeddings", {"model": "m", "input": inputs, **params})


@pytest.mark.parametrize(
    ("method", "path"), [("transcribe", "transcriptions"), ("translate", "translations")]
)
def test_speech(
    method: str, path: str, llm: OpenAIProvider, scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply({"text": "Good morning."})
    heard: Transcription = runner.do(llm, method, b"RIFF", temperature=0, prompt="Greetings")
    assert heard.text == "Good morning."
    [request] = scripted.requests
    assert request.path == f"/v1/audio/{path}"
    assert b'name="model"\r\n\r\nm\r\n' in request.body
    assert b'name="temperature"\r\n\r\n0\r\n' in request.body
    assert b"RIFF" in request.body


def test_word_timestamps(llm: OpenAIProvider, scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply({"text": "Hi", "words": [{"word": "Hi", "start": 0.0, "end": 0.5}]})
    params: dict[str, Any] = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    heard: Transcription = runner.do(llm, "transcribe", b"RIFF", **params)
    assert heard.text == "Hi"
    assert b'name="timestamp_granularities[]"\r\n\r\nword\r\n' in scripted.requests[0].body


@pytest.mark.parametrize(
    ("method", "argument", "params", "says"),
    [
        ("respond", "Hi", {"top_k": 5}, "top_k=5: is a parameter of vLLM, not of OpenAI's API. Use VLLMProvider"),
        ("respond", "Hi", {"structured_outputs": {"regex": "a"}}, "is a parameter of vLLM, not of OpenAI's API."),
        ("respond", "Hi", {"max_tokens": 5}, "Write `max_output_tokens=5`."),
        ("respond", "Hi", {"stop": "x"}, "is a parameter of"),
        ("embed", "Hi", {"truncate_prompt_tokens": 5}, "is a parameter of vLLM, not of OpenAI's API."),
        ("embed", "Hi", {"encoding_format": "bytes"}, 'must be "float" or "base64".'),
        ("embed", [{"role": "user", "content": "Hi"}], {}, "input: must be text or tokens: OpenAI's API embeds no"),
        ("transcribe", b"RIFF", {"hotwords": "x"}, "is a parameter of vLLM, not of OpenAI's API."),
        ("transcribe", b"RIFF", {"stream": True}, "stream=True: is not supported"),
        ("transcribe", b"RIFF", {"timestamp_granularities": ["word"]}, 'needs response_format="verbose_json".'),
        ("translate", b"RIFF", {"language": "en"}, "is a parameter of vLLM, not of OpenAI's API."),
        ("translate", b"RIFF", {"temperature": 2}, "temperature=2: must be between 0 and 1."),
    ],
)  # fmt: skip
def test_only_what_openais_api_has(
    method: str, argument: object, params: dict[str, object], says: str, llm: OpenAIProvider, runner: Runner
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, method, argument, **params)
    assert says in str(caught.value)
    assert "OpenAIProvider" in str(caught.value) or "VLLMProvider." not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "argument"),
    [("respond", "Hi"), ("embed", "Hi"), ("transcribe", b"RIFF"), ("translate", b"RIFF")],
)
def test_a_server_without_the_route_need_not_be_vllm(
    method: str, argument: object, llm: OpenAIProvider, scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match="does not have the route /v1/") as caught:
        runner.do(llm, method, argument)
    assert "vLLM" not in str(caught.value)
    assert "--runner" not in str(caught.value)
