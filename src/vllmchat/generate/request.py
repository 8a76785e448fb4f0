"""Requests to render a prompt, and to generate from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from vllmchat.chat.check import VLLM_CHAT
from vllmchat.chat.templating import check_conversation
from vllmchat.checking.describe import as_list, format_value, wrong_type
from vllmchat.checking.validator import check_request, check_tokens, collect
from vllmchat.client.request import ModelRequest
from vllmchat.completions.check import check_vllm as check_completion
from vllmchat.completions.request import completion_subject
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.generate.check import check_generate
from vllmchat.generate.generation import decode_generation
from vllmchat.generate.rendered import RenderedPrompt, decode_all_rendered, decode_rendered
from vllmchat.sampling.whole import check_whole
from vllmchat.wire.decode import with_record

if TYPE_CHECKING:
    from vllmchat.chat.messages import Messages
    from vllmchat.completions.prompt import Prompt
    from vllmchat.generate.generation import Generation
    from vllmchat.http.call import Response

NEEDS: Final = (
    "Rendering (vLLM 0.15 or newer) and generating from tokens (0.11.1 or newer) need a generating model. "
    "Since vLLM 0.30, they also need a server that was started with --enable-scale-out."
)

TokenPrompt: TypeAlias = Sequence[int] | RenderedPrompt
"""A list of token ids, or a prompt from `render`."""


def render_request(messages: Messages, params: Mapping[str, object]) -> ModelRequest[RenderedPrompt]:
    """Returns the request to render a conversation.

    Raises:
        InvalidRequestError: With every problem found.
    """
    encoded, found = check_conversation(messages, "messages")
    checked = check_request(found, VLLM_CHAT.check, params)
    return ModelRequest(
        "/chat/completions/render", {"messages": encoded}, checked, _read_rendered, route_hint=NEEDS
    )


def render_completion_request(
    prompt: Prompt | None, params: Mapping[str, object]
) -> ModelRequest[list[RenderedPrompt]]:
    """Returns the request to render the prompts of a completion.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject, checked = completion_subject(prompt, params, check_completion)
    return ModelRequest("/completions/render", subject, checked, _read_all_rendered, route_hint=NEEDS)


def generate_request(
    prompt: TokenPrompt, params: Mapping[str, object], *, stream: bool
) -> ModelRequest[Generation]:
    """Returns the request to generate from a prompt.

    Args:
        prompt: The prompt. `params` override the parameters rendered into it.
        params: The keyword arguments of the call.
        stream: Whether the generation is streamed.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject, found = collect(lambda: _encoded(prompt), dict[str, object]())
    checked = check_request(found, check_generate, params, stream=stream)
    sampling = {
        **cast("Mapping[str, object]", subject["sampling_params"]),
        **cast("Mapping[str, object]", checked.fields["sampling_params"]),
    }
    mode = checked.fields.get("output_mode", subject.get("output_mode"))
    if "output_mode" in (checked.extra_body or {}):
        mode = None
    return ModelRequest(
        "/inference/v1/generate",
        {**subject, **checked.fields, "sampling_params": sampling},
        checked.with_fields({}),
        partial(_read, mode=mode, expected=generations_wanted(sampling)),
        stream,
        ask_usage=True,
        outside_v1=True,
        route_hint=NEEDS,
        whole_too=True,  # vLLM ignores `stream` here, at least up to 0.19
    )


def _encoded(prompt: object) -> dict[str, object]:
    subject: dict[str, object] = prompt.to_request() if isinstance(prompt, RenderedPrompt) else {}
    path = "prompt.token_ids" if subject else "prompt"
    ids = _ids(subject.get("token_ids", prompt))
    problems = check_tokens(ids, path) if ids else [Problem(path, "[]", "must not be empty.")]
    if problems:
        raise InvalidRequestError(problems)
    return {"sampling_params": {}, **subject, "token_ids": ids}


def _ids(value: object) -> Sequence[object]:
    what = "a list of token ids or a RenderedPrompt"
    if isinstance(value, str):
        hint = "Call .complete(...), or convert it with .tokenize(...) or .render_completion(...)."
        raise InvalidRequestError(
            [Problem("prompt", format_value(value), f"must be {what}, not a string.", hint)]
        )
    ids = as_list(value)
    if ids is None:
        raise InvalidRequestError([wrong_type(value, "prompt", what)])
    return ids


def _read(reply: Response, *, mode: object, expected: int) -> Generation:
    generation = decode_generation(reply.body, mode)
    check_whole(generation.choices, expected, generation, reply.body)
    return with_record(generation, reply.head)


def generations_wanted(sampling: Mapping[str, object]) -> int:
    """Returns the number of choices that sampling parameters request."""
    n = sampling.get("n")
    return max(n, 1) if isinstance(n, int) else 1


def _read_rendered(reply: Response) -> RenderedPrompt:
    return with_record(decode_rendered(reply.body), reply.head)


def _read_all_rendered(reply: Response) -> list[RenderedPrompt]:
    return [with_record(each, reply.head) for each in decode_all_rendered(reply.body)]
