"""Which tool calls of a reply a limit has cut, although the reply does not say so.

vLLM 0.10 to 0.32 give `"tool_calls"` as the reason to finish also where `max_tokens` ended the reply in the middle of a
call, and their parsers may have closed its JSON by then: `{}`, `{"city": ""}`, or no arguments at all. What the request
asked for and what the usage counts show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vllmchat.chat.completion import CUT_REASONS, mark_cut
from vllmchat.checking.words import as_list, as_mapping
from vllmchat.post import replies_wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.chat.completion import ChatCompletion, ToolCall, Usage
    from vllmchat.checking.dialect import CheckedParams


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What a request says of the calls in its reply.

    Attributes:
        max_tokens: How many tokens each choice may have; None where the request does not say.
        choices: How many choices it asks for.
        tools: The tools, as they are sent.
    """

    max_tokens: int | None = None
    choices: int = 1
    tools: Sequence[object] = ()

    def leave_open(self, arguments: str, finish_reason: str) -> bool:
        """Whether the last call of a choice that has finished cannot be judged before the stream ends.

        Args:
            arguments: The call's.
            finish_reason: Why the choice ended.
        """
        if finish_reason in CUT_REASONS:
            return False
        return self.max_tokens is not None or not arguments.strip()

    def mark(
        self,
        completion: ChatCompletion,
        usages: Mapping[int, Usage | None] | None = None,
        *,
        ended: bool = True,
    ) -> None:
        """Marks the calls of a reply that were cut.

        Tokens come in order, so only the last call of a choice can be.

        Args:
            completion: The reply.
            usages: What is known of single choices, by index.
            ended: Whether it is whole. Of a stream that goes on, what only the usage can tell counts as cut.
        """
        for choice in completion.choices:
            calls, reason = choice.message.tool_calls, choice.finish_reason
            if not calls or reason is None:
                continue
            own = usages.get(choice.index) if usages is not None and self.choices > 1 else None
            tokens = own.completion_tokens if own is not None else self._tokens(completion.usage)
            waits = not ended and tokens is None and self.leave_open(calls[-1].arguments, reason)
            if waits or self._cuts(calls[-1], reason, tokens):
                mark_cut(calls[-1])

    def _cuts(self, call: ToolCall, finish_reason: str, tokens: int | None) -> bool:
        below = tokens is not None and self.max_tokens is not None and tokens < self.max_tokens
        if finish_reason == "tool_calls" and tokens is not None and self.max_tokens is not None and not below:
            return True
        if call.arguments.strip():
            return False
        # Of a function without parameters nothing can be missing. Some parsers stream nothing for `{}` either; then
        # it takes the usage to tell an optional argument that was not given from one that was cut.
        takes, requires = self._parameters(call.name)
        return takes and (requires or not below)

    def _tokens(self, usage: Usage | None) -> int | None:
        """How many tokens a choice has, by the usage of all of them; None where that is not known."""
        if usage is None:
            return None
        total = usage.completion_tokens
        if self.choices == 1 or self.max_tokens is None:
            return total
        if total >= self.choices * self.max_tokens:
            return self.max_tokens
        most = total - (self.choices - 1)  # each of the others has one at least
        return most if most < self.max_tokens else None

    def _parameters(self, name: str) -> tuple[bool, bool]:
        """Whether a function takes parameters, and whether it requires some. An unknown one takes them."""
        for tool in self.tools:
            function = as_mapping((as_mapping(tool) or {}).get("function")) or {}
            if function.get("name") == name:
                schema = as_mapping(function.get("parameters")) or {}
                return any(schema.get(key) for key in _TAKING), bool(schema.get("required"))
        return True, False


def limits_of(params: CheckedParams) -> CallLimits:
    """What the parameters of a request say of the calls in its reply."""
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
"""What a schema says that allows an object to have something in it."""
