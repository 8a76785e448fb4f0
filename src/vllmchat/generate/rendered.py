"""A prompt as the model reads it: what `render` gives and `generate` takes."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

import contextlib
from functools import cache
from typing import cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from vllmchat.checking.words import as_list
from vllmchat.wire import (
    Items,
    JsonObject,
    Text,
    Whole,
    WireModel,
    as_object,
    build,
    decode,
    first_problem,
    not_this,
)

_NOT_SENT_BACK = frozenset({"request_id", "model", "stream", "stream_options", "token_offsets"})


class RenderedPrompt(WireModel):
    """A prompt in tokens, with the sampling that was asked for.

    Give it to `generate` as it is, of the same provider or of another one whose server has the same model.
    """

    token_ids: Items[int] = Field(default_factory=list[int])
    """Ids of the prompt's tokens."""

    sampling_params: JsonObject = Field(default_factory=dict[str, object])
    """How to sample, in vLLM's own names, with the defaults of the model's generation config. Empty with servers before
    vLLM 0.18, which render the tokens only: give the sampling to `generate`."""

    request_id: Text = ""
    """The server's name for the request that rendered it."""

    model: str | None = None
    """The model that it was rendered for."""

    token_offsets: list[tuple[int, int]] | None = None
    """Where each token begins and ends in the text, in characters, when `return_token_offsets` asked for it. Since
    vLLM 0.25."""

    features: JsonObject | None = None
    """Images, audio and video of the prompt, processed."""

    content_parts: list[JsonObject] | None = None
    """Images, audio and video of the prompt, as they came."""

    reasoning_ended: bool | None = None
    """Whether the prompt ends after the reasoning."""

    reasoning_parser_kwargs: JsonObject | None = None
    """What it was rendered with, for the server's reasoning parser."""

    return_token_ids: bool | None = None
    """Whether `generate` is to tell the prompt's tokens."""

    output_mode: str | None = None
    """What `generate` is to give: `"tokens"` or `"text"`."""

    stream: bool | None = None
    """Of no meaning: the verb decides."""

    stream_options: JsonObject | None = None
    """Of no meaning: the verb decides."""

    cache_salt: str | None = None
    """The `cache_salt` that was asked for."""

    priority: Whole = 0
    """The `priority` that was asked for."""

    kv_transfer_params: JsonObject | None = None
    """The `kv_transfer_params` that were given."""

    ec_transfer_params: JsonObject | None = None
    """The `ec_transfer_params` that were given."""

    def to_request(self) -> dict[str, object]:
        """The prompt as the body of a request to generate from it: what is set, without what belongs to one call."""
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
    """Read the body of an answer to `/v1/chat/completions/render`.

    Raises:
        ResponseError: It is no prompt in tokens.
    """
    if body.lstrip().startswith(b"["):
        # Before vLLM 0.18: the conversation, and its prompts, of which there is one.
        old = _old_form(body)
        prompts = as_list(old[1]) if len(old) == 2 else None
        if prompts is not None and len(prompts) == 1:
            return _of_old_form(prompts[0], body)
    rendered = decode(RenderedPrompt, body, "a rendered prompt")
    _check(rendered, body)
    return rendered


def decode_all_rendered(body: bytes) -> list[RenderedPrompt]:
    """Read the body of an answer to `/v1/completions/render`.

    Raises:
        ResponseError: It is no list of prompts in tokens.
    """
    build(RenderedPrompt)
    try:
        rendered = _adapter().validate_json(body)
    except ValidationError as error:
        raise not_this("a list of rendered prompts", body, first_problem(error)) from error
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
    """A prompt as servers before vLLM 0.18 render it: the engine's own input."""
    fields = as_object(prompt) or {}
    if fields.get("type") != "token":
        # What else it consists of has no form in which it could be sent back.
        raise not_this("a rendered prompt", body, "it is not made of tokens alone")
    try:
        return RenderedPrompt.model_validate({"token_ids": fields.get("prompt_token_ids")})
    except ValidationError as error:
        raise not_this("a rendered prompt", body, first_problem(error)) from error


@cache
def _adapter() -> TypeAdapter[list[RenderedPrompt]]:
    return TypeAdapter(list[RenderedPrompt])


def _check(rendered: RenderedPrompt, body: bytes) -> None:
    if "token_ids" not in rendered.model_fields_set:
        raise not_this("a rendered prompt", body, "it has no token_ids")
