"""One reply of the model, in MassGen's terms. Does not depend on the MassGen package.

MassGen's agents read a stream of chunks and rely on their order: reasoning, `reasoning_done` before anything else,
text, all tool calls in one chunk, the message for the history, `done`. `Turn` makes them from the events of a
vllmchat stream.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from vllmchat.chat.events import Finished, ReasoningDelta, TextDelta, ToolCallDone, ToolCallStart
from vllmchat.chat.messages import TRUNCATED
from vllmchat.wire.usage import truncates

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatCompletion, ToolCall
    from vllmchat.chat.events import Event

Kind = Literal["reasoning", "reasoning_done", "content", "tool_calls", "complete_message", "error", "done"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The fields of MassGen's `StreamChunk`. Those that are None are not set."""

    type: Kind
    content: str | None = None
    reasoning_delta: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    complete_message: dict[str, Any] | None = None
    error: str | None = None
    status: str | None = None
    detail: str | None = None
    """Of an error: `REFUSED` or `INTERRUPTED`, which MassGen does not read."""


REFUSED: Final = "refused"
"""The server rejected the request."""

INTERRUPTED: Final = "interrupted"
"""The reply was ended on purpose."""


class Turn:
    """Translates the events of one reply.

    Feed it the events as they arrive. Then call `end`, or `broken` if an error ended the stream, and `handed_over` if
    the agent's turn ends with this reply.

    Attributes:
        text: The text so far.
        reasoning: The reasoning so far.
        completion: The whole reply, once it is finished.
        refusal: Why the reply must not be used, once it is finished: a tool call was truncated, or there is no
            reply at all. None for a good reply.
        calls: The tool calls to act on, in the chat completions format; empty if there is a `refusal`. Their arguments
            are as the model wrote them, which may not be JSON.
        context_size: The model's context size in tokens, if known. A reply that fills it was truncated, even if the
            server reports another finish reason.
    """

    def __init__(self, *, reasoning_in_content: bool = True) -> None:
        """Starts a reply.

        Args:
            reasoning_in_content: Whether a `reasoning` chunk repeats its text as `content`, as MassGen's agents expect.
                Callers that join the `content` of all chunks do not want that.
        """
        self.text = ""
        self.reasoning = ""
        self.completion: ChatCompletion | None = None
        self.refusal: str | None = None
        self.calls: list[dict[str, Any]] = []
        self.context_size: int | None = None
        self._called: list[ToolCall] = []
        self._in_reasoning = False
        self._reasoning_in_content = reasoning_in_content

    def feed(self, event: Event) -> list[Chunk]:
        """The chunks of an event. Only of the first choice: MassGen reads a single reply."""
        match event:
            case ReasoningDelta(text=text, choice=0):
                self.reasoning += text
                self._in_reasoning = True
                return [
                    Chunk("reasoning", text if self._reasoning_in_content else None, reasoning_delta=text)
                ]
            case TextDelta(text=text, choice=0):
                self.text += text
                return [*self._after_reasoning(), Chunk("content", text)]
            case ToolCallStart(choice=0):
                return self._after_reasoning()
            case ToolCallDone(tool_call=call, choice=0):
                self._called.append(call)
                return []
            case Finished(completion=completion):
                self.completion = completion
                self.refusal = self._check(completion)
                if self.refusal is None:
                    self.calls = [_wire_call(call) for call in self._called]
                return []
            case _:
                return []

    def refuse(self, why: str) -> None:
        """Drops the calls of a complete reply.

        Args:
            why: The reason, as a sentence for the model and the user.
        """
        self.refusal = why
        self.calls = []

    def end(self) -> list[Chunk]:
        """The chunks at the end of a complete reply."""
        chunks = self._after_reasoning()
        if self.refusal is not None:
            chunks.append(Chunk("error", error=self.refusal))
        elif self.calls:
            chunks.append(Chunk("tool_calls", tool_calls=self.calls))
        return chunks

    def broken(self, why: str, *, fatal: bool = False, detail: str | None = None) -> list[Chunk]:
        """The chunks at the end of a reply that failed.

        Args:
            why: The error, as a sentence for the user.
            fatal: Whether MassGen should give up the agent instead of retrying.
            detail: The `detail` of the error.
        """
        self.calls = []
        error = Chunk("error", error=why, status="fatal" if fatal else None, detail=detail)
        return [*self._after_reasoning(), error]

    def handed_over(self) -> list[Chunk]:
        """The last chunks of an agent's turn: what arrived, for MassGen's history, and `done`."""
        text = self.text.strip()
        chunks = [Chunk("done")]
        if text or self.calls:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self.calls:
                message["tool_calls"] = self.calls
            chunks.insert(0, Chunk("complete_message", complete_message=message))
        return chunks

    def assistant_message(self) -> dict[str, Any]:
        """The reply as a message for the next request, including its reasoning and the tool calls to act on."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.reasoning:
            message["reasoning"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        return message

    def _after_reasoning(self) -> list[Chunk]:
        if not self._in_reasoning:
            return []
        self._in_reasoning = False
        return [Chunk("reasoning_done", "")]

    def _check(self, completion: ChatCompletion) -> str | None:
        reason = completion.finish_reason
        if reason == "abort":
            return (
                "The vLLM server aborted this reply (finish_reason abort): it was paused, is shutting down, or was "
                "asked to abort. What arrived is kept."
            )
        for call in self._called:
            if (why := self._truncation(call, completion)) is not None:
                return f"The call of tool {call.name!r} was truncated. {why} It was not executed."
        if reason == "length" and not self.text and not self._called:
            thinking = ": the model was still reasoning when it was truncated" if self.reasoning else ""
            return f"The reply has no answer{thinking}. {_limit(completion)}"
        return None

    def _truncation(self, call: ToolCall, completion: ChatCompletion) -> str | None:
        """Why a call is truncated; None if the model wrote it to its end, even if its arguments are not JSON."""
        reason = completion.finish_reason
        if reason == "repetition":
            return "The model repeated itself, and repetition_detection ended the reply."
        if truncates(reason) and reason != "length":
            return f"The server ended the reply with finish_reason {reason!r}."
        # A call is complete without a finish reason, or before the last of a truncated reply, if its arguments are.
        ended = call.complete or (bool(reason) and not truncates(reason))
        # vLLM 0.10 to 0.32 report `tool_calls` for a reply that filled the context, too.
        filled = call is self._called[-1] and self._fills_context(completion)
        # Unlike `call.truncated`, the mark does not depend on what the arguments look like.
        marked = TRUNCATED in call.to_request()
        return None if ended and not filled and not marked else _limit(completion)

    def _fills_context(self, completion: ChatCompletion) -> bool:
        usage, size = completion.usage, self.context_size
        return (
            usage is not None and size is not None and usage.prompt_tokens + usage.completion_tokens >= size
        )


def _limit(completion: ChatCompletion) -> str:
    """What to do if a limit ended the reply."""
    usage = completion.usage
    length = f"It ended after {usage.completion_tokens} tokens: raise" if usage is not None else "Raise"
    return f"{length} max_tokens, or start the server with a longer --max-model-len."


def _wire_call(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments
    return {
        # A tool result refers to its call by this ID, so there must be one.
        "id": call.id or f"call_{uuid.uuid4().hex}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments if arguments.strip() else "{}"},
    }
