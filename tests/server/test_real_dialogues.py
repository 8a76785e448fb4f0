"""Every dialogue that the tiny model knows, in all variants, through all four methods: exact answers."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest

from support.questions import Question, questions, told_by
from vllmchat import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.vllm import LiveServer
    from vllmchat import VLLMProvider

AT_ONCE = 32
"""The server works best on many requests at once."""


def questions_to(server: LiveServer, *, streamed: bool) -> list[Question]:
    """Every dialogue, and how exactly this server gives its reply.

    If a chunk holds the end of the reasoning and more tokens, servers before 0.30 lose a line break next to it. Before
    0.19, streamed arguments end with a line break.
    """
    return questions(server.dialogues, exact=not streamed or server.since("0.30"))


def attempts(server: LiveServer) -> int:
    """How often a reply is requested at most, until it is the known one.

    Servers before 0.19 refuse one of many requests at once now and then ("Already borrowed"). Those before 0.17 pass on
    `<think>` as reasoning if the first chunk of a stream holds more tokens than that.
    """
    return 1 if server.since("0.19") else 4


def by_events(question: Question) -> bool:
    """Half of the streams are read as events, the others as chunks; each dialogue and each thinking in both."""
    return question.system is None or question.system == "You are terse."


def ask_all(questions: list[Question], ask: Callable[[Question], None]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(ask, questions):
            pass


def test_chat_gives_every_known_answer(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    def ask(question: Question) -> None:
        for _ in range(attempts(vllm_server) - 1):
            with contextlib.suppress(BadRequestError):
                return question.check(llm.chat(question.messages, **question.params))
        return question.check(llm.chat(question.messages, **question.params))

    ask_all(questions_to(vllm_server, streamed=False), ask)


def test_stream_gives_every_known_answer(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    def ask(question: Question) -> None:
        for _ in range(attempts(vllm_server) - 1):
            with contextlib.suppress(AssertionError, BadRequestError):
                return ask_once(question)
        return ask_once(question)

    def ask_once(question: Question) -> None:
        with llm.stream(question.messages, **question.params) as stream:
            if by_events(question):
                question.check_told(told_by(stream.events()))
            else:
                pieces = [(chunk.text, chunk.reasoning or "") for chunk in stream]
                question.check(stream.completion)
                text = "".join(text for text, _ in pieces)
                # The blank line before a call does not belong to the content of the reply.
                assert text == (stream.completion.message.content or "") or (
                    stream.completion.tool_calls and not text.strip()
                )
                assert "".join(thought for _, thought in pieces) == (
                    stream.completion.message.reasoning or ""
                )

    ask_all(questions_to(vllm_server, streamed=True), ask)


@pytest.mark.anyio
async def test_achat_gives_every_known_answer(allm: VLLMProvider, vllm_server: LiveServer) -> None:
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def ask(question: Question) -> None:
        async with limit:
            for _ in range(attempts(vllm_server) - 1):
                with contextlib.suppress(BadRequestError):
                    return question.check(await allm.achat(question.messages, **question.params))
            return question.check(await allm.achat(question.messages, **question.params))

    async with anyio.create_task_group() as group:
        for question in questions_to(vllm_server, streamed=False):
            group.start_soon(ask, question)


@pytest.mark.anyio
async def test_astream_gives_every_known_answer(allm: VLLMProvider, vllm_server: LiveServer) -> None:
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def ask(question: Question) -> None:
        for _ in range(attempts(vllm_server) - 1):
            with contextlib.suppress(AssertionError, BadRequestError):
                return await ask_once(question)
        return await ask_once(question)

    async def ask_once(question: Question) -> None:
        async with limit, allm.astream(question.messages, **question.params) as stream:
            if by_events(question):
                question.check_told(told_by([event async for event in stream.events()]))
            else:
                pieces = [(chunk.text, chunk.reasoning or "") async for chunk in stream]
                question.check(stream.completion)
                text = "".join(text for text, _ in pieces)
                # The blank line before a call does not belong to the content of the reply.
                assert text == (stream.completion.message.content or "") or (
                    stream.completion.tool_calls and not text.strip()
                )
                assert "".join(thought for _, thought in pieces) == (
                    stream.completion.message.reasoning or ""
                )

    async with anyio.create_task_group() as group:
        for question in questions_to(vllm_server, streamed=True):
            group.start_soon(ask, question)
