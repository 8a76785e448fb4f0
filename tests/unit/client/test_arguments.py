"""Calls that do not fit a signature are explained like invalid parameters."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import pydoc
import subprocess
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import create_autospec

import pytest

from vllmchat import InvalidRequestError, OpenAIProvider, VLLMProvider
from vllmchat.chat.methods import ChatMethods
from vllmchat.chat.params import VLLMChatParams
from vllmchat.checking.rules import fields_of
from vllmchat.client import wrong_arguments
from vllmchat.client.base import ProviderBase

if TYPE_CHECKING:
    from collections.abc import Callable

PROVIDERS = [VLLMProvider, OpenAIProvider]
KEY = "sk-" + "secret"


class User:
    """A type of replies."""


def weather(city: str) -> str:
    """Get the weather."""
    return f"Sunny in {city}."


def refused(call: Callable[..., object], *args: object, **kwargs: object) -> list[str]:
    """The problems of a call, as text, without a secret anywhere."""
    with pytest.raises(InvalidRequestError) as caught:
        call(*args, **kwargs)
    error = caught.value
    assert error.__cause__ is error.__context__ is None
    texts = [str(error), repr(error), *map(repr, error.problems), "".join(traceback.format_exception(error))]
    for text in texts:
        assert "-secret" not in text
        assert "Methods" not in text.replace("test_", "")
        assert "ProviderBase" not in text
    return [str(problem) for problem in error.problems]


def _wait(method: Callable[..., Any], *args: object, **kwargs: object) -> None:
    """Calls a method, sync or async."""

    async def wait() -> None:
        await method(*args, **kwargs)

    if inspect.iscoroutinefunction(method):
        asyncio.run(wait())
    else:
        method(*args, **kwargs)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"retries": 3}, "retries=3: has a different name here. Write `max_retries=3`."),
        ({"default_headers": {"a": KEY}}, "default_headers: has a different name here. Write `headers=...`."),
        ({"proxy": "http://p"}, "Set HTTPS_PROXY, or write http_client=httpx.Client(proxy=...)."),
        ({"proxy": "http://user:secret@p"}, "proxy: is not an argument: proxies are set in the environment."),
        (
            {"n": 2},
            "n=2: is a parameter of calls, not of the provider. Write llm.chat(..., n=2).",
        ),
        ({"logprob": 1}, "logprob=1: is probably `logprobs`, which is a parameter of calls"),
        ({"temprature": 0}, "temprature=0: is not an argument of {provider}. Did you mean `temperature`?"),
        ({"temperature": "x"}, "temperature='x': must be a number, not a str."),
        ({"extra_headers": {"a": KEY}}, "extra_headers: has a different name here. Write `headers=...`."),
        ({"dimensions": 3}, "Write llm.embed(..., dimensions=3)."),
        ({"max_retires": 3}, "is not an argument of {provider}. Did you mean `max_retries`?"),
        ({"api_kye": KEY}, "api_kye: is not an argument of {provider}. Did you mean `api_key`?"),
        ({"token": "a-secret"}, "token: has a different name here. Write `api_key=...`."),
        ({"whatever": KEY}, "whatever: is not an argument of {provider}. It accepts `model`, `base_url`, "),
        ({"tensor_parallel_size": 2}, "Start it with: vllm serve --tensor-parallel-size ..."),
        ({"organization": "o"}, 'Write headers={{"OpenAI-Organization": ...}}.'),
        ({"http_client": None, "client": None}, "Write `http_client=None`."),
    ],
)
def test_unknown_arguments_of_a_constructor(
    provider: type[Any], arguments: dict[str, object], says: str
) -> None:
    [problem] = refused(provider, "m", **arguments)
    assert says.format(provider=provider.__name__) in problem


@pytest.mark.parametrize("provider", PROVIDERS)
def test_all_problems_of_a_constructor_are_reported(provider: type[Any]) -> None:
    found = refused(provider, "m", "http://x", "secret", retries=3, model="n", n=2, temperature=3)
    assert [problem.partition(":")[0] for problem in found] == [
        provider.__name__, "model='n'", "retries=3", "n=2", "temperature=3"
    ]  # fmt: skip
    assert found[0] == (
        f"{provider.__name__}: accepts only `model` by position, but 3 were given. "
        "Write the others by name: base_url=..., api_key=..., timeout=...."
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_unknown_arguments_of_a_copy(provider: type[Any]) -> None:
    copy = provider("m", base_url="http://x").with_options
    allowed = "greater than 0 and at most 1" if provider is VLLMProvider else "between 0 and 1"
    assert refused(copy, n=2, temprature=0, top_p=2) == [
        "n=2: is a parameter of calls, not of the provider. Write llm.chat(..., n=2).",
        f"temprature=0: is not an argument of {provider.__name__}.with_options. Did you mean `temperature`?",
        f"top_p=2: must be {allowed}.",
    ]
    assert refused(copy, retries=3) == ["retries=3: has a different name here. Write `max_retries=3`."]
    assert refused(copy, base_url="http://y") == [
        (
            "base_url='http://y': is fixed: a copy shares the connections of the original. "
            f"Write {provider.__name__}(..., base_url='http://y')."
        )
    ]
    [problem] = refused(copy, "n")
    assert problem.startswith(
        f"{provider.__name__}.with_options: accepts no arguments by position, but 1 was"
    )


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("method", "args", "arguments", "says"),
    [
        ("chat", (), {"prompt": "Hi"},
         "prompt='Hi': is not a parameter: the conversation is the first argument. Write chat('Hi', ...)."),
        ("chat", (), {"mesages": "Hi"}, "Write chat('Hi', ...)."),
        ("chat", (), {}, "messages: is required. Write chat(messages, ...)."),
        ("chat", ("system", "user"), {},
         "{provider}.chat: accepts only `messages` by position, but 2 were given. Write several messages as "),
        ("chat", ("system", "user"), {}, 'as [{{"role": ..., "content": ...}}, ...], and a model as model="...".'),
        ("chat", ("Hi",), {"messages": KEY}, "messages: is given twice, by position and by name."),
        ("parse", ("Hi",), {"response_format": User},
         "is not a parameter: the type is the second argument. Write parse(messages, User, ...)."),
        ("parse", ("Hi",), {}, "kind: is required. Write parse(messages, kind, ...)."),
        ("choose", ("Hi",), {"choices": ["a"]}, "Write choose(messages, ['a'], ...)."),
        ("run_tools", ("Hi",), {"tools": [weather], "max_steps": 3},
         "Write run_tools(messages, tools=[...], max_turns=3)."),
        ("chat", ("Hi",), {"response_model": User}, "Write parse(messages, User)."),
        ("models", (), {"api_key": KEY}, "api_key: is set on the provider, not per call."),
        ("models", (), {"timeot": 3}, "is not a parameter of {provider}.models. Did you mean `timeout`?"),
        ("models", (), {"whatever": 3}, "is not a parameter of {provider}.models. Leave it out."),
        ("close", (3,), {}, "{provider}.close: accepts no arguments by position, but 1 was given."),
    ],
)  # fmt: skip
def test_arguments_of_methods(
    provider: type[Any], method: str, args: tuple[object, ...], arguments: dict[str, object], says: str
) -> None:
    llm = provider("m", base_url="http://127.0.0.1:9/v1")
    [problem] = refused(getattr(llm, method), *args, **arguments)
    assert says.format(provider=provider.__name__) in problem
    [problem] = refused(partial(_wait, getattr(llm, f"a{method}")), *args, **arguments)
    assert says.format(provider=provider.__name__).replace(f".{method}", f".a{method}") in problem.replace(
        f"Write a{method}(", f"Write {method}("
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_public_method_explains_its_arguments(provider: type[Any]) -> None:
    llm = provider("m", base_url="http://127.0.0.1:9/v1")
    for name in (name for name, _ in inspect.getmembers(provider, inspect.isfunction) if name[0] != "_"):
        problem = refused(partial(_wait, getattr(llm, name)), 1, 2, 3, 4)[0]
        assert problem.startswith(f"{provider.__name__}.{name}: accepts "), name


def test_type_errors_of_the_method_itself_are_untouched() -> None:
    with pytest.raises(TypeError, match="model must be a str or None, not int"):
        VLLMProvider(3)  # type: ignore[arg-type]

    class Broken(VLLMProvider):
        def _run(self, request: object, model: object = None) -> Any:
            raise TypeError("inner")

    with pytest.raises(TypeError, match="inner"):
        Broken("m").chat("Hi")
    with pytest.raises(TypeError, match="inner"):
        Broken("m").chat.__wrapped__(Broken("m"), "Hi")  # type: ignore[attr-defined]


def test_methods_look_as_they_are_written() -> None:
    assert inspect.signature(inspect.unwrap(VLLMProvider.chat)) == inspect.signature(ChatMethods.chat)
    for provider in (VLLMProvider, OpenAIProvider):
        for method in ("__init__", "with_options"):
            written = inspect.signature(inspect.unwrap(getattr(provider, method)))
            assert written == inspect.signature(getattr(ProviderBase, method))
    assert inspect.getdoc(VLLMProvider.chat) == inspect.getdoc(ChatMethods.chat)
    assert inspect.iscoroutinefunction(VLLMProvider.achat)
    assert not inspect.iscoroutinefunction(VLLMProvider.astream)
    assert inspect.iscoroutinefunction(create_autospec(VLLMProvider).achat)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_signatures_name_every_parameter(provider: type[Any]) -> None:
    """For `help()`, Shift-Tab in a notebook and the completion of keywords in IPython."""
    llm = provider("m", base_url="http://x")
    for name, method in inspect.getmembers(llm, inspect.ismethod):
        if name.startswith("_"):
            continue
        found = inspect.signature(method)
        written = inspect.signature(inspect.unwrap(method.__func__))
        assert found.return_annotation == written.return_annotation
        kinds = {each.kind for each in found.parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, name
        copied = pickle.loads(pickle.dumps(inspect.signature(method.__func__).replace(return_annotation=int)))
        assert list(copied.parameters)[1:] == list(found.parameters)
        known = [each for each in written.parameters if each not in ("self", "params", "defaults")]
        assert list(found.parameters)[: len(known)] == known
    found = inspect.signature(llm.chat)
    assert str(found.parameters["temperature"]) == "temperature: float | None = None"
    assert ("top_k" in found.parameters) is (provider is VLLMProvider)
    with pytest.raises(TypeError, match="unexpected keyword argument 'temprature'"):
        found.bind("Hi", temprature=0)
    assert "temperature: " in pydoc.render_doc(llm.chat)


def test_the_lists_name_real_arguments() -> None:
    tables = vars(wrong_arguments)
    assert set(tables["_SETTINGS"]) == set(inspect.signature(ProviderBase).parameters) - {"defaults"}
    required = {
        each.name
        for _, method in inspect.getmembers(VLLMProvider, inspect.isfunction)
        for each in list(inspect.signature(method).parameters.values())[1:]
        if each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty
    }
    assert set(tables["_ALIASES"]) <= required
    known = {alias for others in tables["_SETTINGS"].values() for alias in others}
    assert known.isdisjoint(fields_of(VLLMChatParams).keys() - {"extra_headers"})


def test_explanations_are_imported_only_for_invalid_calls() -> None:
    code = (
        "import sys; from vllmchat import VLLMProvider; VLLMProvider('m').close();"
        "print([name for name in sys.modules if 'wrong_arguments' in name or 'unknown_names' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
