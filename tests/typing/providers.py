"""What type checkers say of providers and what they give: read by mypy and pyright, never run.

A line that must be refused says so to both of them; an ignore that nothing needs is an error.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, assert_type

import httpx
import httpx2

from vllmchat import (
    AsyncChatStream,
    AsyncProvider,
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    ChatStream,
    Choice,
    Event,
    Finished,
    OpenAIProvider,
    Provider,
    ReasoningDelta,
    SyncProvider,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStart,
    Usage,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from typing_extensions import Unpack

    from vllmchat import CommonChatParams, Message, Messages


# Names


def misspelled() -> None:
    import vllmchat
    from vllmchat import VLLMProvder  # type: ignore[attr-defined]  # noqa: F401

    assert_type(vllmchat.VLLMProvider, type[VLLMProvider])
    vllmchat.VLLMProvder()  # type: ignore[attr-defined]


# Classes that never heard of this library's own, but for what they take and give


class Chunks:
    """Chunks out of nowhere, sync and async."""

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        raise NotImplementedError

    def __next__(self) -> ChatCompletionChunk:
        raise NotImplementedError

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raise NotImplementedError

    @property
    def completion(self) -> ChatCompletion:
        raise NotImplementedError

    def events(self) -> Iterator[Event]:
        raise NotImplementedError

    def until_done(self) -> ChatCompletion:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class AsyncChunks:
    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        raise NotImplementedError

    async def __anext__(self) -> ChatCompletionChunk:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raise NotImplementedError

    @property
    def completion(self) -> ChatCompletion:
        raise NotImplementedError

    def events(self) -> AsyncIterator[Event]:
        raise NotImplementedError

    async def until_done(self) -> ChatCompletion:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class Parrot:
    """Blocking only."""

    name = "parrot"

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        raise NotImplementedError

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> Chunks:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class AsyncParrot:
    """Async only; it accepts any parameters."""

    @property
    def name(self) -> str:
        raise NotImplementedError

    async def achat(self, messages: Messages, *, model: str | None = None, **params: Any) -> ChatCompletion:
        raise NotImplementedError

    def astream(self, messages: Messages, *, model: str | None = None, **params: Any) -> AsyncChunks:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class TwoParrots(Parrot, AsyncParrot):
    """Both."""


class Mute:
    """Lacks `stream`."""

    name = "mute"

    def chat(self, messages: Messages, *, model: str | None = None, **params: Any) -> ChatCompletion:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def takes_sync(provider: SyncProvider) -> None: ...


def takes_async(provider: AsyncProvider) -> None: ...


def takes_both(provider: Provider) -> None: ...


def who_is_a_provider(vllm: VLLMProvider, openai: OpenAIProvider, either: Provider) -> None:
    takes_sync(vllm)
    takes_async(vllm)
    takes_both(vllm)
    takes_sync(openai)
    takes_async(openai)
    takes_both(openai)
    # What is both is each.
    takes_sync(either)
    takes_async(either)


def who_else_is_one() -> None:
    takes_sync(Parrot())
    takes_async(AsyncParrot())
    takes_sync(TwoParrots())
    takes_async(TwoParrots())
    takes_both(TwoParrots())


def who_is_none() -> None:
    takes_async(Parrot())  # type: ignore[arg-type]
    takes_sync(AsyncParrot())  # type: ignore[arg-type]
    takes_both(Parrot())  # type: ignore[arg-type]
    takes_sync(Mute())  # type: ignore[arg-type]
    takes_both(object())  # type: ignore[arg-type]


# Parameters: a name that is right in one place and wrong in another


def names(vllm: VLLMProvider, openai: OpenAIProvider, any_provider: Provider) -> None:
    vllm.chat("Hello", temperature=0.5, top_k=5, enable_thinking=True)
    openai.chat("Hello", temperature=0.5, store=False)
    any_provider.chat("Hello", temperature=0.5, timeout=5)

    vllm.chat("Hello", temprature=0.5)  # type: ignore[call-arg]
    vllm.with_options(temprature=0)  # type: ignore[call-arg]
    VLLMProvider("m", retries=3)  # type: ignore[call-arg]
    VLLMProvider("m", temprature=0)  # type: ignore[call-arg]
    OpenAIProvider("m", retries=3)  # type: ignore[call-arg]
    OpenAIProvider("m", top_k=20)  # type: ignore[call-arg]
    OpenAIProvider("m", n=2)  # type: ignore[call-arg]
    openai.chat("Hello", temprature=0.5)  # type: ignore[call-arg]
    any_provider.chat("Hello", temprature=0.5)  # type: ignore[call-arg]
    vllm.stream("Hello", top_kk=5)  # type: ignore[call-arg]
    vllm.astream("Hello", top_kk=5)  # type: ignore[call-arg]
    # Of vLLM alone.
    openai.chat("Hello", top_k=5)  # type: ignore[call-arg]
    openai.stream("Hello", enable_thinking=True)  # type: ignore[call-arg]
    any_provider.stream("Hello", structured_outputs={"choice": ["a"]})  # type: ignore[call-arg]
    # Of other servers alone.
    vllm.chat("Hello", store=False)  # type: ignore[call-arg]
    # Removed.
    vllm.chat("Hello", guided_json={})  # type: ignore[call-arg]


async def asynchronous_names(vllm: VLLMProvider, openai: OpenAIProvider) -> None:
    await vllm.achat("Hello", top_k=5)
    await vllm.achat("Hello", temprature=0.5)  # type: ignore[call-arg]
    await openai.achat("Hello", top_k=5)  # type: ignore[call-arg]


def values(vllm: VLLMProvider) -> None:
    vllm.chat("Hello", top_k="5")  # type: ignore[arg-type]
    vllm.chat("Hello", temperature="hot")  # type: ignore[arg-type]
    vllm.chat("Hello", reasoning_effort="lots")  # type: ignore[arg-type]
    vllm.chat("Hello", structured_outputs={"chioce": ["a"]})  # type: ignore[arg-type]
    vllm.chat(5)  # type: ignore[arg-type]
    vllm.chat("Hello", "gpt-9")  # type: ignore[call-arg]


# What comes back


def results(vllm: VLLMProvider, any_provider: Provider) -> None:
    reply = vllm.chat("Hello")
    assert_type(reply, ChatCompletion)
    assert_type(reply.text, str)
    assert_type(reply.reasoning, str | None)
    assert_type(reply.message, ChatMessage)
    assert_type(reply.choices, list[Choice])
    assert_type(reply.tool_calls, list[ToolCall])
    assert_type(reply.tool_calls[0].parse(), dict[str, object])
    assert_type(reply.tool_calls[0].arguments, str)
    assert_type(reply.tool_calls[0].complete, bool)
    assert_type(reply.usage, Usage | None)
    assert_type(reply.request_id, str | None)
    assert_type(any_provider.chat("Hello"), ChatCompletion)

    stream = vllm.stream("Hello")
    assert_type(stream, ChatStream)
    with stream as same:
        assert_type(same, ChatStream)
        for chunk in same:
            assert_type(chunk, ChatCompletionChunk)
            assert_type(chunk.text, str)
            assert_type(chunk.reasoning, str | None)
    assert_type(stream.until_done(), ChatCompletion)
    assert_type(stream.completion, ChatCompletion)
    for event in stream.events():
        kinds(event)
    for chunk in any_provider.stream("Hello"):
        assert_type(chunk, ChatCompletionChunk)


async def asynchronous_results(vllm: VLLMProvider, any_provider: Provider) -> None:
    assert_type(await vllm.achat("Hello"), ChatCompletion)
    stream = vllm.astream("Hello")
    assert_type(stream, AsyncChatStream)
    async with stream as same:
        assert_type(same, AsyncChatStream)
        async for chunk in same:
            assert_type(chunk, ChatCompletionChunk)
    assert_type(await stream.until_done(), ChatCompletion)
    async for event in stream.events():
        kinds(event)
    async for chunk in any_provider.astream("Hello"):
        assert_type(chunk, ChatCompletionChunk)


def kinds(event: Event) -> Literal["text", "call", "end"]:
    """Six kinds, no more: a checker would say that this may return nothing."""
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text):
            assert_type(text, str)
            return "text"
        case ToolCallStart() | ToolCallDelta():
            assert_type(event.index, int)
            return "call"
        case ToolCallDone():
            assert_type(event.tool_call, ToolCall)
            return "call"
        case Finished():
            assert_type(event.completion, ChatCompletion)
            return "end"


# Providers themselves


def makes() -> None:
    with VLLMProvider() as vllm:
        assert_type(vllm, VLLMProvider)
    assert_type(VLLMProvider("m").with_options(timeout=5), VLLMProvider)
    assert_type(OpenAIProvider("m").with_options(model="n"), OpenAIProvider)
    VLLMProvider("m", temperature=0, max_tokens=200, top_k=20, enable_thinking=False)
    OpenAIProvider("m", temperature=0, verbosity="low", reasoning_effort="other")
    assert_type(VLLMProvider("m").with_options(temperature=0, top_k=None), VLLMProvider)
    assert_type(OpenAIProvider("m").with_options(temperature=None), OpenAIProvider)
    VLLMProvider("m", temperature="x")  # type: ignore[arg-type]
    VLLMProvider("m").with_options(top_k="x")  # type: ignore[arg-type]
    OpenAIProvider("m", verbosity="x")  # type: ignore[arg-type]
    VLLMProvider(http_client=httpx.Client(), async_http_client=httpx.AsyncClient())
    VLLMProvider(http_client=httpx2.Client(), async_http_client=httpx2.AsyncClient())
    VLLMProvider(async_http_client=httpx.Client())  # type: ignore[arg-type]
    VLLMProvider(base_uri="http://localhost:8000")  # type: ignore[call-arg]


async def makes_asynchronously() -> None:
    async with OpenAIProvider("m") as openai:
        assert_type(openai, OpenAIProvider)


def history(vllm: VLLMProvider) -> None:
    """A conversation is a list of one's own messages and of those that came back."""
    messages: list[Message | ChatMessage] = [{"role": "user", "content": "Hello"}]
    messages.append(vllm.chat(messages).message)
    messages.append({"role": "usr", "content": "Hello"})  # type: ignore[arg-type]
    vllm.stream([*messages, {"role": "user", "content": "And now?"}])
