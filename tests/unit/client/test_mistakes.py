"""Mistakes that newcomers make, and what they read. Nothing is sent for any of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat import InvalidRequestError, OpenAIProvider, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "http://127.0.0.1:9/v1"
USER = {"role": "user", "content": "x"}


class User:
    """A type of replies."""


class Instance:
    """An instance of a pydantic model, as far as that is looked at."""

    model_dump = None


async def with_it(stream: Any) -> None:
    with stream:
        pass


async def for_it(stream: Any) -> None:
    for _ in stream:
        pass


async def async_with_it(stream: Any) -> None:
    async with stream:
        pass


TYPE = "kind: must be a type, such as a pydantic model or list[int], not"
JSON = 'write response_format={"type": "json_object"}'

UNCHECKED: Any = VLLMProvider
"""For arguments that type checkers reject."""

MISTAKES: list[tuple[Callable[[Any], object], str]] = [
    # Another library's constructor
    (
        lambda _: VLLMProvider("http://localhost:8000/v1"),
        (
            "model='http://localhost:8000/v1': is a URL, and not the name of a model. "
            "Write base_url='http://localhost:8000/v1'."
        ),
    ),
    (lambda _: OpenAIProvider("https://h/v1"), "Write base_url='https://h/v1'."),
    (lambda _: VLLMProvider("localhost:8000"), "Write base_url='http://localhost:8000'."),
    (
        lambda _: VLLMProvider("http://user:pw@h/v1"),
        "model: is a URL, and not the name of a model. Write base_url=...",
    ),
    (lambda llm: llm.with_options(model="http://h"), "Write base_url='http://h'."),
    (lambda llm: llm.chat("x", model="http://h"), "Write base_url='http://h'."),
    (lambda _: UNCHECKED(model_name="m"), "Write `model='m'`."),
    (lambda _: UNCHECKED(url="http://h"), "Write `base_url='http://h'`."),
    (lambda _: UNCHECKED("m", "http://h"), "VLLMProvider: accepts only `model` by position"),
    (lambda _: UNCHECKED(retries=3), "Write `max_retries=3`."),
    (lambda _: UNCHECKED(stream=True), "is a parameter of calls, not of the provider."),
    # Another library's methods
    (lambda llm: llm.completions.create(), "no attribute 'completions'. Write llm.complete(...)"),
    (lambda llm: llm.embeddings, "no attribute 'embeddings'. Write llm.embed(...)"),
    (lambda llm: llm.responses, "no attribute 'responses'. Write llm.respond(...)"),
    (lambda llm: llm.invoke("x"), "no attribute 'invoke'. Write llm.chat(...)"),
    (lambda llm: llm.ainvoke("x"), "no attribute 'ainvoke'. Write llm.achat(...)"),
    # The conversation
    (
        lambda llm: llm.chat(USER),
        "messages: must be a str or a list of messages, not a dict. Wrap it in [...].",
    ),
    (lambda llm: llm.chat(None), "messages: must be a str or a list of messages, not None."),
    (lambda llm: llm.chat(["x"]), 'Write {"role": "user", "content": ...}.'),
    (lambda llm: llm.chat("system", "user"), "VLLMProvider.chat: accepts only `messages` by position"),
    (lambda llm: llm.chat("m", [USER]), 'and a model as model="...".'),
    (lambda llm: llm.chat(prompt="x"), "Write chat('x', ...)."),
    (
        lambda llm: llm.chat("x", system="y"),
        'Put {"role": "system", "content": \'y\'} first among the messages.',
    ),
    (lambda llm: llm.chat("x", images=["y"]), "Put image_part(...) into a message's content."),
    (lambda llm: llm.chat([{"role": "usr", "content": "x"}]), 'Did you mean "user"?'),
    (lambda llm: llm.stream([{"role": "user", "contnet": "x"}]), "Did you mean `content`?"),
    (lambda llm: llm.render([{"role": "user"}]), "messages[0].content: is required."),
    (lambda llm: llm.tokenize([{"role": "user", "content": 5}]), "Wrap it in str(...)."),
    (lambda llm: llm.count_tokens([{"role": "user", "content": 5}]), "Wrap it in str(...)."),
    (lambda llm: llm.classify([{"role": "usr", "content": "x"}]), "input[0].role='usr': must be "),
    (lambda llm: llm.embed([{"role": "usr", "content": "x"}]), "input[0].role='usr': must be "),
    (
        lambda llm: llm.chat_batch([[{"role": "usr", "content": "x"}]]),
        "conversations[0][0].role='usr': must be ",
    ),
    (lambda llm: llm.parse([{"role": "usr", "content": "x"}], int), "messages[0].role='usr': must be "),
    (lambda llm: llm.choose([{"role": "usr", "content": "x"}], ["a"]), "messages[0].role='usr': must be "),
    (
        lambda llm: llm.run_tools([{"role": "usr", "content": "x"}], tools=[len]),
        "messages[0].role='usr': must be ",
    ),
    (lambda llm: llm.respond([{"role": "usr", "content": "x"}]), "input[0].role='usr': must be "),
    # Parameters
    (lambda llm: llm.chat("x", temprature=0), "Did you mean `temperature`?"),
    (lambda llm: llm.chat("x", stream=True), "Call .stream(...) or .astream(...) to stream"),
    (lambda llm: llm.chat("x", max_retries=3), "is set on the provider, not per call."),
    (lambda llm: llm.chat("x", logprobs=1), "Write logprobs=True, top_logprobs=1."),
    # Structured outputs
    (
        lambda llm: llm.chat("x", format="json"),
        f"format='json': has a different name here. For any JSON object, {JSON}.",
    ),
    (lambda llm: llm.complete("x", format="json"), f"For any JSON object, {JSON}."),
    (
        lambda llm: llm.chat("x", json_schema=User),
        "Write response_format=User, or parse(messages, User) for a value of",
    ),
    (lambda llm: llm.complete("x", schema=User), "has a different name here. Write response_format=User."),
    (lambda llm: llm.chat("x", text_format=User), "Write parse(messages, User)."),
    (lambda llm: llm.chat("x", response_model=User), "Write parse(messages, User)."),
    (
        lambda llm: llm.chat("x", schema={"type": "object"}),
        '"json_schema": {"name": "reply", "schema": {\'type\': \'object\'}}}.',
    ),
    (
        lambda llm: llm.parse("x", {"type": "object"}),
        (
            f'{TYPE} a dict. Write chat(messages, response_format={{"type": "json_schema", "json_schema": '
            '{"name": "reply", "schema": ...}}) for a JSON schema, then json.loads(reply.text).'
        ),
    ),
    (lambda llm: llm.stream_parse("x", {"type": "object"}), f"{TYPE} a dict."),
    (lambda llm: llm.parse("x", "User"), f"{TYPE} a str. Write parse(messages, TYPE)."),
    (lambda llm: llm.parse(User, "x"), f"{TYPE} a str. Write parse(messages, TYPE)."),
    (lambda llm: llm.parse("x", None), f"{TYPE} None."),
    (lambda llm: llm.parse("x", Instance()), "Pass the class itself: Instance."),
    (lambda llm: llm.parse("x", ["a", "b"]), "call choose(messages, [...])."),
    (lambda llm: llm.parse("x", response_format=User), "Write parse(messages, User, ...)."),
    (lambda llm: llm.choose("x", "yes", "no"), "Write the options as a list: [..., ...]."),
    (lambda llm: llm.choose("x", [1, 2]), "options: must be strings; 1 is an int."),
    # Tools
    (
        lambda llm: llm.run_tools("x", tools=[len], max_steps=3),
        "Write run_tools(messages, tools=[...], max_turns=3).",
    ),
    (lambda llm: llm.chat("x", max_steps=3), "Write run_tools(messages, tools=[...], max_turns=3)."),
    (
        lambda llm: llm.run_tools("x", tools=len),
        "tools: must be a list of functions. Write tools=[function, ...].",
    ),
    # Streams
    (
        lambda llm: with_it(llm.astream("x")),
        "an AsyncChatStream is async: write `async with` instead of `with`, or call",
    ),
    (
        lambda llm: for_it(llm.astream("x")),
        "an AsyncChatStream is async: write `async for` instead of `for`, or call",
    ),
    (lambda llm: for_it(llm.astream("x").events()), "is async: write `async for` instead of `for`"),
    (
        lambda llm: async_with_it(llm.stream("x")),
        "a ChatStream is sync: write `with` instead of `async with`, or call",
    ),
    (
        lambda llm: with_it(llm.astream_parse("x", int)),
        "an AsyncParseStream is async: write `async with` instead of `with`",
    ),
    (
        lambda llm: for_it(llm.astream_complete("x")),
        "an AsyncTextStream is async: write `async for` instead of `for`",
    ),
]


def _make(mistake: Callable[[Any], object], llm: VLLMProvider) -> None:
    result = mistake(llm)
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize(("mistake", "says"), MISTAKES, ids=[text[:50] for _, text in MISTAKES])
def test_what_a_newcomer_reads(mistake: Callable[[Any], object], says: str) -> None:
    llm = VLLMProvider("m", base_url=URL, max_retries=0)
    with pytest.raises((InvalidRequestError, TypeError, AttributeError)) as caught:
        _make(mistake, llm)
    text = str(caught.value)
    assert says in text
    assert "pw@" not in text


@pytest.mark.parametrize(
    "method", ["stream", "astream", "astream_run_tools", "stream_parse", "astream_complete"]
)
def test_which_kind_a_stream_is(method: str) -> None:
    """Programs ask in these ways."""
    llm: Any = VLLMProvider("m", base_url=URL)
    arguments = {"tools": [len]} if "tools" in method else {"kind": int} if "parse" in method else {}
    stream = getattr(llm, method)("x", **arguments)
    is_async = method.startswith("a")
    assert hasattr(stream, "__aiter__") is hasattr(stream, "__aenter__") is is_async
    assert hasattr(stream, "__enter__") is hasattr(stream, "__next__") is not is_async
    assert isinstance(stream, AsyncIterable) is is_async
    assert not inspect.isawaitable(stream)


def test_an_unknown_method_is_an_attribute_error() -> None:
    llm = VLLMProvider("m", base_url=URL)
    assert not hasattr(llm, "embeddings")
    with pytest.raises(AttributeError, match=r"^'VLLMProvider' object has no attribute 'chta'$") as caught:
        llm.chta("x")  # type: ignore[attr-defined]
    assert (caught.value.name, caught.value.obj) == ("chta", llm)  # Python suggests "chat" from these


def test_models_may_have_colons_and_slashes() -> None:
    for model in ("llama3:8b", "/models/qwen", "s3://bucket/qwen", "org/model:latest", "C:\\models\\qwen"):
        assert VLLMProvider(model, base_url=URL).model == model
