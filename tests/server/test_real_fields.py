"""The parameters of each method against the servers' own requests: what a method lacks has a reason."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from vllm_releases import DEFAULT
from vllm_server import environment
from vllmchat.audio import params as audio
from vllmchat.chat.params import VLLMChatParams
from vllmchat.checking.rules import fields_of
from vllmchat.completions.params import VLLMCompletionParams
from vllmchat.generate.params import GenerateParams
from vllmchat.pooling import params as pooling
from vllmchat.responses.params import ResponseParams
from vllmchat.tokens.tokenize import DetokenizeParams, TokenizeParams

if TYPE_CHECKING:
    from support.vllm import LiveServer

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """What a method takes for its route.

    Attributes:
        server: The fixture of a server that has the route.
        params: The TypedDicts of its parameters.
        own: The fields that it makes of its arguments.
        without: The fields that it lacks, each with the reason.
    """

    server: str
    params: tuple[type, ...]
    own: frozenset[str]
    without: dict[str, str] = field(default_factory=dict[str, str])

    def lacks(self, theirs: set[str]) -> set[str]:
        """Those of the server's fields that it neither has nor explains."""
        return (
            theirs
            - self.own
            - self.without.keys()
            - {name for each in self.params for name in fields_of(each)}
        )


def own(*names: str) -> frozenset[str]:
    return frozenset({"model", *names})


_SAME = "the same under another name"
_OPENAI = "of OpenAI's own server: vLLM ignores it"

METHODS: dict[str, Method] = {
    "/detokenize": Method("vllm_server", (DetokenizeParams,), own("tokens")),
    "/inference/v1/generate": Method(
        "vllm_server",
        (GenerateParams,),
        own("token_ids", "sampling_params", "stream"),
        {"token_offsets": "what `render` told; no server reads it"},
    ),
    "/pooling": Method(
        "pooling_server",
        (pooling.PoolParams,),
        own("input", "messages"),
        {
            "data": "for plugins of the server, in a form that each of them has for itself",
            "dimensions": "the server refuses it: `embed` has it",
        },
    ),
    "/tokenize": Method("vllm_server", (TokenizeParams,), own("prompt", "messages")),
    "/v1/chat/completions/batch": Method(
        "vllm_server",
        (VLLMChatParams,),
        own("messages"),
        {
            "best_of": "gone since vLLM 0.12: the server ignores it",
            "early_stopping": "for beam search, which batches do not do",
            "guided_decoding_backend": "gone since vLLM 0.12: the server ignores it",
        },
    ),
    "/v1/completions": Method("vllm_server", (VLLMCompletionParams,), own("prompt", "stream")),
    "/v1/embeddings": Method("pooling_server", (pooling.EmbedParams,), own("input", "messages")),
    "/v1/rerank": Method("pooling_server", (pooling.RerankParams,), own("query", "documents")),
    "/v1/responses": Method(
        "vllm_server",
        (ResponseParams,),
        own("input", "stream"),
        {
            "background": "gives an answer to be fetched later, from the store, which no method reads",
            "mm_payload": "for the render route of responses, which has no method",
            "prompt": "the server refuses it",
            "return_mm_kwargs": "for the render route of responses, which has no method",
            "service_tier": _OPENAI,
        },
    ),
    "/v1/score": Method(
        "pooling_server",
        (pooling.ScoreParams,),
        own("text_1", "text_2"),
        dict.fromkeys(("data_1", "data_2", "queries", "documents", "items"), _SAME),
    ),
}
"""The method of each route that neither `test_real_contract.py` nor `MODELS` has."""

SAMPLING_WITHOUT: dict[str, str] = {
    "extra_args": f"{_SAME}: `vllm_xargs`",
    "flat_logprobs": "how the engine stores them; the answer is the same",
    "output_kind": "the route decides",
    "output_text_buffer_length": "the engine's own",
    "prompt_logprob_start": "rarely asked for; `extra_sampling_params` takes it",
    "prompt_logprob_token_ids": "rarely asked for; `extra_sampling_params` takes it",
    "skip_clone": "the engine's own",
    "skip_reading_prefix_cache": "for measurements of the engine; `extra_sampling_params` takes it",
    "trace_decode_token_ids": "for debugging the engine; `extra_sampling_params` takes it",
}
"""What the sampling parameters of `generate` lack."""

_SPEECH = "vllm.entrypoints.speech_to_text"
_CLASSIFY = "vllm.entrypoints.pooling.classify.protocol"

MODELS: dict[tuple[str, str], Method] = {
    (f"{_SPEECH}.transcription.protocol", "TranscriptionRequest"): Method(
        "vllm_server",
        (audio.TranscribeParams, audio.StreamTranscribeParams),
        own("file", "stream"),
        {"timestamp_granularities[]": f"{_SAME}: `timestamp_granularities`"},
    ),
    (f"{_SPEECH}.translation.protocol", "TranslationRequest"): Method(
        "vllm_server", (audio.TranslateParams, audio.StreamTranslateParams), own("file", "stream")
    ),
    (_CLASSIFY, "ClassificationCompletionRequest"): Method(
        "vllm_server", (pooling.ClassifyTextParams,), own("input")
    ),
    (_CLASSIFY, "ClassificationChatRequest"): Method(
        "vllm_server", (pooling.ClassifyParams,), own("messages")
    ),
}
"""Requests that only servers with another model take: their fields are read from the server's code."""

READ_MODELS = """
import json, sys
from importlib import import_module
for module, name in json.loads(sys.argv[1]):
    fields = getattr(import_module(module), name).model_fields
    print("FIELDS", json.dumps([each.alias or key for key, each in fields.items()]))
"""


SINCE = {"/v1/chat/completions/batch": ("0.19", "batches of chats")}
"""Since which vLLM a route exists, if the oldest server here does not have it."""

FORMER = {
    "activation",
    "assistant_tokens_mask",
    "logits_processors",
    "normalize",
    "softmax",
    "truncate_prompt_tokens",  # among the sampling parameters; now next to them
}
"""What older servers take and the newest does not."""


def is_newest(server: LiveServer) -> bool:
    """Whether it is the server that the reasons are written for."""
    return server.version == DEFAULT.version


def described(server: LiveServer) -> Schema:
    answer: Schema = httpx.get(f"{server.url}/openapi.json").json()
    return answer


def fields_taken(description: Schema, path: str) -> set[str]:
    """The fields of all forms of a route's request."""
    request = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    names = [form["$ref"].rpartition("/")[2] for form in request.get("anyOf", [request])]
    return {field for name in names for field in description["components"]["schemas"][name]["properties"]}


@pytest.mark.parametrize(
    ("path", "method"),
    [
        pytest.param(path, method, marks=[pytest.mark.since(*SINCE[path])] if path in SINCE else [])
        for path, method in METHODS.items()
    ],
)
def test_every_field_of_a_request_is_a_parameter(
    path: str, method: Method, request: pytest.FixtureRequest
) -> None:
    server: LiveServer = request.getfixturevalue(method.server)
    described_here = described(server)
    theirs = fields_taken(described_here, path)
    lacking = method.lacks(theirs) - (set() if is_newest(server) else FORMER)
    assert not lacking, f"{path} takes what the method lacks: {', '.join(sorted(lacking))}"
    assert theirs >= (method.own | method.without.keys() if is_newest(server) else method.own), (
        "a reason without a field"
    )


def test_every_sampling_parameter_of_tokens_is_a_parameter(vllm_server: LiveServer) -> None:
    request = described(vllm_server)["components"]["schemas"]["GenerateRequest"]
    theirs = set(request["properties"]["sampling_params"]["properties"])
    theirs = {name for name in theirs if not name.startswith("_")}  # the engine's own, which older ones show
    lacking = theirs - SAMPLING_WITHOUT.keys() - set(fields_of(GenerateParams))
    lacking -= set() if is_newest(vllm_server) else FORMER
    assert not lacking, f"sampling_params takes what `generate` lacks: {', '.join(sorted(lacking))}"
    assert theirs >= SAMPLING_WITHOUT.keys() or not is_newest(vllm_server)


@pytest.mark.since("0.25", "where vLLM's code has these models")
def test_every_field_of_other_models_is_a_parameter(vllm_server: LiveServer) -> None:
    python = environment(vllm_server.version).installed_python()
    command = [str(python), "-c", READ_MODELS, json.dumps(list(MODELS))]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    ).stdout.splitlines()
    found = [set(json.loads(line.removeprefix("FIELDS "))) for line in told if line.startswith("FIELDS ")]
    for (_, name), method, theirs in zip(MODELS, MODELS.values(), found, strict=True):
        lacking = method.lacks(theirs)
        assert not lacking, f"{name} has what the method lacks: {', '.join(sorted(lacking))}"
        assert theirs >= method.own | method.without.keys() or not is_newest(vllm_server), name
