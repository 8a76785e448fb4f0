"""The request parameters of a completion. What they share with a chat's is written there, in `chat.params`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Sequence
from typing import Annotated, Any

from typing_extensions import TypedDict, TypeForm

from vllmchat.chat.params import (
    CallBase,
    ResponseFormat,
    SamplingBase,
    SeveralBase,
    TopPBase,
    VLLMDecodingBase,
    VLLMPromptingBase,
    VLLMRenderingBase,
    VLLMSamplingBase,
)
from vllmchat.checking.rules import Bounds, Default, Length, Needs, Since

__all__ = ["CompletionBase", "CompletionParams", "VLLMCompletionParams"]


class CompletionBase(TypedDict, total=False):
    """What every completion takes, in one form everywhere. A base: take one of the closed classes below."""

    max_tokens: Annotated[int | None, Bounds(ge=0), Default("16")]
    """Longest completion, in tokens. 0 only together with `echo=True`, for the log probabilities of the prompt.

    Range: at least 0. Default: 16.
    """
    echo: Annotated[bool | None, Default("False")]
    """Put the prompt before the completion. With `logprobs`, its tokens have log probabilities too.

    Default: False.
    """
    logprobs: Annotated[int | None, Bounds(ge=-1)]
    """Return the log probability of each token, and of this many of the likeliest ones at its place.

    0 returns that of the generated token alone. The server caps it (vLLM: `--max-logprobs`, 20). -1 means the whole
    vocabulary, on vLLM 0.30 or newer.

    Range: at least -1.
    """
    suffix: str | None
    """What follows after the completion: the model fills the middle. Not together with `echo`.

    vLLM takes it since 0.31, for models that know how; older ones refuse it.
    """
    user: str | None
    """A name for the end user. vLLM ignores it."""


class CompletionParams(SamplingBase, SeveralBase, CompletionBase, CallBase, total=False, closed=True):
    """What `OpenAIProvider.complete` takes: OpenAI's completions request."""

    top_p: Annotated[float | None, Bounds(ge=0, le=1), Default("1.0")]
    """Sample from the most likely tokens whose probabilities sum up to this. 1 keeps all of them.

    Range: between 0 and 1. Default: 1.0.
    """
    best_of: Annotated[int | None, Bounds(ge=1), Default("1")]
    """Generate so many completions and return the `n` best. vLLM 0.12 and newer ignore it.

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
    """What `VLLMProvider.complete` takes: every field of vLLM's completions request.

    The version in the text of a parameter that chats have too is that of chats; the documentation lists where it is
    another here.
    """

    response_format: ResponseFormat | TypeForm[Any] | None
    """Hold the completion to JSON, to a JSON schema or to a structural tag. A type stands for its JSON schema."""
    prompt_embeds: Annotated[
        str | Sequence[Annotated[str, Length(1)]] | None,
        Length(1),
        Needs("--enable-prompt-embeds"),
        Since("0.9"),
    ]
    """A prompt as embeddings, or several: tensors as `torch.save` writes them, in base64.

    Beside a prompt of text or tokens, or in its place. Not together with `echo`, `suffix` or `prompt_logprobs`.

    Range: not empty; each not empty. Needs: `--enable-prompt-embeds`. Since: vLLM 0.9.
    """
    add_special_tokens: Annotated[bool | None, Default("True")]
    """Add the tokenizer's special tokens, such as the beginning of the sequence, to a prompt of text.

    Default: True.
    """
    return_weight_versions: Annotated[bool | None, Default("False"), Since("0.33")]
    """Return which version of the weights generated what, for servers that update them while they run.

    Default: False. Since: vLLM 0.33.
    """
