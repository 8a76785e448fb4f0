"""The request parameters of `generate`. Those shared with chats are in `chat.params`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from typing_extensions import TypedDict

from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import Bounds, Default, Since
from vllmchat.sampling.params import SamplingBase, SeveralBase, TopPBase, VLLMDecodingBase, VLLMSamplingBase

__all__ = ["GenerateBase", "GenerateParams"]


class GenerateBase(TypedDict, total=False):
    """Parameters that only `generate` accepts. A base class; use `GenerateParams`."""

    max_tokens: Annotated[int | None, Bounds(ge=1), Default("the remaining context; 16 in vLLM before 0.22")]
    """Maximum number of tokens to generate.

    Range: at least 1. Default: the remaining context; 16 in vLLM before 0.22.
    """
    logprobs: Annotated[int | None, Bounds(ge=-1)]
    """Return the log probability of each token, and of this many of the most likely tokens at its position.

    The server limits it (`--max-logprobs`, 20). -1 means the whole vocabulary.

    Range: at least -1.
    """
    detokenize: Annotated[bool | None, Default("True")]
    """Whether the server converts the tokens to text, which `stop` and an `output_mode` other than `"tokens"` require.

    Default: True.
    """
    output_mode: Annotated[Literal["tokens", "text", "derender"] | None, Default('`"tokens"`'), Since("0.32")]
    """What to return: only tokens, tokens and their text, or tokens and the message of an assistant that they make.

    `"derender"`, since vLLM 0.33, separates reasoning and tool calls from the text, as chats do. It is not streamed.

    Default: `"tokens"`. Since: vLLM 0.32.
    """
    content_parts: Annotated[Sequence[Mapping[str, object]] | None, Since("0.28")]
    """Images, audio and video in the prompt, as message parts; the server fetches them. Not with `features`.

    Since: vLLM 0.28.
    """
    features: Mapping[str, object] | None
    """Images, audio and video in the prompt, already processed: `RenderedPrompt.features`, unchanged."""
    reasoning_ended: Annotated[bool | None, Since("0.32")]
    """Whether the prompt ends after the reasoning, so that `structured_outputs` applies from the first token.

    Since: vLLM 0.32.
    """
    reasoning_parser_kwargs: Annotated[Mapping[str, object] | None, Since("0.32")]
    """What the prompt was rendered with, for the server's reasoning parser. See `RenderedPrompt`.

    Since: vLLM 0.32.
    """
    parse_context: Annotated[Mapping[str, object] | None, Since("0.33")]
    """What `output_mode="derender"` needs of the chat, such as its tools: `RenderedPrompt.parse_context`, unchanged.

    A server with a parser of reasoning or tool calls requires it, and ignores it in the other modes.

    Since: vLLM 0.33.
    """
    extra_sampling_params: Mapping[str, object] | None
    """Additional fields of vLLM's `SamplingParams`, sent unchecked. They override the other parameters."""


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
    """What `generate` accepts.

    The model's generation config is not used here: parameters that are not set have vLLM's neutral defaults, or the
    values in a `RenderedPrompt`.

    For parameters shared with chats, the text gives the version that added them to chats. The documentation lists
    those that differ here.
    """
