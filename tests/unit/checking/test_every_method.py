"""Every method explains invalid parameters equally well, and shows no secret."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat import InvalidRequestError, VLLMProvider
from vllmchat.audio import params as audio
from vllmchat.chat.params import VLLMChatParams
from vllmchat.checking import unknown_names
from vllmchat.checking.rules import fields_of
from vllmchat.checking.unknown_names import METHODS
from vllmchat.completions.params import VLLMCompletionParams
from vllmchat.decisions.params import DecideParams
from vllmchat.generate.params import GenerateParams
from vllmchat.pooling import params as pooling
from vllmchat.responses.params import ResponseParams
from vllmchat.tokens.tokenize import CountTokensParams, DetokenizeParams, TokenizeParams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat import Problem


def weather(city: str) -> str:
    """Get the weather."""
    return f"Sunny in {city}."


CALLS: dict[str, tuple[tuple[object, ...], dict[str, object], type]] = {
    "chat": (("Hi",), {}, VLLMChatParams),
    "stream": (("Hi",), {}, VLLMChatParams),
    "chat_batch": ((["Hi"],), {}, VLLMChatParams),
    "parse": (("Hi", int), {}, VLLMChatParams),
    "stream_parse": (("Hi", int), {}, VLLMChatParams),
    "choose": (("Hi", ["yes", "no"]), {}, VLLMChatParams),
    "map": ((["Hi"],), {}, VLLMChatParams),
    "run_tools": (("Hi",), {"tools": [weather]}, VLLMChatParams),
    "stream_run_tools": (("Hi",), {"tools": [weather]}, VLLMChatParams),
    "render": (("Hi",), {}, VLLMChatParams),
    "complete": (("Hi",), {}, VLLMCompletionParams),
    "stream_complete": (("Hi",), {}, VLLMCompletionParams),
    "render_completion": (("Hi",), {}, VLLMCompletionParams),
    "generate": (([1],), {}, GenerateParams),
    "stream_generate": (([1],), {}, GenerateParams),
    "respond": (("Hi",), {}, ResponseParams),
    "stream_respond": (("Hi",), {}, ResponseParams),
    "decide": (("Hi", [{"type": "predicate", "instructions": "Is it a greeting?"}]), {}, DecideParams),
    "tokenize": (([{"role": "user", "content": "Hi"}],), {}, TokenizeParams),
    "count_tokens": (("Hi",), {}, CountTokensParams),
    "detokenize": (([1],), {}, DetokenizeParams),
    "embed": (("Hi",), {}, pooling.EmbedParams),
    "embed_tokens": (("Hi",), {}, pooling.EmbedTokensParams),
    "pool": (("Hi",), {}, pooling.PoolParams),
    "classify": (("Hi",), {}, pooling.ClassifyParams),
    "score": (("a", "b"), {}, pooling.ScoreParams),
    "rerank": (("a", ["b"]), {}, pooling.RerankParams),
    "transcribe": ((b"RIFF",), {}, audio.TranscribeParams),
    "translate": ((b"RIFF",), {}, audio.TranslateParams),
    "stream_transcribe": ((b"RIFF",), {}, audio.StreamTranscribeParams),
    "stream_translate": ((b"RIFF",), {}, audio.StreamTranslateParams),
}
"""Each method with parameters: a valid call, and the TypedDict of its parameters."""


def with_params() -> set[str]:
    """The names of all public methods with `**params`."""
    return {
        name
        for name, method in inspect.getmembers(VLLMProvider, inspect.isfunction)
        if not name.startswith("_") and "params" in inspect.signature(inspect.unwrap(method)).parameters
    }


EVERY = [(name, prefix) for name in CALLS for prefix in ("", "a")]


def test_every_method_is_here() -> None:
    assert {prefix + name for name, prefix in EVERY} == with_params()


def _run(method: Any, *args: object, **params: object) -> None:
    result = method(*args, **params)
    if inspect.isawaitable(result) or hasattr(result, "__aiter__"):
        asyncio.run(_finish(result))
    else:
        list(result)


async def _finish(result: Any) -> None:
    if inspect.isawaitable(result):
        await result
    else:
        async for _ in result:
            pass


def problems(name: str, prefix: str, **params: object) -> list[Problem]:
    """The problems of a call. No text of the error has a secret."""
    args, valid, _ = CALLS[name]
    llm = VLLMProvider("m", base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(InvalidRequestError) as caught:
        _run(getattr(llm, prefix + name), *args, **valid, **params)
    error = caught.value
    texts = [str(error), repr(error), repr(error.args), *map(repr, error.problems)]
    # The line that calls is quoted in a traceback, so it names no value.
    for text in (*texts, "".join(traceback.format_exception(error))):
        assert "secret" not in text
    return list(error.problems)


@pytest.mark.parametrize(("name", "prefix"), EVERY)
def test_a_key_is_explained_and_never_shown(name: str, prefix: str) -> None:
    key = "sk-" + "secret" + "-1"
    [found] = problems(name, prefix, api_key=key)
    assert (found.parameter, found.value) == ("api_key", "")
    assert found.rule == "is set on the provider, not per call."
    assert found.suggestion is not None
    assert "VLLMProvider(..., api_key=...)" in found.suggestion
    for written in ("apikey", "api_kye", "auth_token", "temperatur", "whatever"):
        [found] = problems(name, prefix, **{written: key})
        assert (found.parameter, found.value) == (written, "")
        assert found.suggestion


@pytest.mark.parametrize(("name", "prefix"), EVERY)
def test_a_salt_is_never_shown(name: str, prefix: str) -> None:
    salt = "salt-" + "secret"
    known = "cache_salt" in fields_of(CALLS[name][2])
    for value in ([salt], {"salt": salt}, salt + "@" if known else salt):
        [found] = problems(name, prefix, cache_salt=value)
        assert (found.parameter, found.value) == ("cache_salt", "")
        assert found.rule.startswith("must ") if known else found.suggestion
    [found] = problems(name, prefix, cache_slat=salt)
    assert (found.parameter, found.value) == ("cache_slat", "")


@pytest.mark.parametrize(("name", "prefix"), EVERY)
def test_a_misspelled_name_is_corrected(name: str, prefix: str) -> None:
    [found] = problems(name, prefix, timeot=3)
    assert (found.parameter, found.value) == ("timeot", "3")
    assert found.rule.startswith("is not a parameter of ")
    assert "VLLMProvider" in found.rule
    assert found.suggestion == "Did you mean `timeout`?"


OTHER_PLACES = {
    "max_retries": "VLLMProvider(..., max_retries=...)",
    "base_url": "VLLMProvider(..., base_url=...)",
    "tensor_parallel_size": "vllm serve --tensor-parallel-size",
    "stream": "",
}


@pytest.mark.parametrize(("name", "prefix"), EVERY)
def test_a_name_of_another_place_is_explained(name: str, prefix: str) -> None:
    for other, hint in OTHER_PLACES.items():
        [found] = problems(name, prefix, **{other: 3})
        assert found.parameter == other
        assert found.suggestion
        # A job has retries of its own.
        assert ("`retries`" if (name, other) == ("map", "max_retries") else hint) in found.suggestion


@pytest.mark.parametrize("name", CALLS)
def test_a_parameter_of_another_method_is_explained(name: str) -> None:
    known = set(fields_of(CALLS[name][2]))
    for method, others in METHODS.items():
        for other in sorted(others - known):
            [found] = problems(name, "", **{other: 3})
            assert found.parameter == other, (method, other)
            assert found.suggestion, (method, other, found)


@pytest.mark.parametrize(("name", "prefix"), EVERY)
def test_a_wrong_type_is_explained(name: str, prefix: str) -> None:
    [found] = problems(name, prefix, timeout="3")
    assert (found.parameter, found.value) == ("timeout", "'3'")
    assert found.rule == "must be a number or a Timeout, not a str."
    assert found.suggestion == "Remove the quotes."


@pytest.mark.parametrize(("name", "prefix"), EVERY)
def test_all_problems_are_reported_in_the_order_of_the_call(name: str, prefix: str) -> None:
    key = "sk-" + "secret"
    found = problems(name, prefix, timeot=3, api_key=key, timeout="3")
    assert [problem.parameter for problem in found] == ["timeot", "api_key", "timeout"]


OF_OPENAI: dict[type, set[str]] = {
    DecideParams: {"safety_identifier"},
    ResponseParams: {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
    },
}
"""Parameters whose names are explained elsewhere as those of OpenAI's own server."""


def test_the_list_of_names_is_complete() -> None:
    every = {"extra_body", "extra_headers", "max_retry_seconds", "timeout"}
    chats = set(fields_of(VLLMChatParams)) - every
    for name in METHODS["chat"]:
        assert name in chats
    assert chats == set(METHODS["chat"])
    listed = set[str]().union(*METHODS.values())
    for name, (_, _, params) in CALLS.items():
        assert set(fields_of(params)) - every - OF_OPENAI.get(params, set()) <= listed, name
    for method, names in METHODS.items():
        assert names <= set(fields_of(CALLS[method][2])), method


@pytest.mark.parametrize("method", ["health", "sleep", "models"])
def test_methods_without_parameters_explain_every_name(method: str) -> None:
    llm = VLLMProvider("m", base_url="http://127.0.0.1:9/v1", max_retries=0)
    places: Mapping[str, dict[str, object]] = vars(unknown_names)
    names = {"whatever", *places["_PLACES"], *places["_SCHEMAS"], *places["_OPENAI_CHATS"], "extra_body"}
    for name in names:
        with pytest.raises(InvalidRequestError, match=name):
            getattr(llm, method)(**{name: 1})
    for name in ("headers", "extra_headers"):
        with pytest.raises(InvalidRequestError) as caught:
            getattr(llm, method)(**{name: {"a": "b"}})
        [problem] = caught.value.problems
        assert problem.rule == f"is not a parameter of VLLMProvider.{method}."
        assert problem.suggestion == (
            "Write VLLMProvider(..., headers=...), or .with_options(headers=...) for a copy."
        )
