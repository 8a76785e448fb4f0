"""The request for a completion."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from vllmchat.chat.request import NEEDS
from vllmchat.checking.describe import as_mapping
from vllmchat.checking.validator import check_request, collect
from vllmchat.client.request import ModelRequest, replies_wanted
from vllmchat.completions.completion import decode_completion
from vllmchat.completions.prompt import count_prompts, encode_prompt
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.sampling.whole import check_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.checking.validator import Check, CheckedParams
    from vllmchat.completions.completion import TextCompletion
    from vllmchat.completions.prompt import Prompt
    from vllmchat.http.call import Response

PATH = "/completions"


def complete_request(
    prompt: Prompt | None,
    params: Mapping[str, object],
    check: Check,
    *,
    stream: bool,
    ask_usage: bool = False,
) -> ModelRequest[TextCompletion]:
    """Returns the request for a completion.

    Args:
        prompt: The prompt; None if the parameters have `prompt_embeds`.
        params: The keyword arguments of the call.
        check: Validates them.
        stream: Whether the completion is streamed.
        ask_usage: Whether to request the usage of a stream.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject, checked = completion_subject(prompt, params, check, stream=stream)
    read = partial(_read, expected=choices_wanted(subject, checked))
    return ModelRequest(PATH, subject, checked, read, stream, ask_usage, route_hint=NEEDS)


def completion_subject(
    prompt: Prompt | None, params: Mapping[str, object], check: Check, *, stream: bool = False
) -> tuple[dict[str, object], CheckedParams]:
    """Returns the part of the body with the prompt, and the validated parameters.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject, found = collect(lambda: _subject(prompt, params), dict[str, object]())
    return subject, check_request(found, check, params, stream=stream)


def _subject(prompt: Prompt | None, params: Mapping[str, object]) -> dict[str, object]:
    if prompt is not None:
        encoded = encode_prompt(prompt)
        if params.get("suffix") is not None and not _is_text(encoded):
            rule = "needs a text prompt, not token ids."
            raise InvalidRequestError([Problem("suffix", "", rule)])
        return {"prompt": encoded}
    extra = as_mapping(params.get("extra_body")) or {}
    if params.get("prompt_embeds") is None and "prompt_embeds" not in extra:
        raise InvalidRequestError([Problem("prompt", "None", "is required.")])
    return {}


def choices_wanted(subject: Mapping[str, object], params: CheckedParams) -> int:
    """Returns the number of choices in the response to a completion request; at least 1 if it is unknown."""
    prompt = cast("str | Sequence[object] | None", subject.get("prompt"))
    embeds = cast("str | Sequence[object] | None", params.fields.get("prompt_embeds"))
    if params.extra_body is not None and not params.extra_body.keys().isdisjoint(("prompt", "prompt_embeds")):
        prompt = embeds = None
    prompts = count_prompts(prompt) if prompt is not None else 0
    if embeds is not None:
        prompts += 1 if isinstance(embeds, str) else len(embeds)
    return max(prompts, 1) * replies_wanted(params)


def _is_text(prompt: str | Sequence[object]) -> bool:
    return isinstance(prompt, str) or isinstance(prompt[0], str)


def _read(reply: Response, expected: int) -> TextCompletion:
    completion = decode_completion(reply.body, head=reply.head)
    check_whole(completion.choices, expected, completion, reply.body)
    return completion
