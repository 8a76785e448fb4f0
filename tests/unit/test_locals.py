"""No key is in a local of a traceback: error reporters and debuggers show them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import vllmchat
from support.routes import ASKED, Asked
from support.scripted import close, refusing_origin, reply
from vllmchat import OpenAIProvider, VLLMChatError, VLLMProvider, arun_tools, run_tools
from vllmchat.checking.secrets import Secret, hide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.runners import Runner
    from support.scripted import Answer, ScriptedServer

PACKAGE = str(Path(vllmchat.__file__).parent)


def key() -> str:
    """The key. No local of this file holds it, so that tests may fail with their locals."""
    return "-".join(("hunter2", "is", "the", "key"))


def parts(value: object, seen: set[int]) -> Iterator[object]:
    """A value and what reporters show of its inside: Sentry, rich and pytest look into containers and dataclasses."""
    if id(value) in seen:
        return
    seen.add(id(value))
    yield value
    inner: list[object] = []
    if isinstance(value, Mapping):
        inner = [each for item in cast("Mapping[object, object]", value).items() for each in item]
    elif isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes | bytearray):
        inner = list(cast("Sequence[object]", value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, field.name) for field in dataclasses.fields(value) if field.repr]
    for each in inner:
        yield from parts(each, seen)


def shown(value: object) -> Iterator[str]:
    """The texts that reporters print of a local; rich shortens long texts before their repr."""
    for each in parts(value, set()):
        try:
            yield repr(each)
        except Exception as error:  # a provider that is not complete yet
            yield str(error)
        if isinstance(each, str | bytes):
            yield repr(each[:80])


def leaks(error: BaseException | None) -> set[str]:
    """The locals of this package that show the key, in the tracebacks of an error and of its causes."""
    found: set[str] = set()
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        step = error.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            if code.co_filename.startswith(PACKAGE):
                for name, value in step.tb_frame.f_locals.items():
                    if any(key() in text for text in shown(value)):
                        found.add(f"{Path(code.co_filename).name}:{code.co_name}:{name}")
            step = step.tb_next
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def failed(call: Callable[..., Any], *args: object, **params: object) -> BaseException:
    """The error of a call."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
        call(*args, **params)
    return caught.value


def ask(runner: Runner, llm: object, asked: Asked, **params: object) -> None:
    """Calls a method, and reads what it streams."""
    params = {**dict(asked.params), **params}
    if asked.method.startswith("stream"):
        runner.open(llm, asked.method, *asked.arguments, **params).until_done()
    else:
        runner.do(llm, asked.method, *asked.arguments, **params)


EVERY = pytest.mark.parametrize("asked", ASKED, ids=lambda each: each.method)


def has_params(asked: Asked) -> bool:
    return "params" in inspect.signature(inspect.unwrap(getattr(VLLMProvider, asked.method))).parameters


@EVERY
def test_a_failed_call(asked: Asked, scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, api_key=key(), max_retries=0)
    scripted.script(close)
    error = failed(ask, runner, llm, asked)
    assert isinstance(error, VLLMChatError)
    assert leaks(error) == set()
    for status, body in ((418, b'{"error": "broken"}'), (200, b"{")):
        scripted.always(partial(_answer, status, body))
        if (asked.method, status) != ("health", 200):  # any body will do
            error = failed(ask, runner, llm, asked)
            assert isinstance(error, VLLMChatError)
            assert leaks(error) == set()
    runner.close(llm)


def _answer(status: int, body: bytes, _: object) -> Answer:
    return reply(body, status)


@EVERY
def test_a_key_of_one_call(asked: Asked, scripted: ScriptedServer, runner: Runner) -> None:
    if not has_params(asked):
        return
    scripted.always(lambda _: reply({"error": "broken"}, 500))
    scripted.version = "0.32.0"
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    headers = {"authorization": f"Bearer {key()}", "x-session": key()}
    error = failed(ask, runner, llm, asked, extra_headers=headers)
    assert "500" in str(error)
    assert any(key() in request.headers["authorization"] for request in scripted.requests)
    assert leaks(error) == set()
    runner.close(llm)


@EVERY
def test_a_key_in_the_body(asked: Asked, scripted: ScriptedServer, runner: Runner) -> None:
    if not has_params(asked):
        return
    scripted.always(lambda _: reply({"error": "broken"}, 500))
    scripted.version = "0.32.0"
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    extra = {"api_key": key(), "servers": [{"label": "x", "headers": {"authorization": key()}}]}
    error = failed(ask, runner, llm, asked, extra_body=extra)
    assert "500" in str(error)
    assert any(key() in request.body.decode("latin-1") for request in scripted.requests)
    assert leaks(error) == set()
    runner.close(llm)


def test_a_key_in_a_tool(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(lambda _: reply({"error": "broken"}, 500))
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    tool = {"type": "mcp", "server_label": "x", "server_url": "https://h/", "headers": {"x-api-key": key()}}
    error = failed(runner.do, llm, "respond", "Hi", tools=[tool])
    assert "500" in str(error)
    assert leaks(error) == set()


@EVERY
@pytest.mark.parametrize("name", ["api_key", "default_headers", "headers", "token", "apikey"])
def test_a_key_given_by_mistake(name: str, asked: Asked, runner: Runner) -> None:
    value: object = {"authorization": key()} if name.endswith("headers") else key()
    llm = VLLMProvider("m", base_url="http://127.0.0.1:9/v1", max_retries=0)
    error = failed(ask, runner, llm, asked, **{name: value})
    assert name in str(error)
    assert leaks(error) == set()


@pytest.mark.parametrize("provider", [VLLMProvider, OpenAIProvider])
@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "KEY", "base_url": "localhost"},
        {"api_key": "KEY\n"},
        {"api_key": b"KEY"},
        {"headers": {"authorization": "KEY"}, "max_retries": -1},
        {"headers": {"authorization": "KEY\0"}},
        {"headers": ["KEY"]},
        {"default_headers": {"authorization": "KEY"}},
        {"token": "KEY"},
        {"base_url": "http://user:KEY@host/v1"},
        {"base_url": "http://host/v1?key=KEY"},
    ],
    ids=str,
)
def test_a_wrong_setting(provider: type[Any], settings: dict[str, object]) -> None:
    settings = ast.literal_eval(repr(settings).replace("KEY", key()))
    error = failed(provider, "m", **settings)
    assert leaks(error) == set()
    if not settings.keys() & {"base_url", "max_retries"}:
        assert leaks(failed(provider("m", base_url="http://h").with_options, **settings)) == set()


def test_a_key_by_position() -> None:
    assert leaks(failed(cast("Any", VLLMProvider), "m", key())) == set()
    assert leaks(failed(cast("Any", VLLMProvider("m")).chat, "Hi", key())) == set()


@pytest.mark.parametrize("provider", [VLLMProvider, OpenAIProvider])
def test_a_key_of_the_environment(
    provider: type[VLLMProvider | OpenAIProvider], monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", key())
    monkeypatch.setenv("OPENAI_API_KEY", key())
    with refusing_origin() as origin:
        error = failed(runner.chat, provider("m", base_url=f"{origin}/v1", max_retries=0))
    assert "no connection" in str(error)
    assert leaks(error) == set()
    monkeypatch.setenv("OPENAI_API_KEY", f"{key()}\n")
    monkeypatch.setenv("VLLM_API_KEY", f"{key()}\n")
    assert leaks(failed(provider, "m")) == set()


def test_the_functions_for_runs(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(lambda _: reply({"error": "broken"}, 500))
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    params: dict[str, Any] = {"tools": [key_of_nothing], "extra_headers": {"authorization": key()}}
    if runner.portal is None:
        error = failed(run_tools, llm, "Hi", **params)
    else:
        error = failed(runner.portal.call, lambda: arun_tools(llm, "Hi", **params))
    assert "500" in str(error)
    assert leaks(error) == set()


def key_of_nothing() -> str:
    """Returns nothing of use."""
    return ""


def test_a_hidden_text_is_sent_as_it_is() -> None:
    hidden = Secret(key())
    assert hidden == key()
    assert f"Bearer {hidden}" == f"Bearer {key()}"
    assert hidden.encode() == key().encode()
    assert repr(hidden) == repr(hidden[:3]) == repr([hidden])[1:-1] == "'***'"
    assert hide({"a": [key(), 1, None]}) == {"a": [key(), 1, None]}
    assert key() not in repr(hide({"a": (key(), {"b": key()})}))
