"""Embeddings of tokens and of chunks of them.

The recorded answers are those of vLLM 0.33.0 with `--pooler-config.task token_embed`; `tests/recorded/README.md` says
what they were recorded with.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from vllmchat import (
    BadRequestError,
    InvalidRequestError,
    NotFoundError,
    ResponseError,
    TokenEmbeddings,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

SERVER = "0.33.0-token-embed"
CHUNKED = {"late_chunking_params": {"chunk_size": 5}}


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner) -> Iterator[VLLMProvider]:
    scripted.version = "0.33.0"
    provider = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    yield provider
    runner.close(provider)


def refused(runner: Runner, llm: VLLMProvider, *args: object, **params: object) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, "embed_tokens", *args, **params)
    return [str(problem) for problem in caught.value.problems]


def test_each_token_has_a_vector(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(recordings.load("token_embeddings", SERVER).body)
    result: TokenEmbeddings = runner.do(llm, "embed_tokens", "Hi")
    [request] = scripted.requests
    assert (request.method, request.path) == ("POST", "/v1/embeddings")
    assert request.json() == {"model": "m", "input": "Hi"}
    [only] = result.data
    assert only.late_chunking is None
    assert [len(vector) for vector in only.embedding] == [256, 256]
    assert [len(vector) for vector in only.vectors] == [256, 256]
    numpy = pytest.importorskip("numpy")
    rows = only.numpy()
    assert (rows.shape, rows.dtype) == ((2, 256), numpy.float32)
    assert result.usage is not None
    assert result.usage.prompt_tokens == 2
    assert result.request_id == request.headers["x-request-id"]


def test_each_chunk_has_a_vector(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    recorded = recordings.load("late_chunking", SERVER)
    scripted.reply(recorded.body)
    texts = recorded.fields["input"]
    result: TokenEmbeddings = runner.do(llm, "embed_tokens", texts, **CHUNKED)
    assert scripted.requests[-1].json() == {"model": "m", "input": texts, **CHUNKED}
    for text, each in zip(texts, result.data, strict=True):
        assert each.late_chunking is not None
        assert (each.late_chunking.strategy, each.late_chunking.chunk_size) == ("fixed_tokens", 5)
        chunks = each.late_chunking.chunks
        assert len(chunks) == len(each.embedding)
        # Ranges are in characters, not in bytes or UTF-16: the second text ends with an emoji.
        pieces = [text[slice(*chunk.char_range)] for chunk in chunks if chunk.char_range is not None]
        assert "".join(pieces) == text
        assert chunks[-1].token_range[1] == each.late_chunking.input_tokens


def test_a_chunk_of_special_tokens_has_no_text(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    # After vLLM's `LateChunk`; the tiny model has no special tokens at the ends of a text.
    chunk = {"token_range": [0, 1], "char_range": None}
    late = {"strategy": "fixed_tokens", "chunk_size": 1, "input_tokens": 1, "chunks": [chunk]}
    scripted.reply({"data": [{"index": 0, "embedding": [[0.5, 0.25]], "late_chunking": late}]})
    result: TokenEmbeddings = runner.do(llm, "embed_tokens", "Hi", late_chunking_params={"chunk_size": 1})
    assert result.data[0].late_chunking is not None
    assert result.data[0].late_chunking.chunks[0].char_range is None


def test_results_are_in_the_order_of_the_inputs(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    body = json.loads(recordings.load("token_embeddings_of_tokens", SERVER).body)
    body["data"].reverse()
    scripted.reply(body)
    result: TokenEmbeddings = runner.do(llm, "embed_tokens", [[5, 6], [7]], use_activation=False)
    assert [(each.index, len(each.embedding)) for each in result.data] == [(0, 2), (1, 1)]


def one(**fields: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"index": 0, "object": "embedding", **fields}]}


@pytest.mark.parametrize(
    ("body", "params", "reason"),
    [
        # An ordinary embedding model ignores the parameter, and answers with one vector.
        (one(embedding=[0.5, 0.25]), CHUNKED, "data.0.embedding.0"),
        (one(embedding=[0.5, 0.25]), {}, "data.0.embedding.0"),
        (one(embedding=[[0.5, 0.25]]), CHUNKED, "data[0] has 1 vectors and no chunks"),
        (
            one(embedding=[[0.5], [0.25]], late_chunking={"chunks": [{"token_range": [0, 6]}]}),
            CHUNKED,
            "data[0] has 2 vectors and 1 chunks",
        ),
        ({"data": []}, {}, "it has 0 results for 1 inputs"),
    ],
)
def test_what_is_not_a_vector_for_each_raises(
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
    body: dict[str, Any],
    params: dict[str, Any],
    reason: str,
) -> None:
    scripted.reply(body)
    with pytest.raises(ResponseError) as caught:
        runner.do(llm, "embed_tokens", "Hi", **params)
    assert f"the response is not a list of token embeddings ({reason}" in str(caught.value)


@pytest.mark.parametrize(
    ("args", "params", "problem"),
    [
        ([5, 6], CHUNKED, "input=5: must be texts that are not empty, for late chunking."),
        (["a", ""], CHUNKED, "input='': must be texts that are not empty, for late chunking."),
        ("", CHUNKED, "input='': must be texts that are not empty, for late chunking."),
        ("a", {**CHUNKED, "truncate_prompt_tokens": -1}, "truncate_prompt_tokens=-1: cannot be combined"),
        ("a", {**CHUNKED, "padding": "max_length"}, "padding='max_length': cannot be combined"),
        (
            "a",
            {"late_chunking_params": {"chunk_size": 0}},
            "late_chunking_params.chunk_size=0: must be between 1",
        ),
        ("a", {"late_chunking_params": {}}, "late_chunking_params.chunk_size: is required."),
        ("a", {"late_chunking_params": 5}, "late_chunking_params=5: must be a mapping, not an int."),
        ("a", {"chunk_size": 5}, 'Write late_chunking_params={"chunk_size": 5}.'),
        ("a", {"late_chunking": True}, 'Write late_chunking_params={"chunk_size": ...}.'),
        ("a", {"encoding_format": "base64"}, 'is always "float" for token embeddings. Leave it out.'),
        ("a", {"dimensions": 8}, "is a parameter of VLLMProvider.embed, not of VLLMProvider.embed_tokens."),
        ([{"role": "user", "content": "Hi"}], {}, "token embeddings do not accept conversations."),
    ],
)
def test_invalid_calls(
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
    args: object,
    params: dict[str, Any],
    problem: str,
) -> None:
    [found] = refused(runner, llm, args, **params)
    assert problem in found
    assert not scripted.requests


def test_padding_that_does_not_pad_is_allowed(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply({"error": {"message": "no", "code": 400}}, 400)
    with pytest.raises(BadRequestError):
        runner.do(llm, "embed_tokens", "Hi", padding="do_not_pad", **CHUNKED)


def test_embed_says_where_chunks_are(runner: Runner, llm: VLLMProvider) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, "embed", "Hi", **CHUNKED)
    [problem] = caught.value.problems
    assert "is a parameter of VLLMProvider.embed_tokens, not of VLLMProvider.embed." in str(problem)


def test_chunks_need_a_new_server(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.version = "0.32.0"
    [found] = refused(runner, llm, "Hi", **CHUNKED)
    assert found.startswith("late_chunking_params: needs vLLM 0.33 or newer")


def test_a_server_without_embeddings(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match=r"--pooler-config\.task token_embed"):
        runner.do(llm, "embed_tokens", "Hi")
