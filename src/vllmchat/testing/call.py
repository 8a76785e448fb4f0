"""A call that a double answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from vllmchat.chat.messages import Message


@dataclass(frozen=True, slots=True)
class Call:
    """A call for generated text, as the server receives it.

    Attributes:
        model: The name of the model.
        messages: The conversation; empty for a completion.
        prompt: The prompt of a completion; None for a chat.
        params: The other parameters, as they are sent: `enable_thinking=True` is in `chat_template_kwargs`.
        stream: Whether the reply is streamed.
    """

    model: str
    messages: list[Message]
    prompt: str | list[str] | list[int] | list[list[int]] | None
    params: dict[str, object]
    stream: bool

    @property
    def text(self) -> str:
        """The text of the last message, or of the prompt."""
        if not self.messages:
            return self.prompt if isinstance(self.prompt, str) else ""
        content = self.messages[-1].get("content")
        if isinstance(content, list):
            parts = [as_object(part) or {} for part in cast("list[object]", content)]
            return "".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))
        return content if isinstance(content, str) else ""

    @property
    def tool_names(self) -> list[str]:
        """The names of the functions that the model may call."""
        tools = [as_object(tool) or {} for tool in cast("list[object]", self.params.get("tools") or [])]
        return [str((as_object(tool.get("function")) or {}).get("name", "")) for tool in tools]

    @property
    def n(self) -> int:
        """How many replies are requested."""
        n = self.params.get("n")
        return n if isinstance(n, int) and n > 0 else 1


def call_of(body: dict[str, object]) -> Call:
    """The call that the body of a request makes. The body is used up."""
    model, messages, prompt = body.pop("model", ""), body.pop("messages", None), body.pop("prompt", None)
    stream = body.pop("stream", False) is True
    return Call(
        str(model or ""),
        cast("list[Message]", messages) if isinstance(messages, list) else [],
        cast("str | list[str] | None", prompt),
        body,
        stream,
    )
