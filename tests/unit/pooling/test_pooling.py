"""Embeddings, pooling, classes and scores: requests, responses, and what is rejected."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from support import recordings
from vllmchat import (
    ChatMessage,
    Classifications,
    Embeddings,
    InvalidRequestError,
    NotFoundError,
    PoolingOutputs,
    Ranking,
    ResponseError,
    Scores,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

CHAT = [{"role": "user", "content": "Hello"}]
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner) -> Iterator[VLLMProvider]:
    provider = VLLMProvider("m", base_url=scripted.base_url)
    yield provider
    runner.close(provider)


def refused(runner: Runner, llm: VLLMProvider, method: str, *args: object, **params: object) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, method, *args, **params)
    return [str(problem) for problem in caught.value.problems]


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def answer(*rows: object, key: str = "embedding") -> dict[str, object]:
    data = [{"index": place, "object": key, key: row} for place, row in enumerate(rows)]
    return {"id": "x-1", "object": "list", "created": 1, "model": "m", "data": data, "usage": None}


def metadata(*shapes: list[int], dtype: str = "float32", size: int = 4) -> dict[str, str]:
    items: list[dict[str, object]] = []
    end = 0
    for place, shape in enumerate(shapes):
        start, end = end, end + int(np.prod(shape)) * size
        items.append(
            {
                "index": place,
                "embed_dtype": dtype,
                "endianness": "little",
                "start": start,
                "end": end,
                "shape": shape,
            }
        )
    told = {"id": "embd-1", "created": 7, "model": "m", "data": items, "usage": {"prompt_tokens": 2}}
    return {**OCTETS, "metadata": json.dumps(told)}


# Embeddings


def test_embeddings_come_as_base64(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    recorded = recordings.load("embeddings_base64")
    scripted.reply(recorded.body)
    result: Embeddings = runner.do(llm, "embed", "Hello")
    [request] = scripted.requests
    assert (request.method, request.path) == ("POST", "/v1/embeddings")
    assert request.json() == {
        "model": "m",
        "input": "Hello",
        "encoding_format": "base64",
        "endianness": "little",
    }
    plain = json.loads(recordings.load("embeddings").body)["data"][0]["embedding"]
    assert result.vector == result.vectors[0] == plain
    assert result.numpy().shape == (1, 256)
    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.model) == (1, "tiny-embed")
    assert result.id.startswith("embd-")
    assert result.request_id == request.headers["x-request-id"]


def test_embeddings_come_as_json(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    recorded = recordings.load("embeddings")
    scripted.reply(recorded.body)
    result: Embeddings = runner.do(llm, "embed", ["Hello", "world"], encoding_format="float")
    assert scripted.requests[0].json() == {
        "model": "m",
        "input": ["Hello", "world"],
        "encoding_format": "float",
    }
    assert result.vectors == [each["embedding"] for each in json.loads(recorded.body)["data"]]
    assert json.loads(result.model_dump_json())["data"] == json.loads(recorded.body)["data"]
    assert result.numpy().dtype == np.float32
    assert result.numpy().shape == (2, 256)


@pytest.mark.parametrize(
    ("inputs", "sent", "count"),
    [
        ((1, 2, 3), {"input": [1, 2, 3]}, 1),
        ([[1, 2], (3,)], {"input": [[1, 2], [3]]}, 2),
        (("a", "b", ""), {"input": ["a", "b", ""]}, 3),
        (CHAT, {"messages": CHAT}, 1),
        (
            [ChatMessage(content="Hi")],
            {"messages": [{"role": "assistant", "content": "Hi"}]},
            1,
        ),
        (
            [CHAT, [ChatMessage(content="Hi")]],
            {"messages": [CHAT, [{"role": "assistant", "content": "Hi"}]]},
            2,
        ),
    ],
)
def test_inputs(
    inputs: object, sent: object, count: int, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(answer(*[[1.0]] * count))
    result: Embeddings = runner.do(llm, "embed", inputs, dimensions=1)
    body: Any = scripted.requests[0].json()
    assert body.pop("dimensions") == 1
    assert {name: value for name, value in body.items() if name in ("input", "messages")} == sent
    assert result.vectors == [[1.0]] * count


def test_conversations_accept_template_parameters(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.version = "0.33.0"
    scripted.reply(recordings.load("embeddings_messages").body)
    runner.do(llm, "embed", CHAT, enable_thinking=False, continue_final_message=True, timeout=5)
    body: Any = scripted.requests[0].json()
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["add_generation_prompt"] is False
    problems = refused(runner, llm, "embed", "text", enable_thinking=False, add_generation_promt=True)
    assert problems == [
        (
            "enable_thinking=False: is only for conversations, which go through a chat template; this input is not a "
            "conversation."
        ),
        (
            "add_generation_promt=True: is probably `add_generation_prompt`, which is only for conversations, which go "
            "through a chat template; this input is not a conversation."
        ),
    ]


def test_bytes_with_metadata(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(struct.pack("<4e", 1, 2, 3, 4), headers=metadata([2], [2], dtype="float16", size=2))
    result: Embeddings = runner.do(llm, "embed", ["a", "b"], embed_dtype="float16")
    body: Any = scripted.requests[0].json()
    assert (body["encoding_format"], body["embed_dtype"]) == ("bytes", "float16")
    assert result.vectors == [[1, 2], [3, 4]]
    assert (result.id, result.created, result.model) == ("embd-1", 7, "m")
    assert result.usage is not None
    assert result.usage.prompt_tokens == 2
    assert result.request_id


def test_bytes_without_metadata_are_split_evenly(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(struct.pack(">6f", *range(6)), headers=OCTETS)
    result: Embeddings = runner.do(
        llm, "embed", ["a", "b", "c"], encoding_format="bytes_only", endianness="big"
    )
    assert scripted.requests[0].json()["endianness"] == "big"
    assert result.vectors == [[0, 1], [2, 3], [4, 5]]
    assert (result.usage, result.id) == (None, "")


def test_many_inputs_of_another_type_come_without_metadata(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(bytes([0x38] * 513), headers=OCTETS)
    result: Embeddings = runner.do(llm, "embed", ["x"] * 513, embed_dtype="fp8_e4m3")
    assert scripted.requests[0].json()["encoding_format"] == "bytes_only"
    assert result.vectors == [[1.0]] * 513
    assert refused(runner, llm, "embed", ["x"] * 513, encoding_format="bytes") == [
        "encoding_format='bytes': accepts at most 512 inputs, not 513. Use bytes_only or base64."
    ]


def test_a_server_may_return_json_anyway(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(answer([0.5], [1.5]))
    result: Embeddings = runner.do(llm, "embed", ["a", "b"], encoding_format="bytes")
    assert result.vectors == [[0.5], [1.5]]


def test_results_are_in_the_order_of_the_inputs(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    body = answer([0.0], [1.0], [2.0])
    body["data"] = list(reversed(body["data"]))  # type: ignore[call-overload] # a list, here
    scripted.reply(body)
    result: Embeddings = runner.do(llm, "embed", ["a", "b", "c"])
    assert result.vectors == [[0.0], [1.0], [2.0]]


def indexed(*indexes: int | None, key: str = "score") -> dict[str, object]:
    return {"data": [{"index": index, key: float(place)} for place, index in enumerate(indexes)]}


@pytest.mark.parametrize(
    ("indexes", "scores"),
    [
        ((None, None, None), [0.0, 1.0, 2.0]),
        ((0, 0, 0), [0.0, 1.0, 2.0]),
        ((2, None, 1), [1.0, 2.0, 0.0]),
        ((3, 1, 2), [1.0, 2.0, 0.0]),
    ],
)
def test_indexes_of_other_servers(
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
    indexes: tuple[int | None, ...],
    scores: list[float],
) -> None:
    scripted.reply(indexed(*indexes))
    result: Scores = runner.do(llm, "score", "q", ["a", "b", "c"])
    assert result.scores == scores


@pytest.mark.parametrize("indexes", [(0, 0, 1), (1, 1, 1), (0, 1, 5), (-1, 0, 2), (None, 0, 2)])
def test_results_that_belong_to_no_single_input(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, indexes: tuple[int | None, ...]
) -> None:
    scripted.reply(indexed(*indexes))
    with pytest.raises(ResponseError, match="its indexes are wrong"):
        runner.do(llm, "score", "q", ["a", "b", "c"])


@pytest.mark.parametrize("indexes", [(0, 0), (None, None)])
def test_a_ranking_with_a_document_twice(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, indexes: tuple[int | None, ...]
) -> None:
    scripted.reply({"results": indexed(*indexes, key="relevance_score")["data"]})
    with pytest.raises(ResponseError, match="the same document twice"):
        runner.do(llm, "rerank", "q", ["a", "b"])


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (answer([1.0]), {}, "it has 1 results for 2 inputs"),
        ({"object": "list"}, {}, "it has no data"),
        (answer("AAA=", [1.0]), {}, "cannot hold float32 numbers"),
        (answer({"a": 1}, [1.0]), {}, "neither numbers nor base64"),
        (floats(1, 2, 3), OCTETS, "12 bytes are not 2 equal parts of float32 numbers"),
        (b"", OCTETS, "0 bytes are not 2 equal parts"),
        (floats(1, 2), metadata([1], [2]), "its metadata refers to bytes 4 to 12 of 8"),
        (floats(1, 2), {**OCTETS, "metadata": "[]"}, "its metadata is not an object"),
        (floats(1, 2), {**OCTETS, "metadata": "{}"}, "data"),
        (floats(1, 2), {**OCTETS, "metadata": "nonsense"}, "expected"),
        (floats(1, 2), metadata([1], [1], dtype="int4"), "int4"),
    ],
)
def test_other_responses_are_not_embeddings(
    body: Any,
    headers: dict[str, str],
    reason: str,
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
) -> None:
    scripted.reply(body, headers=headers)
    with pytest.raises(ResponseError, match="not a list of embeddings") as caught:
        runner.do(llm, "embed", ["a", "b"])
    assert reason in str(caught.value)


def test_a_shape_that_does_not_fit(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    headers = metadata([2])
    headers["metadata"] = headers["metadata"].replace("[2]", "[3]")
    scripted.reply(floats(1, 2), headers=headers)
    with pytest.raises(ResponseError, match=r"8 bytes do not have the shape \[3\]"):
        runner.do(llm, "embed", "a", encoding_format="bytes")


def test_another_input_in_extra_body_is_not_counted(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(answer([1.0], [2.0]))
    result: Embeddings = runner.do(llm, "embed", "a", extra_body={"input": ["b", "c"]})
    assert len(result.vectors) == 2
    scripted.reply(floats(1, 2), headers=OCTETS)
    with pytest.raises(ResponseError, match="its metadata is missing"):
        runner.do(llm, "embed", "a", extra_body={"input": ["b"]}, encoding_format="bytes_only")


@pytest.mark.parametrize(
    ("inputs", "problems"),
    cast(
        "list[tuple[object, list[str]]]",
        [
            ([], ["input=[]: must not be empty."]),
            ([[]], ["input[0]=[]: must not be empty."]),
            (["a", 3], ["input[1]=3: must be a string like the first one, not an int."]),
            ([1, "a"], ["input[1]='a': must be an integer, not a str."]),
            ([[1], "a"], ["input[1]='a': must be a list of integers, not a str."]),
            ([-1], ["input[0]=-1: must be between 0 and 2**63 - 1."]),
            ([CHAT, "a"], ["input[1]='a': must be a list of messages like the first one, not a str."]),
            ([CHAT, []], ["input[1]=[]: must not be empty."]),
            ([CHAT, [{}]], ["input[1][0].role: is required."]),
            ([{"role": "user", "content": "x"}, 3], ["input[1]: must be a message"]),
            (
                None,
                [
                    "input=None: must be a text, a list of texts, token ids, a list of these, or a conversation"
                ],
            ),
            (CHAT[0], ["input={'content': 'Hello', 'role': 'user'}: must be a text"]),
        ],
    ),
)
def test_wrong_inputs(inputs: object, problems: list[str], runner: Runner, llm: VLLMProvider) -> None:
    found = refused(runner, llm, "embed", inputs)
    assert len(found) == len(problems)
    for text, expected in zip(found, problems, strict=True):
        assert text.startswith(expected), text


def test_many_wrong_items_are_reported_as_few_problems(runner: Runner, llm: VLLMProvider) -> None:
    several: list[list[object]] = [
        ["a", *[1] * 1000],
        [1, *["a"] * 1000],
        [[1], *[["a"]] * 1000],
        [CHAT, *["a"] * 1000],
        [CHAT, *[[3]] * 1000],
    ]
    for wrong in several:
        assert len(refused(runner, llm, "embed", wrong)) == 5


def test_wrong_parameters_of_embeddings(runner: Runner, llm: VLLMProvider) -> None:
    assert refused(
        runner, llm, "embed", [], normalize=True, encoding_format="float", embed_dtype="float16", dimensions=0
    ) == [
        "input=[]: must not be empty.",
        "normalize=True: was removed in vLLM 0.26. Write use_activation=... instead.",
        "embed_dtype='float16': has no effect with encoding_format=\"float\". Leave one of them out.",
        "dimensions=0: must be at least 1.",
    ]


def test_a_model_that_does_not_embed(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    recorded = recordings.load("error_embeddings_unsupported")
    scripted.reply(recorded.body, recorded.status)
    with pytest.raises(NotFoundError, match="--runner pooling --convert embed"):
        runner.do(llm, "embed", "x")


# Pooling


def test_pooling(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    recorded = recordings.load("pooling")
    scripted.reply({"version": "0.32.0"})
    scripted.reply(recorded.body)
    result: PoolingOutputs = runner.do(llm, "pool", "Hello", task="embed", use_activation=False)
    [_, request] = scripted.requests
    assert request.path == "/pooling"
    assert request.json() == {
        "model": "m",
        "input": "Hello",
        "task": "embed",
        "use_activation": False,
        "encoding_format": "float",
    }
    [output] = result.data
    assert output.tolist() == json.loads(recorded.body)["data"][0]["data"]
    assert output.numpy().shape == (256,)
    assert result.id.startswith("pooling-")


def test_rows_of_a_token_task(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.version = "0.33.0"
    scripted.reply(answer([[1, 2], [3, 4], [5, 6]], [[7, 8]], key="data"))
    result: PoolingOutputs = runner.do(llm, "pool", [[1, 2, 3], [4]], task="token_embed")
    assert [output.tolist() for output in result.data] == [[[1, 2], [3, 4], [5, 6]], [[7, 8]]]
    assert [output.numpy().shape for output in result.data] == [(3, 2), (1, 2)]
    scripted.reply(floats(*range(8)), headers=metadata([3, 2], [1, 2]))
    result = runner.do(llm, "pool", [[1, 2, 3], [4]], task="token_embed", encoding_format="bytes")
    assert [output.tolist() for output in result.data] == [[[0, 1], [2, 3], [4, 5]], [[6, 7]]]
    scripted.reply(answer(base64.b64encode(floats(1, 2, 3, 4)).decode(), key="data"))
    result = runner.do(llm, "pool", CHAT, encoding_format="base64")
    assert result.data[0].tolist() == [1, 2, 3, 4]
    scripted.reply(b"", headers=metadata([0, 2]))
    result = runner.do(llm, "pool", "", encoding_format="bytes")
    assert result.data[0].tolist() == []


def test_what_pooling_rejects(runner: Runner, llm: VLLMProvider) -> None:
    assert refused(runner, llm, "pool", [CHAT], dimensions=3, encoding_format="bytes_only") == [
        (
            "input=<a list of 1>: must be one conversation: this route does not accept a list of conversations. "
            "Make one call for each."
        ),
        "dimensions=3: is not accepted here. Call .embed(...) instead.",
        'encoding_format=\'bytes_only\': must be "float", "base64" or "bytes".',
    ]
    assert refused(runner, llm, "pool", ["x"] * 513, embed_dtype="float16") == [
        "encoding_format='bytes': accepts at most 512 inputs, not 513. Use float, or make several calls."
    ]
    [problem] = refused(runner, llm, "pool", "x", task="score")
    assert problem.startswith("task='score': must be")


def test_a_response_that_is_not_pooling(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(answer({"a": 1}, key="data"))
    with pytest.raises(ResponseError, match="not a pooling response"):
        runner.do(llm, "pool", "x")


# Classes


def test_classes(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    data = [
        {"index": 0, "label": "POSITIVE", "probs": [0.25, 0.75], "num_classes": 2},
        {"index": 1, "label": None, "probs": [0.5, 0.5], "num_classes": 2},
    ]
    usage = {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0}
    scripted.reply({"version": "0.32.0"})
    scripted.reply(
        {"id": "classify-1", "object": "list", "created": 1, "model": "m", "data": data, "usage": usage}
    )
    result: Classifications = runner.do(llm, "classify", ["good", "bad"], use_activation=True)
    [_, request] = scripted.requests
    assert (request.path, request.json()) == (
        "/classify",
        {"model": "m", "input": ["good", "bad"], "use_activation": True},
    )
    assert result.labels == ["POSITIVE", None]
    assert [each.probs.tolist() for each in result.data] == [[0.25, 0.75], [0.5, 0.5]]
    assert (result.data[0].num_classes, result.id) == (2, "classify-1")
    scripted.reply({"data": [{"index": 0, "label": "A"}]})
    result = runner.do(llm, "classify", CHAT, chat_template_kwargs={"a": 1})
    assert result.data[0].probs.tolist() == []


def test_a_model_that_does_not_classify(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    recorded = recordings.load("classify")
    scripted.reply(recorded.body, recorded.status)
    with pytest.raises(NotFoundError, match="--convert classify"):
        runner.do(llm, "classify", "x")
    assert refused(runner, llm, "classify", "x", softmax=True) == [
        "softmax=True: was removed in vLLM 0.16. Write use_activation=... instead."
    ]
    scripted.reply({"data": []})
    with pytest.raises(ResponseError, match="it has 0 results for 1 inputs"):
        runner.do(llm, "classify", "x")


# Scores


IMAGE = {"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}


def test_scores(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.version = "0.33.0"
    scripted.reply(recordings.load("score").body)
    result: Scores = runner.do(
        llm, "score", "Hello", ("Hello", "world"), max_tokens_per_doc=5, instruction="i"
    )
    [request] = scripted.requests
    assert request.path == "/v1/score"
    assert request.json() == {
        "model": "m",
        "text_1": "Hello",
        "text_2": ["Hello", "world"],
        "max_tokens_per_doc": 5,
        "instruction": "i",
    }
    assert result.scores == [1.0000001192092896, -0.2719714641571045]
    assert (result.id[:6], result.data[1].index) == ("score-", 1)


def test_pairs_of_any_kind(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    for left, right, count in ((IMAGE, "a", 1), (["a", IMAGE], ["b", "c"], 2), (["a"], ["b", "c", IMAGE], 3)):
        scripted.reply({"data": [{"index": place, "score": 0.5} for place in range(count)]})
        result: Scores = runner.do(llm, "score", left, right)
        assert len(result.scores) == count


@pytest.mark.parametrize(
    ("left", "right", "problems"),
    [
        (["a", "b"], "c", ["data_1=['a', 'b']: must have one item, or as many as data_2 (1), not 2."]),
        ([], "c", ["data_1=[]: must not be empty."]),
        (
            3,
            ["a", None],
            [
                "data_1=3: must be a text or a mapping with `content`, or a list of them, not an int.",
                "data_2[1]=None: must be a text or a mapping with `content`, not None.",
            ],
        ),
        (
            CHAT[0],
            "b",
            ["data_1={'content': 'Hello', 'role': 'user'}: is a message, but messages cannot be compared."],
        ),
        ({"contents": []}, "b", ["data_1={'contents': []}: must have `content` as its only key."]),
        (
            {"content": "x"},
            "b",
            ["data_1.content='x': must be a list of parts, not a str. Write the text itself."],
        ),
        ({"content": 1}, "b", ["data_1.content=1: must be a list of parts, not an int."]),
    ],
)
def test_what_is_not_a_pair(
    left: object, right: object, problems: list[str], runner: Runner, llm: VLLMProvider
) -> None:
    found = refused(runner, llm, "score", left, right)
    assert len(found) == len(problems)
    for text, expected in zip(found, problems, strict=True):
        assert text.startswith(expected), text


def test_wrong_parameters_of_scores(runner: Runner, llm: VLLMProvider) -> None:
    assert len(refused(runner, llm, "score", "a", [1] * 1000)) == 5
    assert refused(runner, llm, "score", "a", "b", max_tokens_per_doc=-1, activation=True) == [
        "max_tokens_per_doc=-1: must be at least 0.",
        "activation=True: was removed in vLLM 0.16. Write use_activation=... instead.",
    ]


def test_scores_that_are_missing(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply({"data": []})
    with pytest.raises(ResponseError, match="it has 0 results for 2 inputs"):
        runner.do(llm, "score", "a", ["b", "c"])
    scripted.reply({"data": []})
    result: Scores = runner.do(llm, "score", "a", "b", extra_body={"text_2": []})
    assert result.scores == []


@pytest.mark.parametrize("score", ["NaN", "Infinity", "null"])
def test_a_ranking_needs_numbers(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, score: str
) -> None:
    scripted.reply(f'{{"results":[{{"index":0,"relevance_score":{score}}}]}}'.encode())
    with pytest.raises(ResponseError, match=r"not a ranking \(results.0.relevance_score"):
        runner.do(llm, "rerank", "q", ["a"])


def test_a_ranking(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(recordings.load("rerank").body)
    result: Ranking = runner.do(llm, "rerank", "Hello", ("Hello", "world"), top_n=1)
    [request] = scripted.requests
    assert request.path == "/v1/rerank"
    assert request.json() == {"model": "m", "query": "Hello", "documents": ["Hello", "world"], "top_n": 1}
    [best] = result.results
    assert (best.index, best.document.text, best.relevance_score) == (0, "Hello", 1.0000001192092896)
    assert result.order == [0]
    assert result.usage is not None
    assert result.usage.total_tokens == 6


def test_what_cannot_be_ranked(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    assert refused(runner, llm, "rerank", 3, "a", top_n=-1, top_k=2) == [
        "query=3: must be a text or a mapping with `content`, not an int.",
        "documents='a': must be a list of texts or of mappings with `content`, not a str. Wrap it in [...].",
        "top_n=-1: must be at least 0.",
        "top_k=2: is a parameter of VLLMProvider.chat, not of VLLMProvider.rerank. Did you mean `top_n`?",
    ]
    assert refused(runner, llm, "rerank", "a", []) == ["documents=[]: must not be empty."]
    scripted.reply({"data": []})
    with pytest.raises(ResponseError, match="not a ranking"):
        runner.do(llm, "rerank", "a", ["b"])
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match="cross-encoder"):
        runner.do(llm, "rerank", "a", ["b"])
