"""The input of pooling models: text, tokens or conversations, one or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from vllmchat.chat.templating import TEMPLATE_RULES, check_conversation, fold_template
from vllmchat.checking.describe import as_list, format_value, type_name, wrong_type
from vllmchat.checking.validator import Validator, check_tokens
from vllmchat.errors import Problem
from vllmchat.pooling.params import ConversationInputBase

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllmchat.chat.completion import ChatMessage
    from vllmchat.chat.messages import Message
    from vllmchat.checking.validator import CheckedParams, CrossFieldRule, Explanation

    Inputs: TypeAlias = (
        str
        | Sequence[
            str
            | int
            | Message
            | ChatMessage
            | Mapping[str, str]
            | Sequence[int | Message | ChatMessage | Mapping[str, str]]
        ]
    )
    """A text, a list of texts, the tokens of a text, a list of these, a conversation, or a list of conversations.

    The model's chat template turns a conversation into text. Lists of conversations: only for `embed`, since vLLM 0.24.
    """
    # Not written as six kinds of lists, because mypy recognizes the messages in a literal only in a single kind of
    # list. A check before sending makes sure that all items are of one kind.

_WHAT: Final = "a text, a list of texts, token ids, a list of these, or a conversation"

_MOST_PROBLEMS: Final = 5
"""A list of thousands of wrong items is one mistake."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A checked input.

    Attributes:
        fields: The fields to send.
        count: The number of results.
        conversation: Whether it goes through a chat template.
        problems: What is wrong with it.
    """

    fields: Mapping[str, object]
    count: int = 1
    conversation: bool = False
    problems: Sequence[Problem] = ()

    def expected_count(self, params: CheckedParams) -> int | None:
        """The expected number of results; None if `extra_body` may have replaced the input."""
        extra = params.extra_body or {}
        return None if "input" in extra or "messages" in extra else self.count


class Validators:
    """The parameters of a method, for text and for conversations.

    Args:
        method: The method.
        params: All its parameters.
        of_texts: Those that it accepts with text or tokens.
        cross_field_rules: The rules between its parameters.
        own: The other names that the method explains itself.
    """

    def __init__(
        self,
        method: str,
        params: type,
        of_texts: type,
        cross_field_rules: Mapping[str, CrossFieldRule] | None = None,
        own: Mapping[str, Explanation] | None = None,
    ) -> None:
        self._make: Callable[[bool], Validator] = lambda conversation: Validator(
            f"VLLMProvider.{method}",
            params if conversation else of_texts,
            {**(cross_field_rules or {}), **(TEMPLATE_RULES if conversation else {})},
            own={
                **(
                    {}
                    if conversation
                    else dict.fromkeys(ConversationInputBase.__optional_keys__, _FOR_CONVERSATIONS)
                ),
                **(own or {}),
            },
            finish=fold_template if conversation else None,
        )
        self._made: dict[bool, Validator] = {}

    def of(self, subject: Subject) -> Validator:
        """The one for an input."""
        kind = subject.conversation
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        return self._made[kind]


RENAMED: Final[Mapping[str, Explanation]] = dict.fromkeys(
    ("softmax", "activation"), ("was removed in vLLM 0.16.", "Write use_activation=... instead.")
)
"""The older names of `use_activation`."""

_FOR_CONVERSATIONS: Final = (
    "is only for conversations, which go through a chat template; this input is not a conversation.",
    None,
)


def check_input(value: object, *, batches: bool) -> Subject:
    """An input as it is sent, and what is wrong with it.

    Args:
        value: The input.
        batches: Whether it may be a list of conversations.
    """
    if isinstance(value, str):
        return Subject({"input": value})
    items = as_list(value)
    if items is None:
        hint = "Wrap it in [...]." if _is_message(value) else None
        return _wrong(wrong_type(value, "input", _WHAT, hint))
    if not items:
        return _wrong(Problem("input", format_value(value), "must not be empty."))
    first = items[0]
    if isinstance(first, str):
        return _texts(items)
    if _is_message(first):
        messages, found = check_conversation(items, "input")
        return Subject({"messages": messages}, 1, True, found)
    inner = as_list(first)
    if inner is None:
        return Subject({"input": items}, 1, False, check_tokens(items, "input"))
    if inner and _is_message(inner[0]):
        return _conversations(items, batches=batches)
    return _token_lists(items)


def _wrong(problem: Problem) -> Subject:
    return Subject({}, problems=(problem,))


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "to_request")


def _texts(items: Sequence[object]) -> Subject:
    problems: Sequence[Problem] = ()
    if not all(isinstance(item, str) for item in items):
        wrong = [(place, item) for place, item in enumerate(items) if not isinstance(item, str)]
        problems = [
            wrong_type(item, f"input[{place}]", "a string like the first one")
            for place, item in wrong[:_MOST_PROBLEMS]
        ]
    return Subject({"input": items}, len(items), problems=problems)


def _token_lists(items: Sequence[object]) -> Subject:
    problems: list[Problem] = []
    for place, item in enumerate(items):
        path = f"input[{place}]"
        problems.extend(check_tokens(item, path))
        if not problems and not cast("Sequence[object]", item):
            problems.append(Problem(path, format_value(item), "must not be empty."))
        if len(problems) >= _MOST_PROBLEMS:
            break
    return Subject({"input": items}, len(items), problems=problems)


def _conversations(items: Sequence[object], *, batches: bool) -> Subject:
    if not batches:
        rule = "must be one conversation: this route does not accept a list of conversations."
        return _wrong(
            Problem("input", f"<{type_name(items)} of {len(items)}>", rule, "Make one call for each.")
        )
    problems: list[Problem] = []
    conversations: list[list[Mapping[str, object]]] = []
    for place, item in enumerate(items):
        path = f"input[{place}]"
        if isinstance(item, str):
            problems.append(wrong_type(item, path, "a list of messages like the first one"))
        else:
            messages, found = check_conversation(item, path)
            problems.extend(found)
            if not found and not messages:
                problems.append(Problem(path, format_value(item), "must not be empty."))
            conversations.append(messages)
        if len(problems) >= _MOST_PROBLEMS:
            break
    return Subject({"messages": conversations}, len(items), True, problems)
