"""What type checkers say of jobs over many inputs: read, never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, assert_type

from pydantic import BaseModel

from vllmchat import (
    AsyncMapResults,
    ChatCompletion,
    Embeddings,
    JobSummary,
    MapResults,
    Message,
    Result,
    TextCompletion,
    amap_chat,
    map_chat,
    read_results,
    run_job,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from vllmchat import (
        AsyncProvider,
        JobProgress,
        OpenAIProvider,
        SyncProvider,
        VLLMProvider,
    )


class User(BaseModel):
    name: str


async def length(text: str) -> int:
    return len(text)


def double(number: int) -> float:
    return number * 2.0


async def inputs(
    llm: VLLMProvider,
    other: OpenAIProvider,
    texts: Iterable[str],
    later: AsyncIterable[str],
    conversations: list[list[Message]],
) -> None:
    assert_type(llm.map(texts), MapResults[str, ChatCompletion])
    assert_type(other.amap(later), AsyncMapResults[str, ChatCompletion])
    for result in llm.map(texts, top_k=5, in_flight=8, ordered=False):
        assert_type(result, Result[str, ChatCompletion])
        assert_type(result.input, str)
        assert_type(result.value, ChatCompletion)
        assert_type(result.text, str)
        assert_type(result.error, Exception | None)
    async for later_result in llm.amap(conversations):
        assert_type(later_result.input, list[Message])
    mappings: list[dict[str, Any]] = [{"messages": "Hi", "id": 1}]
    assert_type(llm.map(mappings), MapResults[dict[str, Any], ChatCompletion])
    llm.map([1, 2])  # type: ignore[type-var]
    llm.map(texts, temprature=1)  # type: ignore[call-overload]
    other.map(texts, top_k=5)  # type: ignore[call-overload]
    llm.map(texts, in_flight="all")  # type: ignore[call-overload]


async def values(llm: VLLMProvider, other: OpenAIProvider, texts: list[str]) -> None:
    assert_type(llm.map(texts, kind=User), MapResults[str, User])
    assert_type(other.map(texts, kind=list[int]), MapResults[str, list[int]])
    assert_type(llm.amap(texts, kind=Literal["a", "b"], top_k=5), AsyncMapResults[str, Literal["a", "b"]])
    assert_type(llm.map(texts, call=length), MapResults[str, int])
    assert_type(llm.map([1, 2], call=double), MapResults[int, float])
    assert_type(
        llm.amap(texts, call=partial(llm.acomplete, max_tokens=5)), AsyncMapResults[str, TextCompletion]
    )
    assert_type(llm.map(texts, call=llm.embed), MapResults[str, Embeddings])
    llm.map(texts, call=double)  # type: ignore[arg-type]


async def any_provider(sync: SyncProvider, later: AsyncProvider, texts: list[str]) -> None:
    assert_type(map_chat(sync, texts, temperature=0), MapResults[str, ChatCompletion])
    assert_type(amap_chat(later, texts, progress=report), AsyncMapResults[str, ChatCompletion])
    assert_type(run_job(later, "in.jsonl", "out.jsonl", temperature=0), JobSummary)
    map_chat(sync, texts, top_k=5)  # type: ignore[call-arg]


def results_of_files(path: str) -> None:
    for result in read_results(path):
        assert_type(result, Result[None, ChatCompletion])
    for user in read_results(path, User, input="in.jsonl"):
        assert_type(user.value, User)
        assert_type(user.input, Mapping[str, object])
    assert_type(next(read_results(path, Literal["a", "b"])).value, Literal["a", "b"])
    assert_type(next(read_results(path, Embeddings)).value, Embeddings)


def report(progress: JobProgress) -> None:
    assert_type(progress.done, int)
    assert_type(progress.total, int | None)
