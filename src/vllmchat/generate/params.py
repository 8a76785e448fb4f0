"""The request parameters of generation from tokens. What they share with a chat's is written in `chat.params`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from typing_extensions import TypedDict

from vllmchat.chat.params import (
    CallBase,
    SamplingBase,
    SeveralBase,
    TopPBase,
    VLLMDecodingBase,
    VLLMSamplingBase,
)
from vllmchat.checking.rules import Bounds, Default, Since

__all__ = ["GenerateBase", "GenerateParams"]


class GenerateBase(TypedDict, total=False):
    """What only generation from tokens takes. A base: take `GenerateParams`."""

    max_tokens: Annotated[
        int | None, Bounds(ge=1), Default("what the context leaves; 16 in vLLM before 0.22")
    ]
    """How many tokens to generate at most.

    Range: at least 1. Default: what the context leaves; 16 in vLLM before 0.22.
    """
    logprobs: Annotated[int | None, Bounds(ge=-1)]
    """Return the log probability of each token, and of this many of the likeliest ones at its place.

    The server caps it (`--max-logprobs`, 20). -1 means the whole vocabulary.

    Range: at least -1.
    """
    detokenize: Annotated[bool | None, Default("True")]
    """Whether the server makes text of the tokens as they come, which it needs for `stop` and `output_mode="text"`.

    Default: True.
    """
    output_mode: Annotated[Literal["tokens", "text"] | None, Default('`"tokens"`'), Since("0.32")]
    """What comes back: tokens alone, or tokens and their text.

    Default: `"tokens"`. Since: vLLM 0.32.
    """
    content_parts: Annotated[Sequence[Mapping[str, object]] | None, Since("0.28")]
    """Images, audio and video of the prompt, as parts of a message; the server fetches them. Not with `features`.

    Since: vLLM 0.28.
    """
    features: Mapping[str, object] | None
    """Images, audio and video of the prompt, processed: `RenderedPrompt.features`, as it is."""
    reasoning_ended: Annotated[bool | None, Since("0.32")]
    """Whether the prompt ends after the reasoning, so that `structured_outputs` hold from the first token on.

    Since: vLLM 0.32.
    """
    reasoning_parser_kwargs: Annotated[Mapping[str, object] | None, Since("0.32")]
    """What the prompt was rendered with, for the server's reasoning parser: `RenderedPrompt` tells.

    Since: vLLM 0.32.
    """
    extra_sampling_params: Mapping[str, object] | None
    """Further fields of vLLM's own `SamplingParams`, as they are: the unchecked door, merged over the others."""


class GenerateParams(
    SamplingBase,
    TopPBase,
    SeveralBase,
    GenerateBase,
    VLLMSamplingBase,
    VLLMDecodingBase,
    CallBase,
    total=False,
    closed=True,
):
    """What `generate` takes.

    The model's generation config plays no part here: what is not given is what vLLM itself takes for neutral, and
    what was rendered into a `RenderedPrompt` holds.

    The version in the text of a parameter that chats have too is that of chats; the documentation lists where it is
    another here.
    """
