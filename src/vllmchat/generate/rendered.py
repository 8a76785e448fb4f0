"""Rendered prompts: what `render` returns and `generate` accepts."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

import contextlib
from functools import cache
from typing import cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from vllmchat.checking.describe import as_list
from vllmchat.wire.decode import (
    JsonObject,
    LenientInt,
    LenientList,
    LenientStr,
    Received,
    as_object,
    decode,
    ensure_built,
    first_problem,
    unexpected_body,
)

_NOT_SENT_BACK = frozenset({"request_id", "model", "stream", "stream_options", "token_offsets"})


class RenderedPrompt(Received):
    """A prompt as tokens, with the requested sampling parameters.

    Pass it unchanged to `generate`, of the same provider or of another whose server has the same model.
    """

    token_ids: LenientList[int] = Field(default_factory=list[int])
    """Ids of the prompt tokens."""

    sampling_params: JsonObject = Field(default_factory=dict[str, object])
    """Sampling parameters, under vLLM's names, with the defaults from the model's generation config. Empty from servers
    before vLLM 0.18, which return only the tokens: pass the sampling parameters to `generate`."""

    request_id: LenientStr = ""
    """The id of the request that rendered it."""

    model: str | None = None
    """The model that it was rendered for."""

    token_offsets: list[tuple[int, int]] | None = None
    """Start and end of each token in the text, in characters, if `return_token_offsets` requested them. Since vLLM
    0.25."""

    features: JsonObject | None = None
    """Images, audio and video in the prompt, already processed."""

    content_parts: list[JsonObject] | None = None
    """Images, audio and video in the prompt, unprocessed."""

    reasoning_ended: bool | None = None
    """Whether the prompt ends after the reasoning."""

    reasoning_parser_kwargs: JsonObject | None = None
    """What it was rendered with, for the server's reasoning parser."""

    return_token_ids: bool | None = None
    """Whether `generate` should return the prompt tokens."""

    output_mode: str | None = None
    """What `generate` should return: `"tokens"`, `"text"` or `"derender"`."""

    parse_context: JsonObject | None = None
    """What `generate(prompt, output_mode="derender")` needs of the chat. Since vLLM 0.33."""

    stream: bool | None = None
    """Unused: the method decides whether to stream."""

    stream_options: JsonObject | None = None
    """Unused: the method decides whether to stream."""

    cache_salt: str | None = None
    """The requested `cache_salt`."""

    priority: LenientInt = 0
    """The requested `priority`."""

    kv_transfer_params: JsonObject | None = None
    """The requested `kv_transfer_params`."""

    ec_transfer_params: JsonObject | None = None
    """The requested `ec_transfer_params`."""

    def to_request(self) -> dict[str, object]:
        """Returns the prompt as the body of a `generate` request, without fields that belong to a single call."""
        fields: dict[str, object] = {"token_ids": self.token_ids, "sampling_params": self.sampling_params}
        dumped = {
            **{name: getattr(self, name) for name in type(self).model_fields},
            **(self.model_extra or {}),
        }
        for name, value in dumped.items():
            if name not in _NOT_SENT_BACK and name not in fields and value is not None:
                fields[name] = value
        return fields


def decode_rendered(body: bytes) -> RenderedPrompt:
    """Parses the body of a response of `/v1/chat/completions/render`.

    Raises:
        ResponseError: It is not a rendered prompt.
    """
    if body.lstrip().startswith(b"["):
        # Before vLLM 0.18: the conversation, and a list with its prompt.
        old = _old_form(body)
        prompts = as_list(old[1]) if len(old) == 2 else None
        if prompts is not None and len(prompts) == 1:
            return _of_old_form(prompts[0], body)
    rendered = decode(RenderedPrompt, body, "a rendered prompt")
    _check(rendered, body)
    return rendered


def decode_all_rendered(body: bytes) -> list[RenderedPrompt]:
    """Parses the body of a response of `/v1/completions/render`.

    Raises:
        ResponseError: It is not a list of rendered prompts.
    """
    ensure_built(RenderedPrompt)
    try:
        rendered = _adapter().validate_json(body)
    except ValidationError as error:
        raise unexpected_body("a list of rendered prompts", body, first_problem(error)) from error
    if rendered and "prompt_token_ids" in (rendered[0].model_extra or {}):
        return [_of_old_form(each, body) for each in _old_form(body)]
    for each in rendered:
        _check(each, body)
    return rendered


def _old_form(body: bytes) -> list[object]:
    value: object = None
    with contextlib.suppress(ValueError):
        value = from_json(body)
    return cast("list[object]", value) if isinstance(value, list) else []


def _of_old_form(prompt: object, body: bytes) -> RenderedPrompt:
    """Parses a prompt from a server before vLLM 0.18: the engine's own input."""
    fields = as_object(prompt) or {}
    if fields.get("type") != "token":
        # Anything other than tokens could not be sent back.
        raise unexpected_body("a rendered prompt", body, "it does not consist of tokens only")
    try:
        return RenderedPrompt.model_validate({"token_ids": fields.get("prompt_token_ids")})
    except ValidationError as error:
        raise unexpected_body("a rendered prompt", body, first_problem(error)) from error


@cache
def _adapter() -> TypeAdapter[list[RenderedPrompt]]:
    return TypeAdapter(list[RenderedPrompt])


def _check(rendered: RenderedPrompt, body: bytes) -> None:
    if "token_ids" not in rendered.model_fields_set:
        raise unexpected_body("a rendered prompt", body, "it has no token_ids")
