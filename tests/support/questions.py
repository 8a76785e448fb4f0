"""Asks the tiny model for known replies, and compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vllmchat import (
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStart,
    VLLMChatParams,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tiny_model.dialogues import Dialogue, Script
    from vllmchat import ChatCompletion, Event, Message


@dataclass(frozen=True, slots=True)
class Question:
    """One dialogue under one system prompt, with or without thinking."""

    dialogue: Dialogue
    system: str | None
    thinking: bool
    exact: bool = True
    """Whether the reply has the line breaks of the known one. Streams of older servers lose and add some."""

    @property
    def messages(self) -> list[Message]:
        """The conversation."""
        return cast("list[Message]", self.dialogue.with_system(self.system))

    @property
    def params(self) -> VLLMChatParams:
        """The parameters that make the reply a known one."""
        params = VLLMChatParams(temperature=0, enable_thinking=self.thinking)
        if self.dialogue.tools:
            params["tools"] = cast("Any", self.dialogue.tools)
        return params

    def trimmed(self, text: str) -> str:
        """The text as it is compared."""
        return text if self.exact else text.strip()

    def check(self, reply: ChatCompletion) -> None:
        """The reply is the known one, to the letter (see `exact`)."""
        dialogue = self.dialogue
        where = (dialogue.name, self.system, self.thinking)
        assert [(call.name, self.trimmed(call.arguments)) for call in reply.tool_calls] == [
            (call.name, call.arguments_json) for call in dialogue.tool_calls
        ], where
        assert [call.parse() for call in reply.tool_calls] == [
            call.arguments for call in dialogue.tool_calls
        ], where
        assert all(call.complete and call.id for call in reply.tool_calls), where
        thoughts = dialogue.thoughts(thinking=self.thinking)
        assert (reply.message.reasoning is None) is (thoughts is None), where
        assert self.trimmed(reply.message.reasoning or "") == self.trimmed(thoughts or ""), where
        assert reply.reasoning == (dialogue.reasoning if self.thinking else None), where
        if dialogue.tool_calls:
            assert reply.text == "", where
        else:
            content = dialogue.content(thinking=self.thinking)
            assert self.trimmed(reply.message.content or "") == self.trimmed(content or ""), where
            assert reply.text == dialogue.answer, where
        assert reply.finish_reason == ("tool_calls" if dialogue.tool_calls else "stop"), where
        assert reply.usage is not None, where
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens, where

    def check_told(self, told: Told) -> None:
        """The events add up to the known reply."""
        reply = told.completion
        self.check(reply)
        # The blank line before a call is streamed as it arrives; it is not part of the reply's content.
        assert told.text == (reply.message.content or "") or (reply.tool_calls and not told.text.strip())
        assert told.reasoning == (reply.message.reasoning or "")
        assert told.calls == [(call.id, call.name, call.arguments) for call in reply.tool_calls]


@dataclass(frozen=True, slots=True)
class Told:
    """What the events of the first choice add up to."""

    text: str
    reasoning: str
    calls: list[tuple[str, str, str]]
    """ID, name and arguments of each."""
    completion: ChatCompletion


def questions(script: Script, *, exact: bool = True) -> list[Question]:
    """Every dialogue in all its variants."""
    return [
        Question(dialogue, system, thinking, exact)
        for dialogue in script.dialogues
        for system in script.system_prompts
        for thinking in (True, False)
    ]


def told_by(events: Iterable[Event]) -> Told:
    """What the events of one choice add up to. Asserts that they arrive in a sensible order."""
    text = reasoning = ""
    calls: dict[int, list[str]] = {}
    done: dict[int, tuple[str, str, str]] = {}
    finished: ChatCompletion | None = None
    for event in events:
        assert finished is None, "nothing comes after Finished"
        match event:
            case TextDelta(text=piece):
                assert piece
                text += piece
            case ReasoningDelta(text=piece):
                assert piece
                reasoning += piece
            case ToolCallStart(index=index, id=call_id, name=name):
                assert index == len(calls)
                calls[index] = [call_id, name, ""]
            case ToolCallDelta(index=index, arguments=piece):
                assert piece
                assert index not in done
                calls[index][2] += piece
            case ToolCallDone(index=index, tool_call=call):
                done[index] = (call.id, call.name, call.arguments)
            case Finished(completion=completion):
                finished = completion
    assert finished is not None
    assert [tuple(calls[index]) for index in sorted(calls)] == [done[index] for index in sorted(done)]
    return Told(text, reasoning, [done[index] for index in sorted(done)], finished)


def differences(one: object, other: object, path: str = "") -> list[str]:
    """Where two JSON values differ; numbers may differ in their last digits, as they do between batches."""
    shown, other_shown = repr(one), repr(other)
    if shown == other_shown:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        ours, theirs = cast("Mapping[str, object]", one), cast("Mapping[str, object]", other)
        names = [*ours, *(name for name in theirs if name not in ours)]
        absent = "(absent)"
        return [
            found
            for name in names
            for found in differences(ours.get(name, absent), theirs.get(name, absent), f"{path}.{name}")
        ]
    if isinstance(one, list) and isinstance(other, list):
        left, right = cast("list[object]", one), cast("list[object]", other)
        if len(left) != len(right):
            return [f"{path}: {len(left)} items against {len(right)}"]
        return [
            found
            for place, pair in enumerate(zip(left, right, strict=True))
            for found in differences(*pair, f"{path}[{place}]")
        ]
    if isinstance(one, float) and isinstance(other, float):
        return [] if abs(one - other) < 1e-3 else [f"{path}: {one} against {other}"]
    return [f"{path}: {shown} against {other_shown}"]


def comparable(reply: ChatCompletion) -> dict[str, Any]:
    """A reply as JSON, without what is new in each response: its ID, its time, the IDs of its calls."""
    dumped = reply.model_dump(mode="json")
    assert dumped.pop("id")
    assert dumped.pop("created")
    for choice in dumped["choices"]:
        for call in choice["message"]["tool_calls"]:
            assert call.pop("id")
    return dumped
