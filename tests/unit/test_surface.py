"""The public face: sync and async match, every name is there, and importing it costs next to nothing."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import typing
from dataclasses import is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict

import vllmchat
from support.chats import completion
from vllmchat import (
    AsyncChatStream,
    AsyncGenerationStream,
    AsyncParseStream,
    AsyncProvider,
    AsyncResponseStream,
    AsyncTextStream,
    AsyncToolRunStream,
    ChatStream,
    GenerationStream,
    OpenAIProvider,
    ParseStream,
    Provider,
    ResponseStream,
    SyncProvider,
    TextStream,
    ToolRunStream,
    VLLMProvider,
    types,
)
from vllmchat.types import AsyncChunks, SyncChunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.scripted import ScriptedServer

WITHOUT_TWIN = {"base_url", "model", "name", "timeout", "with_options"}
"""What a provider has once: it does no input or output."""

TWINS = {
    "SyncChunks": {"AsyncChunks"},
    "Iterator[Event]": {"AsyncIterator[Event]", "AsyncChatEvents"},
    "Iterator[ChatCompletionChunk]": {"AsyncIterator[ChatCompletionChunk]"},
}
"""What the async version returns instead."""

SPECIAL = {
    "__iter__": "__aiter__",
    "__next__": "__anext__",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "close": "aclose",
}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def pairs(names: set[str]) -> dict[str, str]:
    return {name: f"a{name}" for name in names if f"a{name}" in names}


def given(function: Callable[..., Any]) -> str:
    return str(inspect.signature(function).return_annotation).removeprefix("'").removesuffix("'")


def alike(sync: Callable[..., Any], twin: Callable[..., Any]) -> None:
    """Two functions have the same parameters, and give the same or what stands for it."""
    ours, theirs = inspect.signature(sync), inspect.signature(twin)
    assert list(ours.parameters.values()) == list(theirs.parameters.values())
    assert given(twin) in TWINS.get(given(sync), {given(sync), f"Async{given(sync)}"})


# Methods


@pytest.mark.parametrize("cls", [VLLMProvider, OpenAIProvider, Provider])
def test_every_method_has_its_twin(cls: type) -> None:
    names = public(cls)
    twins = pairs(names)
    assert twins.keys() >= {"chat", "stream", "close"}
    single = names - set(twins) - set(twins.values()) - WITHOUT_TWIN
    assert not single, f"{cls.__name__} has these only sync or only async: {', '.join(sorted(single))}"


@pytest.mark.parametrize("cls", [VLLMProvider, OpenAIProvider, Provider])
def test_twins_take_the_same(cls: type) -> None:
    for name, twin in pairs(public(cls)).items():
        alike(getattr(cls, name), getattr(cls, twin))


def test_methods_that_wait_are_coroutines_and_streams_are_not() -> None:
    for cls in (VLLMProvider, OpenAIProvider, Provider):
        waiting = {name for name in public(cls) if inspect.iscoroutinefunction(getattr(cls, name))}
        assert waiting == {
            twin for twin in pairs(public(cls)).values() if not twin.startswith("astream") and twin != "amap"
        }


@pytest.mark.parametrize("cls", [VLLMProvider, OpenAIProvider])
def test_everything_public_is_documented(cls: type) -> None:
    assert inspect.getdoc(cls)
    for name in public(cls):
        doc = inspect.getdoc(getattr(cls, name))
        assert doc, name
        assert re.match(r"[A-Z][^\n]*[.:]", doc), name
    for name, twin in pairs(public(cls)).items():
        doc = inspect.getdoc(getattr(cls, twin)) or ""
        # The twin says the same, or where it is said.
        assert (
            f"`{name}`" in doc or doc.split()[0] == (inspect.getdoc(getattr(cls, name)) or "").split()[0]
        ), twin


def test_a_vllm_server_does_all_that_others_do_and_is_made_like_them() -> None:
    assert public(VLLMProvider) > public(OpenAIProvider)
    # Apart from their defaults of parameters
    vllm, openai = (
        inspect.signature(inspect.unwrap(each.__init__)) for each in (VLLMProvider, OpenAIProvider)
    )
    assert vllm == openai


def test_the_protocols_ask_for_nothing_else() -> None:
    assert public(SyncProvider) == {"name", "chat", "stream", "close"}
    assert public(AsyncProvider) == {"name", "achat", "astream", "aclose"}
    assert public(Provider) == public(SyncProvider) | public(AsyncProvider)
    assert public(Provider) <= public(VLLMProvider)


# Streams


STREAMS = [
    (ChatStream, AsyncChatStream),
    (TextStream, AsyncTextStream),
    (GenerationStream, AsyncGenerationStream),
    (ResponseStream, AsyncResponseStream),
    (ParseStream, AsyncParseStream),
    (ToolRunStream, AsyncToolRunStream),
]


@pytest.mark.parametrize(("sync", "twin"), [*STREAMS, (SyncChunks, AsyncChunks)])
def test_streams_match(sync: type, twin: type) -> None:
    assert {SPECIAL.get(name, name) for name in public(sync)} == public(twin)
    for name in {*public(sync), *(name for name in SPECIAL if name.startswith("__"))}:
        ours, theirs = getattr(sync, name), getattr(twin, SPECIAL.get(name, name))
        if isinstance(ours, property):
            assert isinstance(theirs, property)
            assert inspect.getdoc(ours) == inspect.getdoc(theirs)
            continue
        alike(ours, theirs)
        if name in public(sync):
            assert inspect.getdoc(ours) == inspect.getdoc(theirs), name
        assert inspect.iscoroutinefunction(theirs) is (name not in ("__iter__", "events"))


@pytest.mark.parametrize(("sync", "twin"), STREAMS)
def test_streams_are_documented_alike(sync: type, twin: type) -> None:
    """The class texts differ in the words for sync and async, and in what only one can promise."""
    ours, theirs = inspect.getdoc(sync) or "", inspect.getdoc(twin) or ""
    assert ours.partition("Raises:")[2] == theirs.partition("Raises:")[2] != ""


# Names


def test_all_is_complete_and_sorted() -> None:
    assert vllmchat.__all__ == sorted(vllmchat.__all__)
    assert len(vllmchat.__all__) == len(set(vllmchat.__all__))
    for name in vllmchat.__all__:
        assert getattr(vllmchat, name) is not None


def test_only_public_names_are_listed() -> None:
    """Not its submodules either, nor what the module imports for itself."""
    code = "import vllmchat, vllmchat.types, json; vllmchat.VLLMProvider; print(json.dumps(dir(vllmchat)))"
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == vllmchat.__all__


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from vllmchat import *", names)
    assert sorted(names.keys() - {"__builtins__"}) == vllmchat.__all__


def test_what_is_public_where_it_lives_is_public_here() -> None:
    """Errors, events, and what a chat is made of: none is forgotten."""
    from vllmchat import errors
    from vllmchat.chat import events

    for module in (errors, events):
        theirs = {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
        }
        missing = theirs - set(vllmchat.__all__) - {"ErrorResponse", "EventBuilder"}
        assert not missing, f"{module.__name__}: {', '.join(sorted(missing))}"


def nested_in(hint: object) -> Iterator[type]:
    """The classes of this package in a type."""
    if isinstance(hint, type) and hint.__module__.startswith("vllmchat."):
        yield hint
    for argument in get_args(hint):
        yield from nested_in(argument)


def fields_of(owner: type) -> list[object]:
    """The types of the values of a TypedDict, a model or a dataclass."""
    if is_typeddict(owner) or is_dataclass(owner):
        return list(get_type_hints(owner, vars(typing) | vars(import_module(owner.__module__))).values())
    if issubclass(owner, BaseModel):
        owner.model_rebuild()
        return [field.annotation for field in owner.model_fields.values()]
    return []


def test_types_nested_in_public_ones_are_public() -> None:
    nested = {name for name in vars(types) if not name.startswith("__")}
    assert not nested & set(vllmchat.__all__)
    wire_values = [getattr(vllmchat, name) for name in vllmchat.__all__]
    waiting = [
        value
        for value in wire_values
        if isinstance(value, type) and (is_typeddict(value) or issubclass(value, BaseModel))
    ]
    seen: set[type] = set()
    while waiting:
        owner = waiting.pop()
        if owner not in seen:
            seen.add(owner)
            waiting += [inner for hint in fields_of(owner) for inner in nested_in(hint)]
    missing = {owner.__name__ for owner in seen} - {*vllmchat.__all__, *nested}
    assert not missing, f"in public types, and not public: {', '.join(sorted(missing))}"


def test_names_for_type_checkers_are_those_at_run_time() -> None:
    [block] = [
        node
        for node in ast.parse(inspect.getsource(vllmchat)).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(imported) == set(vllmchat.__all__)
    for name, place in imported.items():
        module, _, attribute = place.rpartition(".")
        assert getattr(vllmchat, name) is getattr(import_module(module), attribute)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'VLLMClient'"):
        vllmchat.VLLMClient  # type: ignore[attr-defined] # noqa: B018 - that it raises is the point


# Imports, each in a fresh interpreter


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement, in addition to those that it has anyway."""
    code = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(ran.stdout)
    return set(names)


def among(names: set[str], packages: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] in packages}


def test_importing_the_package_loads_nothing_but_itself() -> None:
    loaded = loaded_by("import vllmchat")
    assert among(loaded, {"vllmchat"}) == {"vllmchat"}
    assert not among(
        loaded,
        {"httpx", "httpcore", "anyio", "pydantic", "pydantic_core", "typing_extensions", "asyncio", "ssl"},
    )


@pytest.mark.parametrize("name", ["VLLMProvider", "OpenAIProvider"])
def test_a_provider_can_be_imported_without_what_it_needs_later(name: str) -> None:
    loaded = loaded_by(f"from vllmchat import {name}")
    assert not among(loaded, {"httpx", "httpx2", "httpcore", "h11", "massgen", "openai"})
    assert not among(loaded, {"anyio", "asyncio", "html", "logging", "socket", "ssl", "urllib"})
    # Nor what reads answers: the first answer takes longer than that.
    assert not among(loaded, {"pydantic", "pydantic_core"})
    # Nor what only some methods need.
    rooms = (
        "adapters",
        "audio",
        "chat.batch",
        "chat.check",
        "chat.completion",
        "chat.params",
        "chat.request",
        "chat.stream",
        "completions",
        "decisions",
        "generate",
        "jobs",
        "pooling",
        "responses",
        "sampling",
        "schemas",
        "server",
        "structured",
        "tokens",
        "tools",
        "types",
        "wire.decode",
        "wire.usage",
    )
    methods = {name for name in loaded if name.endswith("methods")}
    needed = methods | {name.rpartition(".")[0] for name in methods}
    assert not {
        name for name in loaded - needed if name.startswith(tuple(f"vllmchat.{room}" for room in rooms))
    }


ONE_REPLY = """
from vllmchat import VLLMProvider
with VLLMProvider("m", base_url={url!r}) as llm:
    assert llm.chat("Hello").text == "Hi"
"""


def test_a_sync_reply_loads_nothing_that_only_others_need(scripted: ScriptedServer) -> None:
    """No event loop, no TLS, no log, and no HTTP client: the connection is our own."""
    scripted.reply(completion("Hi"))
    loaded = loaded_by(ONE_REPLY.format(url=scripted.base_url))
    assert "vllmchat.http.transport.pool" in loaded
    for_async = {"anyio", "asyncio", "sniffio", "trio"}
    assert not among(loaded, for_async | {"httpx", "httpcore", "h11", "ssl", "logging", "html"})
    # The call has no parameters.
    assert not loaded & {"vllmchat.chat.params", "vllmchat.chat.check", "vllmchat.sampling.params"}


def test_a_sync_call_is_logged_if_logging_is_set_up(scripted: ScriptedServer) -> None:
    scripted.reply(completion("Hi"))
    code = (
        f"import logging; logging.basicConfig(level=logging.DEBUG)\n{ONE_REPLY.format(url=scripted.base_url)}"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert "opened a connection" in ran.stderr
    assert "the provider was closed" in ran.stderr


@pytest.mark.parametrize("statement", ["from vllmchat import Timeout", "from vllmchat import VLLMChatError"])
def test_small_names_cost_little(statement: str) -> None:
    assert not among(loaded_by(statement), {"httpx", "httpcore", "pydantic", "anyio"})


COUNTING = """
import json, socket, ssl, threading

counts = {"sockets": 0, "contexts": 0}
make_socket, make_context = socket.socket.__init__, ssl.SSLContext.__new__

def counted_socket(self, *args, **options):
    counts["sockets"] += 1
    make_socket(self, *args, **options)

def counted_context(cls, *args, **options):
    counts["contexts"] += 1
    return make_context(cls, *args, **options)

socket.socket.__init__ = counted_socket
ssl.SSLContext.__new__ = counted_context
"""


def counted(statements: str) -> dict[str, int]:
    """How many sockets, TLS contexts and threads some statements make in a fresh interpreter."""
    end = "counts['threads'] = threading.active_count() - 1\nprint(json.dumps(counts))"
    code = f"{COUNTING}\n{statements}\n{end}"
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    counts: dict[str, int] = json.loads(ran.stdout)
    return counts


def test_a_provider_opens_nothing_before_it_is_used() -> None:
    statements = """
from vllmchat import OpenAIProvider, VLLMProvider
made = [VLLMProvider(), OpenAIProvider("m"), VLLMProvider("m", base_url="https://localhost")]
streams = [made[0].stream("Hello"), made[1].astream("Hello")]
"""
    assert counted(statements) == {"sockets": 0, "contexts": 0, "threads": 0}
    # The counting counts.
    assert counted("made = [socket.socket(), ssl.create_default_context()]") == {
        "sockets": 1,
        "contexts": 1,
        "threads": 0,
    }
