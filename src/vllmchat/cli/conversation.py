"""A conversation that grows with each message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vllmchat.cli.replies import Printer, note_end

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatMessage
    from vllmchat.chat.messages import History, Message
    from vllmchat.cli.server import AnyProvider


class Conversation:
    """A conversation.

    Args:
        params: The parameters of each request.
        system: The system message, or None.
        reasoning: Whether to print reasoning; None for: if both outputs are terminals.

    Attributes:
        system: The system message; empty for none.
    """

    def __init__(self, params: dict[str, Any], system: str | None, *, reasoning: bool | None) -> None:
        self.system = system or ""
        self._params = params
        self._reasoning = reasoning
        self._messages: History = []

    def send(self, llm: AnyProvider, text: str) -> None:
        """Sends a message, and prints the reply as it comes.

        If that is interrupted, the conversation keeps the message and what had arrived; if nothing had, neither. If it
        fails, it keeps neither.

        Raises:
            VLLMChatError: The reply is missing or incomplete.
            KeyboardInterrupt: The user stopped it.
        """
        self._messages.append({"role": "user", "content": text})
        printer = Printer(reasoning=self._reasoning)
        reply: Message | ChatMessage | None = None
        try:
            stream = llm.stream(self._sent(), **self._params)
            try:
                with stream:
                    printer.print_events(stream.events())
                reply = stream.completion.message
            except KeyboardInterrupt:
                if printer.text:
                    reply = {"role": "assistant", "content": printer.text}
                raise
        finally:
            printer.end()
            if reply is None:
                self._messages.pop()
            else:
                self._messages.append(reply)
        note_end(stream.completion)

    def reset(self) -> None:
        """Forgets all messages but the system message."""
        self._messages.clear()

    def to_json(self) -> str:
        """Returns the messages as a program sends them."""
        rows = [message if isinstance(message, dict) else message.to_request() for message in self._sent()]
        return f"{json.dumps(rows, indent=2, ensure_ascii=False)}\n"

    def _sent(self) -> History:
        return (
            [{"role": "system", "content": self.system}, *self._messages]
            if self.system
            else [*self._messages]
        )
