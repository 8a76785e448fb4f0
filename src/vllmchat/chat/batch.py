"""Many conversations in one request: `/v1/chat/completions/batch`.

The route accepts the body of a chat, but it reads some of the fields differently or drops them silently. Such fields
are rejected here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from vllmchat.chat.check import check_vllm
from vllmchat.chat.completion import check_complete, decode_completion
from vllmchat.chat.messages import encode_messages
from vllmchat.checking.describe import as_list, as_mapping, format_value, type_name
from vllmchat.client.request import ModelRequest
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.wire.decode import sort_by_index

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.checking.validator import CheckedParams
    from vllmchat.http.call import Response

NEEDS: Final = "Batches of chats need vLLM 0.19 or newer, and a model that generates."

_ONE_BY_ONE: Final = "Send the conversations one by one, with .chat(...)."
_TOOLS: Final = "is not supported in batches: the server would offer no tools and parse no calls."
_TRANSFER: Final = (
    "is not supported in batches: it describes a single prompt, and the server would not return the result."
)
_NOT_FOR_BATCHES: Final[Mapping[str, tuple[Sequence[object], str]]] = {
    "tools": ((None,), _TOOLS),
    "tool_choice": ((None, "none"), _TOOLS),
    "n": ((None, 1), "must be 1 in a batch: there is one reply per conversation."),
    "use_beam_search": ((None, False), "is not supported in batches."),
    "prompt_logprobs": (
        (None, 0),
        "is not supported in batches: the server would compute them but not return them.",
    ),
    "return_prompt_text": ((None, False), "is not supported in batches: the server would not return it."),
    "routed_experts_prompt_start": (
        (None,),
        "is not supported in batches: the server would not return the experts.",
    ),
    "kv_transfer_params": ((None,), _TRANSFER),
    "ec_transfer_params": ((None,), _TRANSFER),
}
"""The values that a batch can have, and what is wrong with all others."""


def batch_request(
    conversations: Sequence[Messages], params: Mapping[str, object]
) -> ModelRequest[ChatCompletion]:
    """The request for replies to many conversations.

    Args:
        conversations: The conversations.
        params: The keyword arguments of the call: `VLLMChatParams`.

    Raises:
        InvalidRequestError: With every problem found.
    """
    problems: list[Problem] = []
    checked: CheckedParams | None = None
    try:
        checked = check_vllm(params, stream=False)
    except InvalidRequestError as error:
        problems += error.problems
    refused = _not_for_batches(params)
    names = {problem.parameter for problem in refused}
    problems = [each for each in problems if each.parameter.partition("[")[0].partition(".")[0] not in names]
    messages, wrong = _encoded(conversations)
    problems = [*wrong, *problems, *refused]
    if problems or checked is None:
        raise InvalidRequestError(problems)
    replaced = "messages" in (checked.extra_body or {})
    read = partial(_read, expected=None if replaced else len(messages))
    return ModelRequest("/chat/completions/batch", {"messages": messages}, checked, read, route_hint=NEEDS)


def _encoded(conversations: object) -> tuple[list[list[Mapping[str, object]]], list[Problem]]:
    items = as_list(conversations)
    if items is None:
        rule = f"must be a list of conversations, not {type_name(conversations)}."
        return [], [Problem("conversations", "", rule, "For one conversation, call .chat(...).")]
    encoded: list[list[Mapping[str, object]]] = []
    problems: list[Problem] = []
    for place, conversation in enumerate(items):
        path = f"conversations[{place}]"
        if isinstance(conversation, Mapping) or hasattr(conversation, "to_request"):
            rule = "must be a text or a list of messages, not one message."
            hint = "For one conversation, call .chat(...); for several, put each into a list."
            problems.append(Problem(path, "", rule, hint))
            break
        try:
            messages = encode_messages(cast("Messages", conversation))
        except InvalidRequestError as error:
            problems += [
                Problem(
                    f"{path}{each.parameter.removeprefix('messages')}", each.value, each.rule, each.suggestion
                )
                for each in error.problems
            ]
            continue
        if not messages:
            problems.append(Problem(path, "[]", "must not be empty."))
        encoded.append(messages)
    if not encoded and not problems:
        problems.append(Problem("conversations", "[]", "must not be empty."))
    return encoded, problems


def _not_for_batches(params: Mapping[str, object]) -> list[Problem]:
    problems = [
        Problem(name, format_value(params[name]), rule, _ONE_BY_ONE)
        for name, (harmless, rule) in _NOT_FOR_BATCHES.items()
        if params.get(name) not in harmless
    ]
    extra = as_mapping(params.get("extra_body")) or {}
    return problems + [
        Problem(f"extra_body.{name}", "", _TOOLS, _ONE_BY_ONE)
        for name in ("tools", "tool_choice")
        if name in extra
    ]


def _read(reply: Response, *, expected: int | None) -> ChatCompletion:
    completion = decode_completion(reply.body, head=reply.head)
    check_complete(completion, 1, reply.body)
    sort_by_index(completion.choices, expected, "a batch response", reply)
    return completion
