"""Prints replies: text to stdout as it comes, reasoning dimmed to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vllmchat.chat.events import Finished, ReasoningDelta, TextDelta, ToolCallDone
from vllmchat.cli.terminal import is_terminal, say, write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllmchat.chat.completion import ChatCompletion, ToolCall
    from vllmchat.chat.events import Event


class Printer:
    """Prints one reply.

    Args:
        reasoning: Whether to print the reasoning; None for: if both outputs are terminals.

    Attributes:
        text: The text so far.
    """

    def __init__(self, *, reasoning: bool | None = None) -> None:
        both = is_terminal(sys.stdout) and is_terminal(sys.stderr)
        self._shows_reasoning = both if reasoning is None else reasoning
        self._shown_reasoning = ""
        self._after_reasoning = False
        self._last = ""
        self.text = ""

    def print_events(self, events: Iterable[Event]) -> ChatCompletion | None:
        """Prints a stream as it comes; returns the whole reply."""
        whole: ChatCompletion | None = None
        for event in events:
            if isinstance(event, ReasoningDelta):
                self._print_reasoning(event.text)
            elif isinstance(event, TextDelta):
                self._print_text(event.text)
            elif isinstance(event, ToolCallDone):
                self._print_call(event.tool_call)
            elif isinstance(event, Finished):
                whole = event.completion
        return whole

    def print_whole(self, reply: ChatCompletion) -> None:
        """Prints a whole reply: the text of each choice."""
        for choice in reply.choices:
            if len(reply.choices) > 1:
                self.end()
                write(f"[{choice.index}]\n", sys.stderr, dim=True)
            self._print_reasoning(choice.message.reasoning or "")
            self._print_text(choice.message.content or "")
            for call in choice.message.tool_calls:
                self._print_call(call)

    def end(self) -> None:
        """Ends the last line."""
        self._end_reasoning()
        if self._last and not self._last.endswith("\n"):
            write("\n")
        self._last = ""

    def _print_reasoning(self, text: str) -> None:
        if not text:
            return
        self._after_reasoning = True
        if self._shows_reasoning and (text := text if self._shown_reasoning else text.lstrip("\n")):
            self._shown_reasoning += text
            write(text, sys.stderr, dim=True)

    def _print_text(self, text: str) -> None:
        self._end_reasoning()
        if self._after_reasoning:
            # Models end their reasoning with empty lines.
            text = text.lstrip("\n")
        if text:
            self._after_reasoning = False
            self._last = text
            self.text += text
            write(text)

    def _print_call(self, call: ToolCall) -> None:
        self.end()
        self._print_text(f"{call.name}({call.arguments})\n")

    def _end_reasoning(self) -> None:
        if shown := self._shown_reasoning:
            self._shown_reasoning = ""
            breaks = len(shown) - len(shown.rstrip("\n"))
            write("\n" * (2 - breaks), sys.stderr)


def note_end(reply: ChatCompletion) -> None:
    """Says on stderr why a reply is not what was asked for."""
    if reply.finish_reason == "length" and reply.reasoning and not reply.text:
        say(
            "the reply was cut off at its maximum length, while the model was reasoning. "
            "--max-tokens raises it, --no-enable-thinking switches reasoning off."
        )
    elif reply.finish_reason == "length":
        say("the reply was cut off at its maximum length. --max-tokens raises it.")
    elif reply.finish_reason == "content_filter":
        say("the server's filter ended the reply.")
    elif not reply.text and not reply.tool_calls:
        refusal = reply.message.refusal if reply.choices else None
        say(f"the model refused: {refusal}" if refusal else "the reply is empty.")
