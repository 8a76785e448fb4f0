"""A real server in pooling mode: embeddings in every form, pooling, scores and rankings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from support.vllm import not_served
from vllmchat import BadRequestError, EmbedParams, RerankParams, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.vllm import LiveServer
    from vllmchat import Message

TEXTS = ["Hello", "The sky is blue.", "Grüße, 世界 🌍"]


@pytest.fixture
def pooler(pooling_server: LiveServer) -> Iterator[VLLMProvider]:
    with VLLMProvider(pooling_server.model, base_url=pooling_server.base_url, timeout=120) as provider:
        yield provider


FORMS: list[tuple[EmbedParams, float]] = [
    ({}, 1e-6),
    ({"encoding_format": "base64", "endianness": "big"}, 1e-6),
    ({"encoding_format": "bytes"}, 1e-6),
    ({"encoding_format": "bytes_only"}, 1e-6),
    ({"embed_dtype": "float16"}, 1e-3),
    ({"embed_dtype": "float16", "endianness": "big", "encoding_format": "base64"}, 1e-3),
    ({"embed_dtype": "bfloat16"}, 1e-2),
    ({"embed_dtype": "bfloat16", "endianness": "big"}, 1e-2),
    ({"embed_dtype": "fp8_e4m3"}, 0.03),
    ({"embed_dtype": "fp8_e5m2", "encoding_format": "bytes_only"}, 0.06),
]


@pytest.mark.parametrize(("params", "tolerance"), FORMS)
def test_every_form_gives_the_same(params: EmbedParams, tolerance: float, pooler: VLLMProvider) -> None:
    plain = pooler.embed(TEXTS, encoding_format="float")
    result = pooler.embed(TEXTS, **params)
    assert result.numpy().shape == plain.numpy().shape == (3, 256)
    assert np.abs(result.numpy() - plain.numpy()).max() < tolerance
    assert [each.index for each in result.data] == [0, 1, 2]
    if params.get("encoding_format") != "bytes_only":
        assert result.usage == plain.usage
        assert result.id.startswith("embd-")


def test_a_batch_is_its_parts_and_they_have_length_one(pooler: VLLMProvider) -> None:
    whole = pooler.embed(TEXTS).numpy()
    alone = np.stack([pooler.embed(text).numpy()[0] for text in TEXTS])
    assert np.abs(whole - alone).max() < 1e-4
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-4)
    bare = pooler.embed(TEXTS, use_activation=False).numpy()
    assert not np.allclose(np.linalg.norm(bare, axis=1), 1, atol=1e-2)


def test_tokens_and_conversations(pooler: VLLMProvider, pooling_server: LiveServer) -> None:
    tokens = [pooler.tokenize(text).tokens for text in TEXTS]
    by_tokens = pooler.embed(tokens).numpy()
    assert np.abs(by_tokens - pooler.embed(TEXTS).numpy()).max() < 1e-4
    conversation = pooler.embed([{"role": "user", "content": "Hello"}], add_generation_prompt=True)
    prompt = pooler.tokenize([{"role": "user", "content": "Hello"}]).tokens
    assert np.abs(conversation.numpy() - pooler.embed(prompt).numpy()).max() < 1e-4
    two: list[list[Message]] = [[{"role": "user", "content": "Hello"}], [{"role": "user", "content": "Bye"}]]
    if pooling_server.since("0.25"):
        assert pooler.embed(two).numpy().shape == (2, 256)
    else:  # one conversation only
        with pytest.raises(BadRequestError):
            pooler.embed(two)


def test_many_inputs(pooler: VLLMProvider) -> None:
    assert pooler.embed(["x"] * 512, encoding_format="bytes").numpy().shape == (512, 256)
    assert pooler.embed(["x"] * 600, embed_dtype="float16").numpy().shape == (600, 256)


def test_what_the_model_refuses(pooler: VLLMProvider, pooling_server: LiveServer) -> None:
    with pytest.raises(BadRequestError, match=r"(?i)matryoshka"):
        pooler.embed("x", dimensions=32)
    if pooling_server.since("0.22"):
        with pytest.raises(BadRequestError, match="pooling_task"):
            pooler.pool("x", task="token_embed")
    with not_served(pooling_server, "--convert classify"):
        pooler.classify("x")


def test_a_model_that_writes_has_none_of_these(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    with not_served(vllm_server, "--runner pooling --convert embed"):
        llm.embed("x")
    with not_served(vllm_server, "--runner pooling"):
        llm.pool("x")
    with not_served(vllm_server, "cross-encoder"):
        llm.score("x", "y")
    with not_served(vllm_server, "cross-encoder"):
        llm.rerank("x", ["y"])


@pytest.mark.parametrize("params", [{}, {"encoding_format": "base64"}, {"encoding_format": "bytes"}])
def test_pooling_gives_the_embedding(
    params: dict[str, str], pooler: VLLMProvider, pooling_server: LiveServer
) -> None:
    if not pooling_server.since("0.19"):  # it would give a vector for each token
        params = params | {"task": "embed"}
    result = pooler.pool(TEXTS, **params)  # type: ignore[arg-type] # one of three forms
    assert result.id.startswith(("pooling-", "pool-"))
    rows = np.stack([output.numpy() for output in result.data])
    assert np.abs(rows - pooler.embed(TEXTS).numpy()).max() < 1e-4


def test_scores_are_cosines(pooler: VLLMProvider) -> None:
    vectors = pooler.embed(TEXTS).numpy()
    result = pooler.score(TEXTS[0], TEXTS)
    assert np.abs(np.array(result.scores) - vectors @ vectors[0]).max() < 1e-3
    pairwise = pooler.score(TEXTS, TEXTS)
    assert np.allclose(pairwise.scores, 1, atol=1e-3)


@pytest.mark.anyio
async def test_awaiting(pooling_server: LiveServer, anyio_backend: str) -> None:
    async with VLLMProvider(base_url=pooling_server.base_url, timeout=120) as pooler:
        assert (await pooler.aembed(TEXTS)).numpy().shape == (3, 256)
        assert len((await pooler.apool(TEXTS)).data) == 3
        assert len((await pooler.ascore("Hello", TEXTS)).scores) == 3
        ranking = await pooler.arerank("Hello", [TEXTS[1], TEXTS[0]])
    assert ranking.order == [1, 0]
    assert ranking.results[0].document.text == "Hello"
    assert ranking.results[0].relevance_score > ranking.results[1].relevance_score


def test_the_best_only(pooler: VLLMProvider, pooling_server: LiveServer) -> None:
    params: RerankParams = {"top_n": 2}
    if pooling_server.since("0.20"):
        params["max_tokens_per_doc"] = 3
    assert len(pooler.rerank("Hello", TEXTS, **params).results) == 2
