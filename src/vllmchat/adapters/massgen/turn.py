"""One reply of the model, told in MassGen's terms. Knows nothing of the MassGen package.

MassGen's agents read a stream of chunks and insist on their order: reasoning, `reasoning_done` before anything else
follows, text, all tool calls in one chunk, the message for the history, `done`. `Turn` makes them of the events of
a vllmchat stream.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vllmchat.chat.events import Finished, ReasoningDelta, TextDelta, ToolCallDone, ToolCallStart
from vllmchat.errors import ResponseError

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatCompletion, ToolCall
    from vllmchat.chat.events import Event

Kind = Literal["reasoning", "reasoning_done", "content", "tool_calls", "complete_message", "error", "done"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What MassGen's `StreamChunk` is made of. Attributes that are None are not set."""

    type: Kind
    content: str | None = None
    reasoning_delta: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    complete_message: dict[str, Any] | None = None
    error: str | None = None
    status: str | None = None


class Turn:
    """Translates the events of one reply.

    Feed it the events as they come; then take `end`, or `broken` when an error ended the stream; and `handed_over`
    when the agent's turn ends with this reply.

    Attributes:
        text: The text so far.
        reasoning: The reasoning so far.
        completion: The whole reply, once it is finished.
        refusal: Why the reply must not be acted on, once it is finished: a tool call that was cut, or no reply at
            all. None for a good reply.
        calls: The tool calls to act on, in the shape of chat completions; empty when there is a `refusal`.
    """

    def __init__(self, *, reasoning_in_content: bool = True) -> None:
        """Begins a reply.

        Args:
            reasoning_in_content: Whether a `reasoning` chunk repeats its text as `content`, as MassGen's agents want
                it. A caller who joins the `content` of all chunks does not want it.
        """
        self.text = ""
        self.reasoning = ""
        self.completion: ChatCompletion | None = None
        self.refusal: str | None = None
        self.calls: list[dict[str, Any]] = []
        self._called: list[ToolCall] = []
        self._in_reasoning = False
        self._reasoning_in_content = reasoning_in_content

    def feed(self, event: Event) -> list[Chunk]:
        """The chunks that an event gives. Only the first choice's: MassGen reads one reply."""
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
                self.refusal = self._judge(completion)
                if self.refusal is None:
                    self.calls = [_wire_call(call) for call in self._called]
                return []
            case _:
                return []

    def end(self) -> list[Chunk]:
        """The chunks at the end of a whole reply."""
        chunks = self._after_reasoning()
        if self.refusal is not None:
            chunks.append(Chunk("error", error=self.refusal))
        elif self.calls:
            chunks.append(Chunk("tool_calls", tool_calls=self.calls))
        return chunks

    def broken(self, why: str, *, fatal: bool = False) -> list[Chunk]:
        """The chunks at the end of a reply that an error ended.

        Args:
            why: The error, as a sentence for the user.
            fatal: Whether MassGen shall give up the agent instead of asking again.
        """
        self.calls = []
        return [*self._after_reasoning(), Chunk("error", error=why, status="fatal" if fatal else None)]

    def handed_over(self) -> list[Chunk]:
        """The last chunks of an agent's turn: what had arrived, for MassGen's history, and `done`."""
        text = self.text.strip()
        chunks = [Chunk("done")]
        if text or self.calls:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self.calls:
                message["tool_calls"] = self.calls
            chunks.insert(0, Chunk("complete_message", complete_message=message))
        return chunks

    def assistant_message(self) -> dict[str, Any]:
        """The reply as a message of the next request, reasoning included, with the tool calls to act on."""
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

    def _judge(self, completion: ChatCompletion) -> str | None:
        reason = completion.finish_reason
        if reason == "abort":
            return (
                "The vLLM server gave up this reply (finish_reason abort): it was paused, is shutting down, or was "
                "told to abort. What had arrived is kept; MassGen asks again."
            )
        for call in self._called:
            if not call.complete:
                return f"{_what_is_wrong(call, completion)} It was not carried out; MassGen asks again."
        if reason == "length" and not self.text and not self._called:
            thinking = ": the model was still reasoning when it was cut" if self.reasoning else ""
            return f"The reply has no answer{thinking}. {_limit(completion)} MassGen asks again."
        return None


def _what_is_wrong(call: ToolCall, completion: ChatCompletion) -> str:
    try:
        call.parse()
    except ResponseError as error:
        wrong = f"{error.message[:1].upper()}{error.message[1:]}."
    else:
        wrong = f"The call of tool {call.name!r} was truncated."
    if completion.finish_reason == "repetition":
        return f"{wrong} The model repeated itself, and repetition_detection ended the reply."
    # Servers do not always say that it was a limit that ended the reply.
    return f"{wrong} {_limit(completion)}" if "truncated" in wrong else wrong


def _limit(completion: ChatCompletion) -> str:
    """What to do when it was a limit that ended the reply."""
    usage = completion.usage
    length = f"It ended after {usage.completion_tokens} tokens: raise" if usage is not None else "Raise"
    return f"{length} max_tokens, or start the server with a longer --max-model-len."


def _wire_call(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments
    return {
        # A tool's result names its call by this id, so there must be one.
        "id": call.id or f"call_{uuid.uuid4().hex}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments if arguments.strip() else "{}"},
    }
