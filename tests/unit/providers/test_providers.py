"""Constructors of providers: what they take, from where, and what they refuse."""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from support.chats import answer_any, completion, models
from support.scripted import Gate, ScriptedServer, in_thread, refusing_origin, reply
from vllmchat import (
    APIConnectionError,
    InvalidRequestError,
    NotFoundError,
    OpenAIProvider,
    Provider,
    Timeout,
    VLLMProvider,
)
from vllmchat.http.timeout import DEFAULT_TIMEOUT
from vllmchat.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.runners import Runner

Either = type[VLLMProvider] | type[OpenAIProvider]
EITHER = pytest.mark.parametrize("cls", [VLLMProvider, OpenAIProvider])

# ------------------------------------------------------------------------------------------------
# Where a setting comes from
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "variable", "default"),
    [
        (VLLMProvider, "VLLM_BASE_URL", "http://localhost:8000/v1"),
        (OpenAIProvider, "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    ],
)
def test_base_url(cls: Either, variable: str, default: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cls("m").base_url == default
    monkeypatch.setenv(variable, "")
    assert cls("m").base_url == default
    monkeypatch.setenv(variable, "http://env:1/v1")
    assert cls("m").base_url == "http://env:1/v1"
    assert cls("m", base_url="http://arg:2/v1").base_url == "http://arg:2/v1"


@pytest.mark.parametrize(
    ("cls", "variable", "default"),
    [(VLLMProvider, "VLLM_API_KEY", "Bearer EMPTY"), (OpenAIProvider, "OPENAI_API_KEY", None)],
)
def test_api_key(
    cls: Either,
    variable: str,
    default: str | None,
    scripted: ScriptedServer,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted.always(answer_any)

    def sent(**options: Any) -> str | None:
        runner.chat(cls("m", base_url=scripted.base_url, **options))
        return scripted.requests[-1].headers.get("authorization")

    assert sent() == default
    monkeypatch.setenv(variable, "")
    assert sent() == default
    monkeypatch.setenv(variable, "from-env")
    assert sent() == "Bearer from-env"
    assert sent(api_key="") == "Bearer from-env"
    assert sent(api_key="from-arg") == "Bearer from-arg"
    assert sent(api_key="x", headers={"Authorization": "Basic eA=="}) == "Basic eA=="


def test_the_other_providers_variables_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://openai/v1")
    monkeypatch.setenv("VLLM_BASE_URL", "http://vllm/v1")
    assert VLLMProvider("m").base_url == "http://vllm/v1"
    assert OpenAIProvider("m").base_url == "http://openai/v1"


def test_timeout() -> None:
    assert VLLMProvider("m").timeout == DEFAULT_TIMEOUT
    assert VLLMProvider("m", timeout=7).timeout == Timeout(connect=5, first_token=600, idle=300, total=7)
    assert VLLMProvider("m", timeout=Timeout(connect=1)).timeout == Timeout(connect=1)
    with pytest.raises(ValueError, match="positive"):
        VLLMProvider("m", timeout=0)
    with pytest.raises(TypeError, match="number of seconds"):
        VLLMProvider("m", timeout="5")  # type: ignore[arg-type] # that is the point


@EITHER
def test_headers(cls: Either, scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = cls("m", base_url=scripted.base_url, headers={"X-Team": " a ", "User-Agent": "mine"})
    runner.chat(llm)
    headers = scripted.requests[0].headers
    assert (headers["x-team"], headers["user-agent"]) == ("a", "mine")
    assert headers["host"] == scripted.origin.removeprefix("http://")
    runner.chat(cls("m", base_url=scripted.base_url, headers={"Host": "virtual.example"}))
    assert [value for name, value in scripted.requests[1].raw_headers if name.lower() == "host"] == [
        "virtual.example"
    ]
    assert scripted.requests[1].headers["user-agent"] == f"vllmchat/{__version__}"


@pytest.mark.parametrize(
    ("headers", "error", "words"),
    [
        ({"a b": "x"}, ValueError, "'a b' is not a valid header name"),
        ({"": "x"}, ValueError, "is not a valid header name"),
        ({"a\r\nb": "x"}, ValueError, "is not a valid header name"),
        ({"ä": "x"}, ValueError, "is not a valid header name"),
        ({"a": "secret\r\nb: c"}, ValueError, "not printable ASCII"),
        ({"a": "secretä"}, ValueError, "not printable ASCII"),
        ({"a": 1}, TypeError, "must map str to str; 'a' does not"),
        ({1: "a"}, TypeError, "must map str to str; 1 does not"),
        ({"Content-Length": "1"}, ValueError, "is computed from the request"),
        ([("a", "b")], TypeError, "must be a mapping of str to str, not list"),
    ],
)
def test_headers_that_are_refused(headers: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        VLLMProvider("m", headers=headers)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["two\nlines", "späth", "tab\t"])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(ValueError, match="api_key contains a line break") as caught:
        VLLMProvider("m", api_key=key)
    assert key not in str(caught.value)
    with pytest.raises(ValueError, match="not printable ASCII"):
        VLLMProvider("m").with_options(api_key=key)


def test_wrong_types() -> None:
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"model": 1}, TypeError, "model must be a str or None, not int"),
        ({"base_url": 1}, TypeError, "base_url must be a str"),
        ({"api_key": 1}, TypeError, "api_key must be a str, not int"),
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"max_retries": True}, ValueError, "max_retries"),
        ({"max_retries": 1.5}, ValueError, "max_retries"),
        ({"max_connections": 0}, ValueError, "max_connections must be at least 1"),
        ({"max_connections": True}, ValueError, "max_connections"),
        ({"max_connections": 1.5}, ValueError, "max_connections"),
        ({"verify": 1}, TypeError, "verify must be a bool, a path or an ssl.SSLContext, not int"),
        ({"verify": "/no/such/file"}, ValueError, "no such certificate file"),
        ({"verify": Path("/no/such/file")}, ValueError, "no such certificate file"),
    ]
    for options, error, words in wrong:
        with pytest.raises(error, match=words):
            VLLMProvider(**options)


# ------------------------------------------------------------------------------------------------
# base_url
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1"),
        ("/", "/v1"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1//", "/v1"),
        ("/team-a", "/team-a/v1"),
        ("/team-a/v1/", "/team-a/v1"),
        ("/a%20b", "/a%20b/v1"),
        (" ", "/v1"),
    ],
)
def test_base_url_forms(suffix: str, path: str, scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.origin + suffix)
    runner.chat(llm)
    assert scripted.requests[0].target == f"{path}/chat/completions"
    assert llm.base_url == scripted.origin + path


def test_openai_takes_base_url_as_it_is(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    for suffix, path in (("", ""), ("/api/", "/api"), ("/v1", "/v1"), ("/openai/v1beta", "/openai/v1beta")):
        runner.chat(OpenAIProvider("m", base_url=scripted.origin + suffix))
        assert scripted.requests[-1].target == f"{path}/chat/completions"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000", "has no scheme: write 'http://localhost:8000'"),
        ("localhost", "has no scheme: write 'http://localhost'"),
        ("//localhost", "has no scheme"),
        ("unix:///tmp/vllm.sock", "HTTPTransport"),
        ("http+unix://tmp", "HTTPTransport"),
        ("ftp://x", "must start with http:// or https://"),
        ("http://", "has no host"),
        ("http://:8000", "has no host"),
        ("http://x:port", "is not a URL"),
        ("http://x:99999", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://user:hunter2@x", "must not contain a user or password"),
        ("http://hunter2@x:port", "is not a URL"),
        ("http://x/v1?key=hunter2", "must not contain a query"),
        ("http://x/v1#hunter2", "must not contain a query or a fragment"),
        ("http://x/v1/chat/completions", "includes a route: remove '/chat/completions'"),
        ("http://x/v1/models/", "includes a route"),
        ("http://x/v 1", "white space"),
        ("http://a..b/v1", "has no valid host"),
    ],
)
@EITHER
def test_base_url_that_is_refused(cls: Either, url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("/", "/")) as caught:
        cls("m", base_url=url)
    assert "hunter2" not in str(caught.value)


def test_base_url_shown() -> None:
    assert VLLMProvider("m", base_url="HTTPS://Example.COM:443").base_url == "https://example.com/v1"
    assert VLLMProvider("m", base_url="http://[::1]:8000").base_url == "http://[::1]:8000/v1"
    assert VLLMProvider("m", base_url="http://bücher.example").base_url == "http://xn--bcher-kva.example/v1"


# ------------------------------------------------------------------------------------------------
# What a provider shows
# ------------------------------------------------------------------------------------------------


@EITHER
def test_repr(cls: Either) -> None:
    llm = cls("m", base_url="http://x/v1", api_key="hunter2", headers={"x-key": "hunter2"})
    assert repr(llm) == f"{cls.__name__}('m', base_url='http://x/v1')"
    assert "hunter2" not in repr(llm) + str(llm) + repr(llm.__dict__)


@EITHER
def test_name_and_protocol(cls: Either) -> None:
    llm = cls("m")
    assert llm.name == {"VLLMProvider": "vllm", "OpenAIProvider": "openai"}[cls.__name__]
    assert isinstance(llm, Provider)


# ------------------------------------------------------------------------------------------------
# with_options
# ------------------------------------------------------------------------------------------------


def test_with_options_shares_connections(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url, api_key="one", headers={"x-a": "1", "x-b": "2"})
    other = llm.with_options(model="n", api_key="two", headers={"X-B": "3"}, timeout=9, max_retries=0)
    for each in (llm, other, llm):
        runner.chat(each)
    assert scripted.connections == 1
    first, second, third = scripted.requests
    assert [request.json()["model"] for request in scripted.requests] == ["m", "n", "m"]
    assert [request.headers["authorization"] for request in scripted.requests] == [
        "Bearer one",
        "Bearer two",
        "Bearer one",
    ]
    assert (second.headers["x-a"], second.headers["x-b"]) == ("1", "3")
    assert first.headers["x-b"] == third.headers["x-b"] == "2"
    assert (other.timeout, llm.timeout) == (Timeout(total=9), DEFAULT_TIMEOUT)
    assert type(other) is VLLMProvider
    scripted.busy()
    with pytest.raises(Exception, match="busy"):
        runner.chat(other)


def test_closing_a_copy_does_nothing(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    copied = llm.with_options(model="n")
    runner.chat(llm)
    runner.close(copied)
    runner.chat(llm)
    assert scripted.connections == 1
    runner.close(llm)
    assert scripted.wait_client_closed()


def test_with_options_keeps_what_it_is_not_given() -> None:
    llm = VLLMProvider("m", timeout=7, max_retries=5, headers={"a": "b"})
    same = llm.with_options()
    assert (same.model, same.timeout, same.base_url) == (llm.model, llm.timeout, llm.base_url)
    with pytest.raises(ValueError, match="max_retries"):
        llm.with_options(max_retries=-1)
    with pytest.raises(TypeError, match="headers must map"):
        llm.with_options(headers={"a": 1})  # type: ignore[dict-item] # that is the point


def test_context_managers_close(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        llm.chat("Hi")
        assert scripted.open_connections == 1
    assert scripted.wait_client_closed()

    async def main() -> None:
        async with VLLMProvider("m", base_url=scripted.base_url) as llm:
            await llm.achat("Hi")
            assert scripted.open_connections == 1
        assert scripted.wait_client_closed()

    anyio.run(main)


def test_a_closed_provider_says_so(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    copied = llm.with_options(model="n")
    early = runner.stream(llm)
    runner.chat(llm)
    runner.close(llm)
    runner.close(llm)  # closing again is harmless
    calls: list[Callable[[], object]] = [
        lambda: runner.chat(llm),
        lambda: runner.chat(copied),
        lambda: list(runner.stream(llm)),
        lambda: list(early),
        lambda: runner.do(llm, "models"),
        lambda: runner.do(llm, "ready", 1),
        lambda: runner.do(llm, "embed", "x"),
        lambda: runner.do(llm, "run_tools", "x", tools=[len]),
        llm.__enter__,
        lambda: anyio.run(llm.__aenter__),
        # The other kind of call too
        lambda: llm.chat("Hi"),
        lambda: anyio.run(llm.achat, "Hi"),
    ]
    count = len(scripted.requests)
    for call in calls:
        with pytest.raises(
            InvalidRequestError, match=r"^this VLLMProvider is closed\. Create a new one, or close"
        ):
            call()
    assert len(scripted.requests) == count


# ------------------------------------------------------------------------------------------------
# Which model
# ------------------------------------------------------------------------------------------------


def test_the_server_is_asked_for_its_model_once(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider(base_url=scripted.base_url)
    assert llm.model is None
    runner.chat(llm)
    assert runner.stream(llm).texts() == ["H", "i"]
    runner.chat(llm, model="other")
    runner.chat(llm.with_options(headers={"x": "y"}))
    assert llm.model == "served"
    assert "served" in repr(llm)
    assert [request.path for request in scripted.requests].count("/v1/models") == 1
    assert [request.json()["model"] for request in scripted.requests if request.body] == [
        "served",
        "served",
        "other",
        "served",
    ]


def test_a_given_model_is_not_asked_for(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    runner.chat(VLLMProvider(base_url=scripted.base_url), model="mine")
    assert [request.path for request in scripted.requests] == ["/v1/chat/completions"]


@pytest.mark.anyio
async def test_many_tasks_ask_once(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    async with VLLMProvider(base_url=scripted.base_url) as llm, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(llm.achat, "Hi")
    assert [request.path for request in scripted.requests].count("/v1/models") == 1
    assert len(scripted.requests) == 21


def test_many_threads_ask_once(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    with VLLMProvider(base_url=scripted.base_url) as llm, ThreadPoolExecutor(20) as threads:
        start = threading.Barrier(20)

        def chat(_: int) -> str:
            start.wait()
            return llm.chat("Hi").text

        assert list(threads.map(chat, range(20))) == ["Hi"] * 20
    assert [request.path for request in scripted.requests].count("/v1/models") == 1


def test_names_of_one_model_are_no_choice(scripted: ScriptedServer, runner: Runner) -> None:
    """A server with `--served-model-name a b` lists both, and the first is the one that it uses in replies."""
    scripted.always(answer_any)
    scripted.reply({"data": [{"id": "a", "root": "/models/x"}, {"id": "b", "root": "/models/x"}]})
    llm = VLLMProvider(base_url=scripted.base_url)
    runner.chat(llm)
    assert llm.model == "a"


@pytest.mark.parametrize(
    "cards",
    [
        [{"id": "a", "root": "/x"}, {"id": "b", "root": "/y"}],
        [{"id": "a", "root": ""}, {"id": "b", "root": ""}],
        [{"id": "a"}, {"id": "b", "root": None}],
        [{"id": "a", "root": "/x"}, {"id": "b", "root": "/x", "parent": "a"}],
    ],
)
def test_other_names_are_a_choice(
    cards: list[dict[str, str | None]], scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply({"data": cards})
    with pytest.raises(InvalidRequestError, match="the server serves a, b"):
        runner.chat(VLLMProvider(base_url=scripted.base_url))


def test_several_models_or_none(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(models("a", "b"))
    llm = VLLMProvider(base_url=scripted.base_url)
    with pytest.raises(InvalidRequestError, match="the server serves a, b: set model= to one of them"):
        runner.chat(llm)
    scripted.reply(models("unknown"))
    with pytest.raises(
        InvalidRequestError, match='lists its model as "unknown", as some routers do: set model='
    ):
        runner.chat(llm)
    scripted.reply(models())
    with pytest.raises(InvalidRequestError, match="the server serves no model"):
        runner.chat(llm)
    adapter = {"data": [{"id": "base"}, {"id": "sql", "parent": "base"}]}
    scripted.reply(adapter)
    with pytest.raises(InvalidRequestError, match=r"serves base, sql \(an adapter of base\)"):
        runner.chat(llm)
    # It is asked again, since it may have been starting.
    scripted.reply(models("a"))
    scripted.reply(completion())
    assert runner.chat(llm).text == "hi"


@pytest.mark.anyio
async def test_tasks_that_wait_for_the_model_share_the_failure(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.script(gate, reply(status=500).steps[0])
    llm = VLLMProvider(base_url=scripted.base_url, max_retries=0)
    failures: list[Exception] = []

    async def chat() -> None:
        try:
            await llm.achat("Hi")
        except Exception as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(chat)
        await anyio.wait_all_tasks_blocked()
        gate.release()
    assert len(failures) == 5
    assert len(scripted.requests) == 1
    await llm.aclose()


def test_threads_that_wait_for_the_model_share_the_failure(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.script(gate, reply(status=500).steps[0])
    llm = VLLMProvider(base_url=scripted.base_url, max_retries=0)
    with ThreadPoolExecutor(5) as threads:
        calls = [threads.submit(llm.chat, "Hi") for _ in range(5)]
        gate.wait_reached()
        # Threads have no sign that they wait for a lock; one that comes late asks by itself and gets a 500, too.
        scripted.always(reply(status=500))
        gate.release()
        assert all(call.exception() is not None for call in calls)


@pytest.mark.anyio
async def test_a_cancelled_question_is_asked_by_the_next(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.script(gate)
    scripted.always(answer_any)
    texts: list[str] = []
    async with VLLMProvider(base_url=scripted.base_url) as llm, anyio.create_task_group() as group:
        first = anyio.CancelScope()

        async def cancelled() -> None:
            with first:
                await llm.achat("Hi")

        async def waiting() -> None:
            texts.append((await llm.achat("Ho")).text)

        group.start_soon(cancelled)
        # Not only until the tasks wait: that they do for the connection, too, and the gate is for the first request.
        await in_thread(gate.wait_reached)
        group.start_soon(waiting)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
    assert texts == ["Ho"]


def test_a_server_that_is_down(runner: Runner) -> None:
    with refusing_origin() as origin:
        llm = VLLMProvider(base_url=origin, max_retries=0)
        with pytest.raises(APIConnectionError, match="vllm serve"):
            runner.chat(llm)


def test_openai_without_a_model(runner: Runner) -> None:
    llm = OpenAIProvider(base_url="http://127.0.0.1:9/v1")
    words = r"no model is set. Write OpenAIProvider\('MODEL'\) or model='MODEL'; models\(\) lists what the"
    with pytest.raises(InvalidRequestError, match=words):
        runner.chat(llm)
    with pytest.raises(InvalidRequestError, match=words):
        runner.stream(llm).texts()


def test_openai_without_v1_in_the_url(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(lambda _: reply({"detail": "Not Found"}, 404))
    llm = OpenAIProvider("m", base_url=scripted.origin)
    with pytest.raises(NotFoundError) as caught:
        runner.chat(llm)
    assert str(caught.value) == (
        "404: Not Found - this server does not have the route /chat/completions. base_url usually ends with /v1: "
        f"write base_url='{scripted.origin}/v1'."
    )
    with pytest.raises(NotFoundError, match="base_url usually ends with /v1"):
        runner.stream(llm).texts()
    runner.close(llm)


# ------------------------------------------------------------------------------------------------
# A client of the caller's
# ------------------------------------------------------------------------------------------------


@EITHER
def test_settings_that_belong_to_the_client(cls: Either) -> None:
    with httpx.Client(trust_env=False) as client:
        own: list[dict[str, Any]] = [
            {"verify": False},
            {"verify": ssl.create_default_context()},
            {"max_connections": 3},
        ]
        for options in own:
            with pytest.raises(TypeError, match="no effect on your own client: set it on that client"):
                cls("m", http_client=client, **options)


@EITHER
def test_the_wrong_kind_of_client(cls: Either) -> None:
    with httpx.Client(trust_env=False) as blocking:
        message = r"async_http_client must be an async client .*; pass this httpx.Client as http_client="
        with pytest.raises(TypeError, match=message):
            cls("m", async_http_client=blocking)  # type: ignore[arg-type] # that is the point
    message = r"http_client must be a sync client .*; pass this httpx.AsyncClient as async_http_client="
    with pytest.raises(TypeError, match=message):
        cls("m", http_client=httpx.AsyncClient(trust_env=False))  # type: ignore[arg-type] # that is the point
    with pytest.raises(TypeError, match=r"not the class httpx\.Client: create an instance"):
        cls("m", http_client=httpx.Client)  # type: ignore[arg-type] # that is the point
    with pytest.raises(
        TypeError, match=r"must be a sync client such as httpx\.Client\(\.\.\.\), not builtins\.str"
    ):
        cls("m", http_client="x")  # type: ignore[arg-type] # that is the point


@EITHER
def test_a_method_without_a_client(cls: Either) -> None:
    llm = cls("m", async_http_client=httpx.AsyncClient(trust_env=False))
    with pytest.raises(TypeError, match="pass http_client= too"):
        llm.chat("Hi")
    with pytest.raises(TypeError, match="pass http_client= too"):
        llm.stream("Hi").until_done()

    async def main() -> None:
        with pytest.raises(TypeError, match="pass async_http_client= too"):
            await other.achat("Hi")
        with pytest.raises(TypeError, match="pass async_http_client= too"):
            await other.astream("Hi").until_done()

    with httpx.Client(trust_env=False) as client:
        other = cls("m", http_client=client)
        anyio.run(main)


# ------------------------------------------------------------------------------------------------
# One error for all that is wrong with a call
# ------------------------------------------------------------------------------------------------


@EITHER
def test_messages_and_parameters_are_judged_together(cls: Either, runner: Runner) -> None:
    llm = cls("m", base_url="http://localhost:1")
    message: Any = {"role": "user", "content": "x"}
    wrong: Any = {"topk": 5, "temperature": 9}
    for ask in (runner.chat, runner.stream):
        with pytest.raises(InvalidRequestError) as caught:
            ask(llm, message, **wrong)
        found = [problem.parameter for problem in caught.value.problems]
        assert found == ["messages", "topk", "temperature"]


WRONG_SUBJECTS: list[tuple[str, object]] = [
    ("chat", {"role": "user", "content": "x"}),
    ("parse", {"role": "user", "content": "x"}),
    ("render", {"role": "user", "content": "x"}),
    ("complete", ""),
    ("complete", None),
    ("render_completion", [[-1]]),
    ("generate", "a text"),
    ("respond", 5),
    ("tokenize", 5),
    ("count_tokens", 5),
    ("embed", 5),
]


@pytest.mark.parametrize(("method", "subject"), WRONG_SUBJECTS)
def test_all_problems_of_a_call_come_in_one_error(method: str, subject: object, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url="http://127.0.0.1:9")
    kind = [int] if method == "parse" else []
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, method, subject, *kind, temprature=0.5)
    assert len(caught.value.problems) == 2
    assert caught.value.problems[-1].parameter == "temprature"
