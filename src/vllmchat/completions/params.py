"""The request parameters of a completion. Those shared with chats are in `chat.params`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Sequence
from typing import Annotated, Any

from typing_extensions import TypedDict, TypeForm

from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import Bounds, Default, Length, Needs, Since
from vllmchat.sampling.formats import ResponseFormat
from vllmchat.sampling.params import (
    SamplingBase,
    SeveralBase,
    TopPBase,
    VLLMDecodingBase,
    VLLMPromptingBase,
    VLLMRenderingBase,
    VLLMSamplingBase,
)

__all__ = ["CompletionBase", "CompletionParams", "VLLMCompletionParams"]


class CompletionBase(TypedDict, total=False):
    """Parameters that all completions accept in the same form. A base class; use one of the closed classes below."""

    max_tokens: Annotated[int | None, Bounds(ge=0), Default("16")]
    """Maximum length of the completion in tokens. 0 requires `echo=True`, for the log probabilities of the prompt.

    Range: at least 0. Default: 16.
    """
    echo: Annotated[bool | None, Default("False")]
    """Prepend the prompt to the completion. With `logprobs`, its tokens have log probabilities too.

    Default: False.
    """
    logprobs: Annotated[int | None, Bounds(ge=-1)]
    """Return the log probability of each token, and of this many of the most likely tokens at its position.

    0 returns only that of the generated token. The server limits it (vLLM: `--max-logprobs`, 20). -1 means the whole
    vocabulary, in vLLM 0.30 or newer.

    Range: at least -1.
    """
    suffix: str | None
    """The text after the completion: the model fills in the middle. Cannot be combined with `echo`.

    vLLM 0.31 and newer accept it for models that support it; older versions reject it.
    """
    user: str | None
    """An identifier for the end user. vLLM ignores it."""


class CompletionParams(SamplingBase, SeveralBase, CompletionBase, CallBase, total=False, closed=True):
    """What `OpenAIProvider.complete` accepts: OpenAI's completions request."""

    top_p: Annotated[float | None, Bounds(ge=0, le=1), Default("1.0")]
    """Sample only from the most likely tokens whose probabilities add up to this. 1 keeps all tokens.

    Range: between 0 and 1. Default: 1.0.
    """
    best_of: Annotated[int | None, Bounds(ge=1), Default("1")]
    """Generate this many completions and return the `n` best. vLLM 0.12 and newer ignore it.

    Range: at least 1. Default: 1.
    """


class VLLMCompletionParams(
    SamplingBase,
    TopPBase,
    SeveralBase,
    CompletionBase,
    VLLMSamplingBase,
    VLLMDecodingBase,
    VLLMPromptingBase,
    VLLMRenderingBase,
    CallBase,
    total=False,
    closed=True,
):
    """What `VLLMProvider.complete` accepts: every field of vLLM's completions request.

    For parameters shared with chats, the text gives the version that added them to chats. The documentation lists
    those that differ here.
    """

    response_format: ResponseFormat | TypeForm[Any] | None
    """Constrain the completion to JSON, a JSON schema or a structural tag. A type is sent as its JSON schema."""
    prompt_embeds: Annotated[
        str | Sequence[Annotated[str, Length(1)]] | None,
        Length(1),
        Needs("--enable-prompt-embeds"),
        Since("0.9"),
    ]
    """One or more prompts as embeddings: tensors as `torch.save` writes them, in base64.

    In addition to a prompt of text or tokens, or instead of it. Cannot be combined with `echo`, `suffix` or
    `prompt_logprobs`.

    Range: not empty; each not empty. Needs: `--enable-prompt-embeds`. Since: vLLM 0.9.
    """
    add_special_tokens: Annotated[bool | None, Default("True")]
    """Add the tokenizer's special tokens, such as the beginning-of-sequence token, to a text prompt.

    Default: True.
    """
    return_weight_versions: Annotated[bool | None, Default("False"), Since("0.33")]
    """Return which version of the weights generated each token, for servers that update weights while running.

    Default: False. Since: vLLM 0.33.
    """
