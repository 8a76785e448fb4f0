"""Replies for a script, each made in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import to_json

from vllmchat.chat.completion import FunctionCall, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.wire.usage import FinishReason, Usage


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of a script. `reply` makes one.

    Attributes:
        text: The text.
        reasoning: The reasoning before it, or None.
        tool_calls: The tool calls. A call without an id gets one.
        finish_reason: Why it ends; None for `"tool_calls"` if there are tool calls, else `"stop"`.
        stop_reason: The stop string or token that ended it.
        usage: The token usage; None to count the words.
        pieces: The pieces in which the text is streamed; None to cut it.
        chunk: Characters per piece; None for one word or punctuation mark per piece.
        refusal: Why the model declined, as servers other than vLLM report it.
    """

    text: str = ""
    reasoning: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    finish_reason: FinishReason | str | None = None
    stop_reason: int | str | None = None
    usage: Usage | None = None
    pieces: Sequence[str] | None = None
    chunk: int | None = None
    refusal: str | None = None


def reply(
    text: object = "",
    *,
    reasoning: str | None = None,
    tool_calls: Sequence[ToolCall] = (),
    finish_reason: FinishReason | str | None = None,
    stop_reason: int | str | None = None,
    usage: Usage | None = None,
    pieces: Sequence[str] | None = None,
    chunk: int | None = None,
    refusal: str | None = None,
) -> Reply:
    """Makes a reply.

    Args:
        text: The text. A value that is not a `str`, such as a pydantic model, becomes its JSON, for `parse`.
        reasoning: The reasoning before the text.
        tool_calls: Tool calls; see `tool_call`.
        finish_reason: Why the reply ends. Default: `"tool_calls"` if there are tool calls, else `"stop"`.
        stop_reason: The stop string or token that ended it.
        usage: The token usage. By default the words are counted.
        pieces: The pieces in which the text is streamed, instead of `text`.
        chunk: Characters per streamed piece, at least 1. By default a piece is a word or a punctuation mark.
        refusal: Why the model declined, as servers other than vLLM report it.

    Raises:
        ValueError: Both `text` and `pieces` are given, or `chunk` is below 1.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    if pieces is not None:
        if text != "":
            raise ValueError("text and pieces are the same text: give one of them")
        text = "".join(pieces)
    return Reply(
        text if isinstance(text, str) else to_json(text).decode(),
        reasoning,
        tuple(tool_calls),
        finish_reason,
        stop_reason,
        usage,
        None if pieces is None else tuple(pieces),
        chunk,
        refusal,
    )


def tool_call(name: str, arguments: Mapping[str, object] | str | None = None, *, id: str = "") -> ToolCall:  # noqa: A002 - the wire's own name
    """Makes a tool call. In a script it is a reply with this call alone.

    Args:
        name: Name of the function.
        arguments: Its arguments, or their JSON text, which may be broken.
        id: The id of the call; by default the double makes one.
    """
    if not isinstance(arguments, str):
        arguments = to_json(dict(arguments or {})).decode()
    return ToolCall(id=id, function=FunctionCall(name=name, arguments=arguments))


def replies_of(completion: ChatCompletion) -> list[Reply]:
    """The choices of a whole reply, as replies of a script."""
    return [
        Reply(
            choice.message.content or "",
            choice.message.reasoning,
            tuple(choice.message.tool_calls),
            choice.finish_reason,
            choice.stop_reason,
            completion.usage,
            refusal=choice.message.refusal,
        )
        for choice in completion.choices
    ]
