"""The request for a chat."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from vllmchat.chat.templating import check_conversation
from vllmchat.checking.validator import CheckedParams, check_request
from vllmchat.client.request import ModelRequest, replies_wanted
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.chat import check, completion as completions, limits as call_limits
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.checking.validator import Check
    from vllmchat.errors import Problem
    from vllmchat.http.call import Response
else:
    check = LazyModule("vllmchat.chat.check")
    completions = LazyModule("vllmchat.chat.completion")
    call_limits = LazyModule("vllmchat.chat.limits")

NEEDS: Final = (
    "Check base_url, and that the server has a generating model: one started with --runner pooling does not."
)
"""Hint for a server without this route."""


def vllm_request(
    messages: Messages, params: Mapping[str, object], *, stream: bool, found: Sequence[Problem] = ()
) -> ModelRequest[ChatCompletion]:
    """Returns the request for a chat with a vLLM server; see `chat_request`."""
    return chat_request(messages, _check_vllm, params, stream=stream, ask_usage=True, found=found)


def openai_request(
    messages: Messages, params: Mapping[str, object], *, stream: bool, found: Sequence[Problem] = ()
) -> ModelRequest[ChatCompletion]:
    """Returns the request for a chat with any OpenAI-compatible server; see `chat_request`."""
    return chat_request(messages, _check_openai, params, stream=stream, ask_usage=False, found=found)


# A call without parameters does not import them.


def _check_vllm(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    return check.VLLM_CHAT.check(params, stream=stream) if params else CheckedParams({})


def _check_openai(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    return check.OPENAI_CHAT.check(params, stream=stream) if params else CheckedParams({})


def chat_request(
    messages: Messages,
    checked_by: Check,
    params: Mapping[str, object],
    *,
    stream: bool,
    ask_usage: bool,
    found: Sequence[Problem] = (),
) -> ModelRequest[ChatCompletion]:
    """Returns the request for a chat.

    Args:
        messages: The conversation so far; a string is one user message.
        checked_by: Validates the parameters.
        params: The keyword arguments of the call.
        stream: Whether the reply is streamed.
        ask_usage: Whether to request the usage of a stream, unless the parameters set that.
        found: Problems of the call found so far.

    Raises:
        InvalidRequestError: With every problem found.
    """
    encoded, wrong = check_conversation(messages, "messages")
    checked = check_request([*wrong, *found], checked_by, params, stream=stream)
    return ModelRequest(
        "/chat/completions",
        {"messages": encoded},
        checked,
        partial(_read, params=checked),
        stream,
        ask_usage,
        route_hint=NEEDS,
    )


def _read(reply: Response, params: CheckedParams) -> ChatCompletion:
    completion = completions.decode_completion(reply.body, head=reply.head)
    if any(choice.message.tool_calls for choice in completion.choices):
        call_limits.limits_of(params).mark(completion)
    completions.check_complete(completion, replies_wanted(params), reply.body)
    return completion
