"""`VLLMChatParams` against what the running server says it takes: its `/openapi.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import httpx
import pytest

from vllm_releases import DEFAULT
from vllmchat.chat import params
from vllmchat.checking.rules import Bounds, Field, fields_of, members
from vllmchat.sampling import formats, params as sampling_params
from vllmchat.schemas import tool_params

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.vllm import LiveServer

Schema = dict[str, Any]

METHODS_OWN = {"messages", "model", "stream"}
"""What the methods decide."""

OURS = {
    "data_parallel_rank",
    "enable_thinking",
    "extra_body",
    "extra_headers",
    "max_retry_seconds",
    "timeout",
}
"""What goes elsewhere than into the request's own fields."""

NESTED: dict[str, type] = {
    "StructuredOutputsParams": formats.StructuredOutputs,
    "StreamOptions": sampling_params.StreamOptions,
    "RepetitionDetectionParams": sampling_params.RepetitionDetection,
    "ChatCompletionToolsParam": tool_params.FunctionTool,
    "FunctionDefinition": tool_params.FunctionDefinition,
    "ChatCompletionNamedToolChoiceParam": tool_params.NamedToolChoice,
    "ChatCompletionNamedFunction": tool_params.FunctionName,
    "JsonSchemaResponseFormat": formats.JSONSchema,
}
"""The server's nested models, and ours."""

SERVERS_OWN = {"StructuredOutputsParams": {"_backend", "_backend_was_auto"}}
"""What a nested model has for the server's own use."""

OTHERS = {"StreamOptions": {"include_obfuscation"}}
"""What a nested model of ours has for other servers than vLLM, which ignores it."""


FORMER = {"return_assistant_tokens_mask", "disable_fallback", "logits_processors"}
"""What older servers take and the newest does not, on the top or nested."""


@pytest.fixture(scope="module")
def schemas(vllm_server: LiveServer) -> dict[str, Schema]:
    answer = httpx.get(f"{vllm_server.url}/openapi.json")
    found: dict[str, Schema] = answer.json()["components"]["schemas"]
    return found


@pytest.fixture(scope="module")
def version(vllm_server: LiveServer) -> tuple[int, ...]:
    told: str = httpx.get(f"{vllm_server.url}/version").json()["version"]
    return numbers(told)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("+")[0].split(".")[:3])


def is_newer(field: Field, version: tuple[int, ...]) -> bool:
    return field.since is not None and numbers(field.since) > version


def test_every_field_of_the_server_is_a_parameter(
    schemas: dict[str, Schema], vllm_server: LiveServer
) -> None:
    theirs = set(schemas["ChatCompletionRequest"]["properties"])
    assert theirs >= METHODS_OWN
    missing = theirs - METHODS_OWN - set(fields_of(params.VLLMChatParams))
    if vllm_server.version != DEFAULT.version:
        missing -= FORMER
    assert not missing, f"the server takes what VLLMChatParams lacks: {', '.join(sorted(missing))}"


def test_every_parameter_is_a_field_of_the_server(
    schemas: dict[str, Schema], version: tuple[int, ...]
) -> None:
    theirs = set(schemas["ChatCompletionRequest"]["properties"])
    ours = fields_of(params.VLLMChatParams)
    unknown = {name for name in set(ours) - OURS - theirs if not is_newer(ours[name], version)}
    assert not unknown, f"VLLMChatParams has what the server ignores: {', '.join(sorted(unknown))}"


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=pytest.mark.since("0.17", "the parameter repetition_detection"))
        if model == "RepetitionDetectionParams"
        else model
        for model in NESTED
    ],
)
def test_nested_models_have_the_same_keys(
    schemas: dict[str, Schema], version: tuple[int, ...], model: str, vllm_server: LiveServer
) -> None:
    ours = fields_of(NESTED[model])
    # A name that another package uses too has its module before it.
    qualified = [name for name in schemas if name.startswith("vllm__") and name.endswith(f"__{model}")]
    [name] = [model] if model in schemas else qualified
    theirs = set(schemas[name]["properties"]) - SERVERS_OWN.get(model, set())
    if vllm_server.version != DEFAULT.version:
        theirs -= FORMER
    ours_now = {name for name in ours if not is_newer(ours[name], version)}
    assert ours_now - OTHERS.get(model, set()) == theirs


def variants(schema: Schema) -> list[Schema]:
    kinds: list[Schema] = schema.get("anyOf", [schema])
    return kinds


def shared(schemas: dict[str, Schema]) -> Iterator[tuple[str, Field, list[Schema]]]:
    for name, field in fields_of(params.VLLMChatParams).items():
        schema = schemas["ChatCompletionRequest"]["properties"].get(name)
        if schema is not None:
            yield name, field, variants(schema)


def test_words_are_those_of_the_server(schemas: dict[str, Schema], vllm_server: LiveServer) -> None:
    ours: dict[str, set[str]] = {}
    theirs: dict[str, set[str]] = {}
    for name, field, kinds in shared(schemas):
        words = {
            word
            for kind in members(field.type)
            if get_origin(kind) is Literal
            for word in get_args(kind)
            if isinstance(word, str)
        }
        if words:
            ours[name] = words
        named = {
            word
            for kind in kinds
            for word in [*kind.get("enum", []), *([kind["const"]] if "const" in kind else [])]
            if isinstance(word, str)
        }
        if named:
            theirs[name] = named
    if not vllm_server.since("0.22"):
        # These know fewer words of these parameters, and not all of the parameters.
        ours = {name: words & theirs[name] for name, words in ours.items() if name in theirs}
    assert ours == theirs
    if not vllm_server.since("0.22"):
        return
    assert set(ours) >= {"reasoning_effort", "truncation_side", "tool_choice"}


def test_bounds_of_the_server_are_ours(schemas: dict[str, Schema]) -> None:
    """Those bounds that the server's schema tells; it checks more of them only later (see the verdicts)."""
    told = 0
    for name, field, kinds in shared(schemas):
        bounds = next((rule for rule in field.rules if isinstance(rule, Bounds)), None)
        for kind in kinds:
            for theirs, ours in (("minimum", "ge"), ("exclusiveMinimum", "gt"), ("maximum", "le")):
                if theirs in kind and kind.get("type") in ("integer", "number"):
                    told += 1
                    assert bounds is not None, name
                    assert getattr(bounds, ours) == pytest.approx(kind[theirs]), (name, theirs)
    assert told >= 4


def test_null_means_not_set(schemas: dict[str, Schema]) -> None:
    """A parameter of ours may always be None, so None must never be sent: the server refuses it for some."""
    refusing = [
        name for name, _, kinds in shared(schemas) if not any(kind.get("type") == "null" for kind in kinds)
    ]
    assert refusing, "this test has lost its reason"
    for name in refusing:
        assert fields_of(params.VLLMChatParams)[name].nullable, name
