"""Defaults of a provider for the parameters of its calls."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from vllmchat import APIStatusError, InvalidRequestError, OpenAIProvider, VLLMProvider, run_job, run_tools
from vllmchat.chat.params import DefaultParams, VLLMDefaultParams
from vllmchat.checking.rules import fields_of
from vllmchat.client.base import ProviderBase
from vllmchat.testing import ScriptedProvider, tool_call

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROVIDERS = [VLLMProvider, OpenAIProvider]
URL = "http://127.0.0.1:9/v1"


class Server:
    """Records the body of each request, and rejects it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/version"):
            return httpx.Response(200, json={"version": "0.32.0"})
        if request.headers["content-type"] == "application/json":
            self.bodies.append(json.loads(request.content))
        else:
            self.bodies.append({"form": request.content.decode("latin-1")})
        return httpx.Response(400, json={"error": {"message": "no", "type": "BadRequestError", "code": 400}})

    async def answer(self, request: httpx.Request) -> httpx.Response:
        return self(request)

    def provider(self, kind: type[Any], **defaults: object) -> Any:
        return kind(
            "m",
            base_url=URL,
            http_client=httpx.Client(transport=httpx.MockTransport(self)),
            async_http_client=httpx.AsyncClient(transport=httpx.MockTransport(self.answer)),
            **defaults,
        )


def sent(llm: Any, server: Server, method: str, *args: object, **params: object) -> dict[str, Any]:
    """The body that a call sends, sync and async."""

    def call() -> None:
        for _ in getattr(llm, method)(*args, **params):
            pass

    async def acall() -> None:
        result = getattr(llm, f"a{method}")(*args, **params)
        if inspect.iscoroutine(result):
            await result
        else:
            async for _ in result:
                pass

    with pytest.raises(APIStatusError):
        call()
    with pytest.raises(APIStatusError):
        asyncio.run(acall())
    sync, not_sync = server.bodies[-2:]
    if "form" not in sync:
        assert sync == not_sync
    return sync


def weather(city: str) -> str:
    """Get the weather."""
    return f"Sunny in {city}."


SAMPLING: list[tuple[str, tuple[object, ...], dict[str, object]]] = [
    ("chat", ("Hi",), {}),
    ("stream", ("Hi",), {}),
    ("parse", ("Hi", int), {}),
    ("stream_parse", ("Hi", int), {}),
    ("choose", ("Hi", ["yes", "no"]), {}),
    ("run_tools", ("Hi",), {"tools": [weather]}),
    ("stream_run_tools", ("Hi",), {"tools": [weather]}),
    ("complete", ("Hi",), {}),
    ("stream_complete", ("Hi",), {}),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("method", "args", "params"), SAMPLING, ids=[each[0] for each in SAMPLING])
def test_methods_that_sample_use_defaults(
    provider: type[Any], method: str, args: tuple[object, ...], params: dict[str, object]
) -> None:
    server = Server()
    llm = server.provider(provider, temperature=0, max_tokens=200, seed=1)
    body = sent(llm, server, method, *args, **params)
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0, 200, 1)
    body = sent(llm, server, method, *args, temperature=0.5, seed=None, **params)
    assert (body["temperature"], body["max_tokens"]) == (0.5, 200)
    assert "seed" not in body


def test_methods_of_vllm_use_those_that_they_have() -> None:
    server = Server()
    llm = server.provider(VLLMProvider, temperature=0, top_k=20, max_tokens=9, enable_thinking=False)
    body = sent(llm, server, "chat_batch", ["Hi", "Ho"])
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0, 20, 9)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent(llm, server, "render", "Hi")["chat_template_kwargs"] == {"enable_thinking": False}
    body = sent(llm, server, "generate", [1])
    assert body["sampling_params"] == {"temperature": 0, "top_k": 20, "max_tokens": 9}
    body = sent(llm, server, "complete", "Hi")
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0, 20, 9)
    assert "chat_template_kwargs" not in body
    body = sent(llm, server, "respond", "Hi")
    assert (body["temperature"], body["top_k"]) == (0, 20)
    assert not {"max_tokens", "max_output_tokens"} & set(body)
    assert 'name="temperature"' in sent(llm, server, "transcribe", b"RIFF")["form"]


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("embed", ("Hi",)),
        ("classify", ("Hi",)),
        ("score", ("a", "b")),
        ("tokenize", ("Hi",)),
        ("tokenize", ([{"role": "user", "content": "Hi"}],)),
        ("decide", ("Hi", [{"type": "predicate", "instructions": "Is it a greeting?"}])),
    ],
)
def test_methods_that_do_not_sample_do_not(method: str, args: tuple[object, ...]) -> None:
    server, plain = Server(), Server()
    llm = server.provider(VLLMProvider, temperature=0, enable_thinking=False, chat_template_kwargs={"a": 1})
    assert sent(llm, server, method, *args) == sent(plain.provider(VLLMProvider), plain, method, *args)


def test_methods_without_parameters_work_with_defaults() -> None:
    llm = VLLMProvider("m", base_url=URL, temperature=0)
    llm.close()
    with pytest.raises(InvalidRequestError, match="is closed"):
        llm.models()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_copy_merges(provider: type[Any]) -> None:
    server = Server()
    llm = server.provider(provider, temperature=0, max_tokens=200)
    copy = llm.with_options(temperature=None, top_p=0.5)
    body = sent(copy, server, "chat", "Hi")
    assert (body["max_tokens"], body["top_p"], "temperature" in body) == (200, 0.5, False)
    assert sent(copy.with_options(timeout=5), server, "chat", "Hi") == body
    body = sent(llm, server, "chat", "Hi")
    assert (body["temperature"], body["max_tokens"], "top_p" in body) == (0, 200, False)
    assert repr(llm) == f"{provider.__name__}('m', base_url='{URL}', temperature=0, max_tokens=200)"
    assert repr(copy) == f"{provider.__name__}('m', base_url='{URL}', max_tokens=200, top_p=0.5)"
    assert (
        repr(provider("m", base_url=URL, temperature=None)) == f"{provider.__name__}('m', base_url='{URL}')"
    )


@pytest.mark.parametrize(
    ("defaults", "given", "expected"),
    [
        # Two names of one limit.
        ({"max_tokens": 9}, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_completion_tokens": 9}, {"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 9}, {"max_tokens": None}, {}),
        # One variable of the template.
        (
            {"enable_thinking": False},
            {"chat_template_kwargs": {"enable_thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": True}},
        ),
        (
            {"enable_thinking": False},
            {"chat_template_kwargs": {"a": 1}},
            {"chat_template_kwargs": {"a": 1, "enable_thinking": False}},
        ),
        (
            {"chat_template_kwargs": {"enable_thinking": False, "a": 1}},
            {"enable_thinking": True},
            {"chat_template_kwargs": {"enable_thinking": True, "a": 1}},
        ),
        ({"chat_template_kwargs": {"a": 1}}, {"chat_template_kwargs": {"b": 2}}, {"chat_template_kwargs": {"b": 2}}),
    ],
)  # fmt: skip
def test_a_call_overrides_the_same_under_another_name(
    defaults: dict[str, object], given: dict[str, object], expected: Mapping[str, object]
) -> None:
    server = Server()
    llm = server.provider(VLLMProvider, **defaults)
    for body in (
        sent(llm, server, "chat", "Hi", **given),
        sent(llm, server, "run_tools", "Hi", tools=[weather], **given),
        sent(llm.with_options(**given), server, "chat", "Hi"),
    ):
        assert {name: each for name, each in body.items() if name in {*defaults, *expected}} == expected


def test_a_wrong_value_of_a_call_is_reported_and_not_its_default() -> None:
    llm: Any = VLLMProvider("m", base_url=URL, enable_thinking=False, temperature=0)
    with pytest.raises(InvalidRequestError) as caught:
        llm.chat("Hi", chat_template_kwargs=3, temperature="x")
    assert {each.parameter for each in caught.value.problems} == {"chat_template_kwargs", "temperature"}


def test_defaults_and_parameters_follow_the_rules_across_parameters() -> None:
    llm = VLLMProvider("m", base_url=URL, temperature=0, min_tokens=10)
    with pytest.raises(InvalidRequestError, match=r"^n=2: must be 1 with temperature=0"):
        llm.chat("Hi", n=2)
    with pytest.raises(InvalidRequestError, match=r"^min_tokens=10: must be at most max_tokens=5\.$"):
        llm.stream("Hi", max_tokens=5)
    with pytest.raises(InvalidRequestError, match=r"^min_tokens=10: must be at most max_tokens=5\.$"):
        llm.with_options(max_tokens=5)
    with pytest.raises(InvalidRequestError, match=r"^min_tokens=9: must be at most max_tokens=5\.$"):
        VLLMProvider("m", min_tokens=9, max_tokens=5)
    assert isinstance(llm.with_options(max_tokens=5, min_tokens=None), VLLMProvider)


def test_every_turn_of_a_tool_run_uses_them() -> None:

    def by_method(llm: VLLMProvider) -> None:
        llm.run_tools("Hi", tools=[weather], seed=None)

    def by_function(llm: VLLMProvider) -> None:
        run_tools(llm, "Hi", tools=[weather], seed=None)

    for run in (by_method, by_function):
        scripted = ScriptedProvider([tool_call("weather", {"city": "Paris"}), "Sunny."])
        run(scripted.with_options(temperature=0, seed=1))
        assert [(call.params["temperature"], "seed" in call.params) for call in scripted.calls] == [
            (0, False)
        ] * 2


def test_an_input_of_a_job_overrides_them() -> None:
    scripted = ScriptedProvider("Hello")
    llm = scripted.with_options(max_completion_tokens=200, temperature=0, seed=1)
    inputs: Any = ["Hi", {"messages": "Hi", "max_tokens": 5, "seed": None}]
    assert len(list(llm.map(inputs, temperature=0.5))) == 2
    found = [
        {name: each for name, each in call.params.items() if name.startswith(("max", "temp", "seed"))}
        for call in scripted.calls
    ]
    assert sorted(found, key=len) == [
        {"temperature": 0.5, "max_tokens": 5},
        {"temperature": 0.5, "max_completion_tokens": 200, "seed": 1},
    ]


def test_a_job_does_not_go_on_with_other_defaults(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Hi\n", "utf-8")
    llm = ScriptedProvider("Hello").with_options(temperature=0)
    files: Any = (tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert run_job(llm, *files, prompt="{text}").done == 1
    assert run_job(llm.with_options(timeout=9), *files, prompt="{text}").skipped == 1
    with pytest.raises(InvalidRequestError):
        run_job(llm.with_options(temperature=1), *files, prompt="{text}")


@pytest.mark.parametrize(
    ("provider", "params"), [(VLLMProvider, VLLMDefaultParams), (OpenAIProvider, DefaultParams)]
)
def test_the_signature_names_them(provider: type[Any], params: type) -> None:
    known = set(fields_of(params))
    settings = set(inspect.signature(ProviderBase).parameters) - {"defaults"}
    assert set(inspect.signature(provider).parameters) == settings | known
    copies = set(inspect.signature(ProviderBase.with_options).parameters) - {"self", "defaults"}
    assert set(inspect.signature(provider.with_options).parameters) == {"self"} | copies | known
    # None of them is set for each call anew, and each is a parameter of chats.
    assert known <= set(inspect.signature(provider.chat).parameters)
    assert known.isdisjoint(
        {"n", "tools", "response_format", "structured_outputs", "stream_options", "timeout"}
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_type_checkers_read_the_signature_of_the_base(provider: type[Any]) -> None:
    """The classes write it again, for the types of their own defaults."""
    for method in ("__init__", "with_options"):
        base, own = (_written(kind, method) for kind in (ProviderBase, provider))
        assert ast.dump(own.args) == ast.dump(base.args)
        assert ast.get_docstring(own) == ast.get_docstring(base)


def _written(kind: type, method: str) -> ast.FunctionDef:
    module = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    [found] = [
        each
        for cls in module.body
        if isinstance(cls, ast.ClassDef) and cls.name == kind.__name__
        for each in ast.walk(cls)
        if isinstance(each, ast.FunctionDef) and each.name == method
    ]
    assert found.args.kwarg is not None
    found.args.kwarg.annotation = None
    return found


def test_a_provider_without_defaults_does_not_load_them() -> None:
    code = (
        "import sys; from vllmchat.testing import ScriptedProvider; ScriptedProvider('Hi').chat('Hi');"
        "print('vllmchat.client.defaults' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
