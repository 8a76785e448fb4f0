"""Providers travel to other processes by their settings, and secrets stay behind."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import ssl
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider

from support.chats import answer_any
from vllmchat import InvalidRequestError, OpenAIProvider, ResponseInfo, Timeout, VLLMProvider
from vllmchat.adapters.otel import instrument
from vllmchat.client import pickling
from vllmchat.client.base import ProviderBase
from vllmchat.testing import FakeServer, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.scripted import ScriptedServer
    from vllmchat import RequestInfo, RetryInfo

Either = type[VLLMProvider] | type[OpenAIProvider]
EITHER = pytest.mark.parametrize("cls", [VLLMProvider, OpenAIProvider])
KEY = "token-hunter2hunter2"


def cloudpickle(value: object) -> bytes:
    """Pickles as Ray and others do, which send code along with what they cannot import."""
    data: bytes = pytest.importorskip("ray.cloudpickle").dumps(value)
    return data


PICKLERS: dict[str, Callable[[object], bytes]] = {
    "pickle": pickle.dumps,
    "oldest protocol": partial(pickle.dumps, protocol=0),
    "cloudpickle": cloudpickle,
}


def travel(llm: Any) -> Any:
    """What another process gets."""
    return pickle.loads(pickle.dumps(llm))


def settings(llm: object) -> dict[str, object]:
    """All that a provider was made of."""
    own: dict[str, Any] = {**vars(llm)}
    clients, target = own["_clients"], own["_target"]
    own["_clients"] = (clients.verify, clients.max_connections)
    own["_target"] = (target.base, dict(target.headers), target.max_retries, target.max_retry_seconds)
    own["hooks"] = [(each.on_request, each.on_retry, each.on_response) for each in target.observers]
    del own["_found"], own["_owner"]
    return own


def before(request: RequestInfo) -> None: ...
def again(retry: RetryInfo) -> None: ...
def after(response: ResponseInfo) -> None: ...


# ------------------------------------------------------------------------------------------------
# What travels
# ------------------------------------------------------------------------------------------------


@EITHER
@pytest.mark.parametrize("dump", PICKLERS.values(), ids=PICKLERS)
def test_all_settings_travel(cls: Either, dump: Callable[[object], bytes], tmp_path: Path) -> None:
    llm = cls(
        "m",
        base_url="http://x:1/v1",
        timeout=Timeout(total=9, idle=3),
        max_retries=7,
        max_retry_seconds=8.0,
        headers={"x-team": "blue", "user-agent": "mine"},
        verify=str(tmp_path),
        max_connections=5,
        on_request=before,
        on_retry=again,
        on_response=after,
        temperature=0,
        max_tokens=9,
    )
    assert settings(pickle.loads(dump(llm))) == settings(llm)
    changed = llm.with_options(model="n", timeout=4, headers={"x-more": "1"}, max_retries=1, temperature=None)
    assert settings(pickle.loads(dump(changed))) == settings(changed)
    assert type(pickle.loads(dump(changed))) is cls


@EITHER
def test_every_argument_travels(cls: Either) -> None:
    """A new argument of the constructor needs a place in a pickle."""
    kept: Any = cls("m").__reduce__()[1]
    names = set(inspect.signature(ProviderBase).parameters) - {
        "api_key",
        "http_client",
        "async_http_client",
        "defaults",
    }
    assert set(kept[0]) == names - {"on_request", "on_retry", "on_response"}
    there: ProviderBase = travel(cls("m", api_key=KEY))
    assert vars(there).keys() == pickling._OWN  # pyright: ignore[reportPrivateUsage]


def test_it_calls_where_it_arrives(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    with VLLMProvider("m", base_url=scripted.base_url, temperature=0) as llm:
        llm.chat("Hello")
        with travel(llm) as there:
            there.chat("Hello")
    assert scripted.connections == 2, "connections do not travel"
    assert scripted.requests[0].json() == scripted.requests[1].json()


def test_a_copy_owns_its_connections_where_it_arrives() -> None:
    llm = VLLMProvider("m")
    there = travel(llm.with_options(model="n"))
    there.close()
    with pytest.raises(InvalidRequestError, match="is closed"):
        there.chat("Hello")


def test_a_closed_provider_is_open_where_it_arrives(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    llm.close()
    with travel(llm) as there:
        assert there.chat("Hello").text


class Team(VLLMProvider):
    """A provider of somebody's own."""

    def __init__(self, team: str, **others: object) -> None:
        super().__init__("m")
        self.team = team
        vars(self).update(others)


def test_a_subclass_keeps_its_own_attributes() -> None:
    there = travel(Team("blue"))
    assert type(there) is Team
    assert (there.team, there.model) == ("blue", "m")


def test_a_process_that_is_spawned() -> None:
    with (
        FakeServer(["Hi!"]) as server,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        llm = VLLMProvider(server.model, base_url=server.base_url, on_response=repr)
        assert pool.submit(methodcaller("chat", "Hello"), llm).result(60).text == "Hi!"


# ------------------------------------------------------------------------------------------------
# What does not
# ------------------------------------------------------------------------------------------------

SECRETS: dict[str, Callable[[Any], Any]] = {
    "api_key": lambda cls: cls("m", api_key=KEY),
    "a copy with another key": lambda cls: cls("m", api_key="EMPTY").with_options(api_key=KEY),
    "Authorization": lambda cls: cls("m", headers={"Authorization": f"Bearer {KEY}"}),
    "Basic": lambda cls: cls("m", headers={"Authorization": f"Basic {KEY}"}),
    "a header by its name": lambda cls: cls("m", headers={"X-Api-Key": KEY}),
    "a short one": lambda cls: cls("m", headers={"X-Api-Key": KEY[:5]}),
    "a header that looks random": lambda cls: cls("m", headers={"x-team": KEY}),
    "a header that looks like a key": lambda cls: cls("m", headers={"x-team": f"sk-{KEY}"}),
    "a header of a copy": lambda cls: cls("m").with_options(headers={"Cookie": KEY}),
    "a default": lambda cls: VLLMProvider("m", chat_template_kwargs={"a": [{"api_key": KEY}]}),
    "a subclass": lambda cls: Team("blue", secret=KEY),
    "inside of a subclass": lambda cls: Team("blue", more={"password": KEY}),
}


@EITHER
@pytest.mark.parametrize("make", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("dump", PICKLERS.values(), ids=PICKLERS)
def test_no_secret_is_in_a_pickle(cls: Either, make: Callable[[Any], Any], dump: Any) -> None:
    llm = make(cls)
    data = dump(llm)
    assert KEY[:5].encode() not in data
    there = pickle.loads(data)
    with pytest.raises(InvalidRequestError, match=r"comes from a pickle.*pickle_secrets=True") as caught:
        there.chat("Hello")
    assert KEY[:5] not in str(caught.value)
    assert KEY[:5].encode() not in dump(there), "nor in the next one"
    with pytest.raises(InvalidRequestError, match="comes from a pickle"):
        travel(there).__enter__()


@EITHER
@pytest.mark.parametrize("make", SECRETS.values(), ids=SECRETS)
def test_secrets_travel_if_asked_for(cls: Either, make: Callable[[Any], Any]) -> None:
    llm = make(cls).with_options(pickle_secrets=True)
    for there in (travel(llm), travel(travel(llm))):
        assert settings(there) == settings(llm)
    assert KEY[:5].encode() not in pickle.dumps(llm.with_options(pickle_secrets=False))


def test_no_password_of_a_proxy_is_in_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{KEY}@proxy:1")
    llm = VLLMProvider("m", base_url="https://x", pickle_secrets=True)
    assert KEY.encode() not in pickle.dumps(llm)


@EITHER
def test_a_key_of_the_environment_comes_from_the_environment(
    cls: Either, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    variable = cls._api_key_variable  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setenv(variable, KEY)
    for here in (
        cls("m", base_url=scripted.base_url),
        cls("m", base_url=scripted.base_url, api_key=f"{KEY}2"),
    ):
        data = pickle.dumps(here)
        assert KEY.encode() not in data
        monkeypatch.setenv(variable, "another-key")
        with pickle.loads(data) as there:
            there.chat("Hello")
        assert scripted.requests[-1].headers["authorization"] == "Bearer another-key"
        monkeypatch.delenv(variable)
        lacking = pickle.loads(data)
        with pytest.raises(InvalidRequestError) as caught:
            lacking.chat("Hello")
        assert str(caught.value) == (
            f"this {cls.__name__} comes from a pickle, and its key was left out because pickles are readable. "
            f"Set ${variable} in this process, or create the original with pickle_secrets=True"
        )
        monkeypatch.setenv(variable, KEY)


def test_a_key_of_the_environment_never_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    assert KEY.encode() not in pickle.dumps(VLLMProvider("m", pickle_secrets=True))


def test_a_key_that_is_none_travels(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    for llm in (
        VLLMProvider("m", base_url=scripted.base_url),
        VLLMProvider("m", base_url=scripted.base_url, api_key="EMPTY"),
        OpenAIProvider("m", base_url=scripted.base_url),
    ):
        with travel(llm) as there:
            there.chat("Hello")


def test_what_is_missing_can_be_set(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider(
        "m",
        base_url=scripted.base_url,
        api_key=KEY,
        headers={"x-key": KEY},
        chat_template_kwargs={"key": KEY},
    )
    there = travel(llm)
    with pytest.raises(InvalidRequestError, match=r"key, chat_template_kwargs and x-key were left out .*"):
        there.chat("Hello")
    with pytest.raises(
        InvalidRequestError, match=r"key was left out .*\. Set \$VLLM_API_KEY in this process, or"
    ):
        there.with_options(headers={"X-Key": "a"}, chat_template_kwargs={"key": "b"}).chat("Hello")
    with pytest.raises(
        InvalidRequestError,
        match=r"x-key were left out .* Pass chat_template_kwargs, x-key to with_options, or",
    ):
        there.with_options(api_key="c").chat("Hello")
    there.with_options(headers={"X-Key": "a"}, chat_template_kwargs={"key": "b"}, api_key="c").chat("Hello")
    [sent] = scripted.requests
    assert (sent.headers["x-key"], sent.headers["authorization"], sent.json()["chat_template_kwargs"]) == (
        "a",
        "Bearer c",
        {"key": "b"},
    )
    there.close()


@pytest.mark.parametrize("switch", [None, 1, "yes"])
def test_the_switch_is_a_bool(switch: Any) -> None:
    with pytest.raises(TypeError, match="pickle_secrets must be True or False"):
        VLLMProvider("m", pickle_secrets=switch)


# ------------------------------------------------------------------------------------------------
# What cannot travel
# ------------------------------------------------------------------------------------------------


class Counter:
    def __call__(self, info: object) -> None: ...
    def count(self, info: object) -> None: ...


CANNOT: dict[str, tuple[Callable[[], Any], str]] = {
    "an SSL context": (
        lambda: VLLMProvider("m", base_url="https://x", verify=ssl.create_default_context()),
        r"this VLLMProvider has verify=ssl\.SSLContext, which cannot be pickled\. Pass the path",
    ),
    "a sync client": (
        lambda: VLLMProvider("m", http_client=httpx.Client()),
        r"uses an HTTP client of yours, which cannot be pickled\. Create the VLLMProvider where it is used",
    ),
    "an async client": (
        lambda: OpenAIProvider("m", async_http_client=httpx.AsyncClient()),
        r"uses an HTTP client of yours, which cannot be pickled\. Create the OpenAIProvider where it is used",
    ),
    "a lambda": (
        lambda: VLLMProvider("m", on_request=lambda request: None),
        r"on_request=.*<lambda> cannot be pickled\. Pass a function that is defined at the top level of a module",
    ),
    "a partial with a key": (
        lambda: VLLMProvider("m", on_retry=partial(print, KEY)),
        "on_retry=.* cannot be pickled",
    ),
    "a method": (lambda: VLLMProvider("m", on_response=Counter().count), "on_response=.* cannot be pickled"),
    "an object": (lambda: VLLMProvider("m", on_response=Counter()), "on_response=.* cannot be pickled"),
    "traces": (
        lambda: instrument(VLLMProvider("m"), tracer_provider=TracerProvider()),
        r"is traced by instrument\(\), which cannot be pickled\. Call instrument\(\) where it is used",
    ),
    "a script": (
        lambda: ScriptedProvider(["Hello!"]),
        "a ScriptedProvider answers in this process and cannot be pickled",
    ),
}


@pytest.mark.parametrize(("make", "message"), CANNOT.values(), ids=CANNOT)
@pytest.mark.parametrize("dump", [pickle.dumps, cloudpickle])
def test_what_cannot_travel_says_so(make: Callable[[], Any], message: str, dump: Any) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        dump(make())
    assert KEY not in str(caught.value)


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    data = pickle.dumps(VLLMProvider("m", verify=file))
    file.unlink()
    with pytest.raises(ValueError, match="no such certificate file"):
        pickle.loads(data)


# ------------------------------------------------------------------------------------------------
# Copies in the same process
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy])
def test_a_copy_shares_the_connections(scripted: ScriptedServer, copying: Callable[[Any], Any]) -> None:
    scripted.always(answer_any)
    with VLLMProvider("m", base_url=scripted.base_url, api_key=KEY, on_request=lambda request: None) as llm:
        [copied] = copying([llm]) if copying is copy.deepcopy else [copying(llm)]
        assert copied is not llm
        assert settings(copied) == settings(llm)
        for each in (llm, copied, llm):
            each.chat("Hello")
        copied.close()
        llm.chat("Hello")
    assert scripted.connections == 1


def test_a_pickle_warns_no_more_than_a_provider() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        travel(VLLMProvider("m", base_url="http://far-away:1", api_key="EMPTY"))
