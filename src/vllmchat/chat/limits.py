"""Detects tool calls that `max_tokens` truncated, although the reply does not say so.

vLLM 0.10 to 0.32 return the finish reason `"tool_calls"` even if `max_tokens` ended the reply in the middle of a call,
and their parsers may have closed its JSON: `{}`, `{"city": ""}`, or no arguments at all. The request and the usage
show whether the call was truncated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vllmchat.chat.completion import mark_truncated
from vllmchat.checking.describe import as_list, as_mapping
from vllmchat.client.request import replies_wanted
from vllmchat.wire.usage import calls_tools, truncates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.chat.completion import ChatCompletion, ChatMessage, ToolCall
    from vllmchat.checking.validator import CheckedParams
    from vllmchat.wire.usage import Usage


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What a request says about tool calls in its reply.

    Attributes:
        max_tokens: Maximum number of tokens per choice; None if the request does not set it.
        choices: How many choices it requests.
        tools: The tools, as they are sent.
    """

    max_tokens: int | None = None
    choices: int = 1
    tools: Sequence[object] = ()

    def leave_open(self, arguments: str, finish_reason: str | None) -> bool:
        """Whether it is unknown until the end of the stream if the last call of a finished choice was truncated.

        Args:
            arguments: The call's arguments.
            finish_reason: Why the choice ended.
        """
        if truncates(finish_reason):
            return False
        return self.max_tokens is not None or not arguments.strip()

    def mark(
        self,
        completion: ChatCompletion,
        usages: Mapping[int, Usage | None] | None = None,
        *,
        ended: bool = True,
    ) -> None:
        """Marks the truncated calls of a reply.

        Tokens are generated in order, so only the last call of a choice can be truncated.

        Args:
            completion: The reply.
            usages: The usage of single choices, by index, if known.
            ended: Whether the reply is complete. If not, a call that only the usage can judge counts as truncated.
        """
        for choice in completion.choices:
            calls, reason = choice.message.tool_calls, choice.finish_reason
            if not calls or (reason is None and not ended):
                continue
            own = usages.get(choice.index) if usages is not None and self.choices > 1 else None
            tokens = own.completion_tokens if own is not None else self._tokens(completion.usage)
            waits = not ended and tokens is None and self.leave_open(calls[-1].arguments, reason)
            if waits or self._cuts(calls[-1], reason, tokens):
                mark_truncated(calls[-1])

    def mark_message(self, message: ChatMessage) -> None:
        """Marks the last call of a message whose reply is unknown, if it may have been truncated."""
        if message.tool_calls and self._cuts(message.tool_calls[-1], "tool_calls", None):
            mark_truncated(message.tool_calls[-1])

    def _cuts(self, call: ToolCall, finish_reason: str | None, tokens: int | None) -> bool:
        below = tokens is not None and self.max_tokens is not None and tokens < self.max_tokens
        if (
            (finish_reason is None or calls_tools(finish_reason))
            and tokens is not None
            and self.max_tokens is not None
            and not below
        ):
            return True
        if call.arguments.strip():
            return False
        # Without parameters, nothing can be missing. Some parsers also stream nothing for `{}`; then only the usage
        # shows whether optional arguments were left out or truncated.
        takes, requires = self._parameters(call.name)
        return takes and (requires or not below)

    def _tokens(self, usage: Usage | None) -> int | None:
        """Returns the number of tokens of a choice, derived from the usage of all choices; None if unknown."""
        if usage is None:
            return None
        total = usage.completion_tokens
        if self.choices == 1 or self.max_tokens is None:
            return total
        if total >= self.choices * self.max_tokens:
            return self.max_tokens
        most = total - (self.choices - 1)  # each of the others has at least one
        return most if most < self.max_tokens else None

    def _parameters(self, name: str) -> tuple[bool, bool]:
        """Whether a function accepts parameters, and whether it requires some. An unknown one accepts them."""
        for tool in self.tools:
            function = as_mapping((as_mapping(tool) or {}).get("function")) or {}
            if function.get("name") == name:
                schema = as_mapping(function.get("parameters")) or {}
                return any(schema.get(key) for key in _TAKING), bool(schema.get("required"))
        return True, False


def limits_of(params: CheckedParams) -> CallLimits:
    """Returns what the parameters of a request say about tool calls in its reply."""
    fields = {**params.fields, **(params.extra_body or {})}
    limit = fields.get("max_completion_tokens")
    if limit is None:
        limit = fields.get("max_tokens")
    tools = as_list(fields.get("tools")) or ()
    return CallLimits(limit if isinstance(limit, int) else None, replies_wanted(params), tools)


_TAKING: Final = (
    "properties",
    "additionalProperties",
    "patternProperties",
    "required",
    "$ref",
    "anyOf",
    "oneOf",
    "allOf",
)
"""Keys of a schema that allow an object to have properties."""
