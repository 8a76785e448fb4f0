"""Every dialogue that the tiny model knows, in all variants, through all four verbs: exact answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest

from support.asking import Question, questions, told_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_model.dialogues import Script
    from vllmchat import VLLMProvider

AT_ONCE = 32
"""The server works best on many requests at once."""


def by_events(question: Question) -> bool:
    """Half of the streams are read as events, the others as chunks; each dialogue and each thinking in both."""
    return question.system is None or question.system == "You are terse."


def ask_all(script: Script, ask: Callable[[Question], None]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(ask, questions(script)):
            pass


def test_chat_gives_every_known_answer(llm: VLLMProvider, script: Script) -> None:
    ask_all(script, lambda question: question.check(llm.chat(question.messages, **question.params)))


def test_stream_gives_every_known_answer(llm: VLLMProvider, script: Script) -> None:
    def ask(question: Question) -> None:
        with llm.stream(question.messages, **question.params) as stream:
            if by_events(question):
                question.check_told(told_by(stream.events()))
            else:
                pieces = [(chunk.text, chunk.reasoning or "") for chunk in stream]
                question.check(stream.completion)
                text = "".join(text for text, _ in pieces)
                # The blank line before a call is no content of the reply.
                assert text == stream.completion.text or (stream.completion.tool_calls and not text.strip())
                assert "".join(thought for _, thought in pieces) == (stream.completion.reasoning or "")

    ask_all(script, ask)


@pytest.mark.anyio
async def test_achat_gives_every_known_answer(allm: VLLMProvider, script: Script) -> None:
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def ask(question: Question) -> None:
        async with limit:
            question.check(await allm.achat(question.messages, **question.params))

    async with anyio.create_task_group() as group:
        for question in questions(script):
            group.start_soon(ask, question)


@pytest.mark.anyio
async def test_astream_gives_every_known_answer(allm: VLLMProvider, script: Script) -> None:
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def ask(question: Question) -> None:
        async with limit, allm.astream(question.messages, **question.params) as stream:
            if by_events(question):
                question.check_told(told_by([event async for event in stream.events()]))
            else:
                pieces = [(chunk.text, chunk.reasoning or "") async for chunk in stream]
                question.check(stream.completion)
                text = "".join(text for text, _ in pieces)
                # The blank line before a call is no content of the reply.
                assert text == stream.completion.text or (stream.completion.tool_calls and not text.strip())
                assert "".join(thought for _, thought in pieces) == (stream.completion.reasoning or "")

    async with anyio.create_task_group() as group:
        for question in questions(script):
            group.start_soon(ask, question)
