"""Our routes and parameters against the recorded `openapi.json` of servers of many versions.

A parameter is a field of every server since the version in `Since`, and of no older one; a field of a server is a
parameter, or has a reason why not. What the newest server lacks and explains stands with the tests that ask it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from server.test_real_contract import METHODS_OWN, NESTED, OTHERS, SERVERS_OWN
from server.test_real_fields import METHODS, MODELS, SAMPLING_WITHOUT
from server.test_real_routes import WITHOUT as NO_METHOD
from support import recordings
from support.routes import ASKED
from vllmchat.chat.params import VLLMChatParams
from vllmchat.checking.rules import fields_of
from vllmchat.completions.params import VLLMCompletionParams
from vllmchat.decisions.params import DecideParams
from vllmchat.pooling.params import ClassifyTextParams, EmbedTextParams, EmbedTokensParams, PoolTextParams
from vllmchat.versions import read_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat.versions import Version

Schema = dict[str, Any]

EMBEDS_TOKENS = "0.33.0-token-embed"
"""A server whose embeddings are others: it has a request of its own, and no route but those for it."""

SERVERS = tuple(server for server in recordings.servers() if server not in (recordings.NEWEST, EMBEDS_TOKENS))
"""The newest one describes itself when the tests run it."""


def since(text: str | None) -> Version:
    return read_version(text or "0.8.5")


# Routes

BEGIN: dict[str, str] = {
    "GET /is_paused": "0.12",
    "POST /abort_requests": "0.26",
    "POST /classify": "0.9",
    "POST /inference/v1/generate": "0.11.1",
    "POST /pause": "0.12",
    "POST /resume": "0.12",
    "POST /v1/audio/translations": "0.9.2",
    "POST /v1/chat/completions/batch": "0.19",
    "POST /v1/chat/completions/render": "0.15",
    "POST /v1/completions/render": "0.15",
    "POST /v1/decisions": "0.33",
    "POST /v1/responses": "0.10",
}
"""The version that brought a route, where that is not 0.8.5 or an older one."""

OTHER_MODELS: dict[str, str] = dict.fromkeys(
    (
        *("POST /classify", "POST /pooling", "POST /v1/audio/transcriptions", "POST /v1/audio/translations"),
        *("POST /v1/embeddings", "POST /v1/rerank", "POST /v1/score"),
    ),
    "0.15",
)
"""The version since which servers have a route only with a model for it: these ran one that generates."""

NOT_STARTED_FOR = {
    "POST /v1/load_lora_adapter": "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "POST /v1/unload_lora_adapter": "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
}
"""What a server must be started with for routes that none of these has."""


@pytest.mark.parametrize("server", SERVERS)
def test_a_route_is_there_since_its_version(server: str) -> None:
    version = recordings.version_of(server)
    expected = {
        route
        for route in {asked.route for asked in ASKED} - NOT_STARTED_FOR.keys()
        if since(BEGIN.get(route)) <= version
        and not (route in OTHER_MODELS and version >= since(OTHER_MODELS[route]))
    }
    routes = routes_of(server)
    assert routes - NO_METHOD.keys() == expected


def routes_of(server: str) -> set[str]:
    paths: dict[str, Schema] = recordings.openapi(server)["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


QUERIES: dict[str, dict[str, str]] = {
    "/pause": {"clear_cache": "0.12", "mode": "0.16", "wait_for_inflight_requests": "0.12"},
    "/reset_prefix_cache": {"reset_external": "0.14", "reset_running_requests": "0.12"},
}
"""By route, what stands in the query, and the version that brought it."""

QUERIES_UNTIL = {"wait_for_inflight_requests": "0.31"}
"""What newer servers ignore in a query: the first version without it."""


@pytest.mark.parametrize("server", SERVERS)
def test_a_query_has_what_its_version_knows(server: str) -> None:
    paths: dict[str, Schema] = recordings.openapi(server)["paths"]
    version = recordings.version_of(server)
    for path, known in QUERIES.items():
        if path in paths:
            theirs = {each["name"] for each in paths[path]["post"].get("parameters", [])}
            assert theirs == {
                name
                for name, began in known.items()
                if since(began) <= version < since(QUERIES_UNTIL.get(name, "9999.0"))
            }, path


# Fields of requests


@dataclass(frozen=True, slots=True)
class Request:
    """What we send to a route.

    Attributes:
        path: The route.
        params: Our parameters.
        own: Fields that we make of arguments.
        without: Fields that we lack, each with the reason.
        begin: The version that brought the route.
        form: A word in the name of the form of the request that it is; all forms if empty.
        aliases: Parameters that go by another name on the wire.
        hands_on: Whether the server hands on to a chat what the route itself does not declare.
    """

    path: str
    params: type
    own: frozenset[str]
    without: dict[str, str] = field(default_factory=dict[str, str])
    begin: str = "0.8.5"
    form: str = ""
    aliases: dict[str, str] = field(default_factory=dict[str, str])
    hands_on: bool = False

    def __str__(self) -> str:
        return f"{self.path} {self.form}".strip()


_GUIDED = "the form of `structured_outputs` before 0.12: the client writes it"
_GONE = "gone, and ignored by newer servers: the client names what to write instead"
_ENGINE = "the engine's own"

OLD_GENERATING: dict[str, str] = {
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), _GUIDED),
    "guided_whitespace_pattern": _GUIDED,
    "guided_decoding_backend": _GONE,
    "best_of": _GONE,
    "logits_processors": _GONE,
}
OLD_CHATS: dict[str, str] = {
    **OLD_GENERATING,
    "structural_tag": _GONE,
    "return_assistant_tokens_mask": "0.25 to 0.30 only, and no chat returns what it asks for",
}
OLD_POOLING: dict[str, str] = {
    "activation": "another name of `use_activation` before 0.16",
    "additional_data": "for plugins of servers before 0.10",
    "softmax": "another name of `use_activation` before 0.16",
    "normalize": "the name of `use_activation` for embeddings before 0.16: the client writes it",
}
OLD_GENERATE: dict[str, str] = {
    **SAMPLING_WITHOUT,
    **dict.fromkeys(("_all_stop_token_ids", "_bad_words_token_ids", "_eos_token_id"), _ENGINE),
    "assistant_tokens_mask": "0.25 to 0.30 only, and no chat returns what it asks for",
    "logits_processors": _GONE,
    "truncate_prompt_tokens": "a prompt of tokens is cut before it is sent",
}


def _request(path: str, old: dict[str, str], begin: str = "0.8.5", **options: Any) -> Request:
    """A request as the tests against the newest server have it, and what older servers had."""
    method = METHODS[path]
    return Request(path, method.params[0], method.own, {**method.without, **old}, begin, **options)


def _with_text(path: str, params: type, old: dict[str, str], begin: str = "0.8.5", **options: Any) -> Request:
    """The same with a text, which is not read as a conversation is."""
    without = {**(METHODS[path].without if path in METHODS else {}), **old}
    return Request(path, params, frozenset({"model", "input"}), without, begin, "Completion", **options)


_MODELS = {name: method for (_, name), method in MODELS.items()}
_CHAT = frozenset(METHODS_OWN)
_STREAMED = {
    "stream_continuous_usage_stats": "for `stream_transcribe` and `stream_translate`",
    "stream_include_usage": "for `stream_transcribe` and `stream_translate`",
}
_NORMALIZE = {"use_activation": "normalize"}

REQUESTS: tuple[Request, ...] = (
    Request("/v1/chat/completions", VLLMChatParams, _CHAT, OLD_CHATS),
    Request("/v1/chat/completions/render", VLLMChatParams, _CHAT, OLD_CHATS, "0.15"),
    _request("/v1/chat/completions/batch", {}, "0.19", hands_on=True),
    _request("/v1/completions", OLD_GENERATING),
    Request("/v1/completions/render", VLLMCompletionParams, METHODS["/v1/completions"].own, {}, "0.15"),
    _request("/v1/responses", {}, "0.10"),
    Request("/v1/decisions", DecideParams, frozenset({"model", "input", "questions"}), {}, "0.33"),
    _request("/inference/v1/generate", OLD_GENERATE, "0.11.1", aliases={"vllm_xargs": "extra_args"}),
    _request("/tokenize", {}),
    _request("/detokenize", {}),
    _request("/v1/embeddings", OLD_POOLING, aliases=_NORMALIZE),
    _with_text("/v1/embeddings", EmbedTextParams, OLD_POOLING, aliases=_NORMALIZE),
    _request("/pooling", OLD_POOLING),
    _with_text("/pooling", PoolTextParams, OLD_POOLING),
    Request(
        "/classify",
        _MODELS["ClassificationChatRequest"].params[0],
        frozenset({"model", "input", "messages"}),
        OLD_POOLING,
        "0.9",
    ),
    _with_text("/classify", ClassifyTextParams, OLD_POOLING, "0.9"),
    _request("/v1/score", OLD_POOLING),
    _request("/v1/rerank", OLD_POOLING),
    Request(
        "/v1/audio/transcriptions",
        _MODELS["TranscriptionRequest"].params[0],
        _MODELS["TranscriptionRequest"].own,
        _STREAMED,
        aliases={"timestamp_granularities": "timestamp_granularities[]"},
    ),
    Request(
        "/v1/audio/translations",
        _MODELS["TranslationRequest"].params[0],
        _MODELS["TranslationRequest"].own,
        _STREAMED,
        "0.9.2",
    ),
)

NOT_SENT = {
    "bytes_only",
    "data_parallel_rank",
    "enable_thinking",
    "extra_body",
    "extra_headers",
    "extra_sampling_params",
    "max_retry_seconds",
    "timeout",
}
"""What no server sees under this name."""


def declared(server: str, request: Request) -> set[str] | None:
    """The fields that a server declares for a request; None where it has no such route or form."""
    description = recordings.openapi(server)
    if request.path not in description["paths"]:
        return None
    [content] = description["paths"][request.path]["post"]["requestBody"]["content"].values()
    names = [form["$ref"].rpartition("/")[2] for form in content["schema"].get("anyOf", [content["schema"]])]
    schemas: dict[str, Schema] = description["components"]["schemas"]
    forms: list[Schema] = [schemas[name]["properties"] for name in names if request.form in name]
    if not forms:
        return None
    sampling: list[Schema] = [form["sampling_params"] for form in forms if "sampling_params" in form]
    return {name for form in [*forms, *(each["properties"] for each in sampling)] for name in form}


def describing(request: Request) -> Iterator[tuple[str, set[str]]]:
    """The servers that have a request, and its fields."""
    for server in SERVERS:
        if (theirs := declared(server, request)) is not None:
            yield server, theirs


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_every_field_is_a_parameter(request_: Request) -> None:
    ours = {request_.aliases.get(name, name) for name in fields_of(request_.params)}
    found = False
    for server, theirs in describing(request_):
        found = True
        assert theirs - request_.own - ours - request_.without.keys() == set(), server
    assert found


@pytest.mark.parametrize("request_", [each for each in REQUESTS if not each.hands_on], ids=str)
def test_a_parameter_is_a_field_since_its_version(request_: Request) -> None:
    begin = since(request_.begin)
    for server, theirs in describing(request_):
        version = recordings.version_of(server)
        expected: set[str] = set()
        found: set[str] = set()
        for name, parameter in fields_of(request_.params).items():
            if name in NOT_SENT:
                continue
            if max(since(parameter.since), begin) <= version:
                expected.add(name)
            if theirs & {name, request_.aliases.get(name, name)}:
                found.add(name)
        assert found == expected, server


def test_every_field_of_token_embeddings_is_a_parameter() -> None:
    request = Request("/v1/embeddings", EmbedTokensParams, frozenset({"model", "input"}))
    theirs = declared(EMBEDS_TOKENS, request)
    assert theirs is not None
    packed = {
        "dimensions",
        "embed_dtype",
        "encoding_format",
        "endianness",
    }  # only numbers in JSON, of one length
    assert theirs - request.own - packed == set(fields_of(EmbedTokensParams)) - NOT_SENT


def test_every_reason_is_for_a_field() -> None:
    lacked = {name for request in REQUESTS for _, theirs in describing(request) for name in theirs}
    # Those of the newest server are asked for where it runs.
    for reasons in (OLD_CHATS, OLD_GENERATING, OLD_POOLING, OLD_GENERATE.keys() - SAMPLING_WITHOUT.keys()):
        assert set(reasons) <= lacked


# What is nested in requests

NESTED_SINCE = {"StructuredOutputsParams": "0.11", "RepetitionDetectionParams": "0.17"}
"""The version that brought a nested model, where that is not 0.8.5 or an older one."""

OLD_NESTED = {"StructuredOutputsParams": {"disable_fallback": "for backends of servers before 0.19"}}
"""By nested model, keys that newer servers do not have and we lack, each with the reason."""


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("model", NESTED)
def test_a_nested_model_has_the_keys_of_its_version(model: str, server: str) -> None:
    schemas: dict[str, Schema] = recordings.openapi(server)["components"]["schemas"]
    version = recordings.version_of(server)
    # A name that another package uses too has its module before it.
    found = [
        name
        for name in schemas
        if name == model or (name.startswith("vllm__") and name.endswith(f"__{model}"))
    ]
    if version < since(NESTED_SINCE.get(model)):
        assert not found
        return
    [name] = found
    theirs = (
        set(schemas[name]["properties"]) - SERVERS_OWN.get(model, set()) - OLD_NESTED.get(model, {}).keys()
    )
    ours = {
        name
        for name, key in fields_of(NESTED[model]).items()
        if since(key.since) <= version and name not in OTHERS.get(model, set())
    }
    assert ours == theirs
