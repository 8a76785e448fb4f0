"""The request parameters of the pooling endpoints, as TypedDicts for `**params: Unpack[...]`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Mapping
from typing import Annotated, Literal

from typing_extensions import TypedDict

from vllmchat.chat.templating import TemplatingBase
from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import Bounds, Default, Length, Needs, Since, Without
from vllmchat.pooling.vector import EmbedDtype, Endianness
from vllmchat.sampling.params import INT64_MAX, INT64_MIN

__all__ = [
    "ActivationBase",
    "ClassifyParams",
    "ClassifyTextParams",
    "ConversationInputBase",
    "EmbedBase",
    "EmbedParams",
    "EmbedTextParams",
    "EmbedTokensParams",
    "InputBase",
    "LateChunkingParams",
    "OpenAIEmbedParams",
    "PackingBase",
    "PoolBase",
    "PoolParams",
    "PoolTextParams",
    "PoolingBase",
    "RerankParams",
    "ScoreParams",
    "ScoringBase",
]


class PoolingBase(CallBase, total=False):
    """Accepted by all pooling endpoints. A base."""

    truncate_prompt_tokens: Annotated[int | None, Bounds(ge=-1, le=INT64_MAX), Default("no truncation")]
    """Longest input, in tokens; longer ones are truncated instead of rejected.

    -1 means the model's context length, on vLLM 0.9 or newer.

    Range: between -1 and `2**63 - 1`. Default: no truncation.
    """
    truncation_side: Annotated[
        Literal["left", "right"] | None, Default("the tokenizer's setting"), Since("0.18")
    ]
    """The side that `truncate_prompt_tokens` removes: `"left"` keeps the end of the input, `"right"` its beginning.

    Default: the tokenizer's setting. Since: vLLM 0.18.
    """
    padding: Annotated[
        Literal["max_length", "do_not_pad"] | None, Default("the tokenizer's setting"), Since("0.29")
    ]
    """Pad inputs to the model's length, for models that were trained that way, such as SigLIP.

    Default: the tokenizer's setting. Since: vLLM 0.29.
    """
    priority: Annotated[int | None, Bounds(ge=INT64_MIN, le=INT64_MAX), Default("0")]
    """Scheduling priority: requests with a lower number run earlier.

    Servers without `--scheduling-policy priority` reject anything but 0.

    Range: between `-2**63` and `2**63 - 1`. Default: 0.
    """
    request_id: Annotated[str | None, Default("random"), Since("0.10.1")]
    """The request ID in the server's logs and, after a prefix such as `embd-`, the response ID.

    Default: random. Since: vLLM 0.10.1.
    """
    mm_processor_kwargs: Annotated[
        Mapping[str, object] | None, Needs("--trust-request-mm-kwargs (0.31 or newer)")
    ]
    """Arguments for the model's image, audio and video processor.

    Needs: --trust-request-mm-kwargs (0.31 or newer).
    """
    cache_salt: Annotated[str | None, Length(1, 128), Without("@/\\\0"), Since("0.16")]
    """Share the prefix cache only with requests that send the same salt, so that timing reveals nothing to others.

    Range: 1 to 128 characters; without `@`, `/`, backslash, NUL. Since: vLLM 0.16.
    """
    user: str | None
    """An identifier of the end user. vLLM ignores it."""


class InputBase(PoolingBase, total=False):
    """Accepted by endpoints that have an input. A base."""

    add_special_tokens: Annotated[
        bool | None, Default("True for text, False for conversations, whose template adds them")
    ]
    """Add the tokenizer's special tokens, such as the beginning-of-sequence token.

    Default: True for text, False for conversations, whose template adds them.
    """


class ConversationInputBase(TemplatingBase, total=False):
    """Accepted only with conversations. A base."""

    add_generation_prompt: Annotated[bool | None, Default("False"), Since("0.10.2")]
    """Open the assistant's turn at the end of the prompt. Only for conversations.

    Default: False. Since: vLLM 0.10.2.
    """
    continue_final_message: Annotated[bool | None, Default("False"), Since("0.14")]
    """Leave the last message unfinished. Only for conversations.

    Default: False. Since: vLLM 0.14.
    """


class ActivationBase(TypedDict, total=False):
    """The activation after the model. A base."""

    use_activation: Annotated[
        bool | None, Default("the model's pooler setting, usually True"), Since("0.11.1")
    ]
    """Apply the model's activation function: it normalizes embeddings to length 1, and turns classes and scores into
    probabilities. False returns the values before it.

    Default: the model's pooler setting, usually True. Since: vLLM 0.11.1.
    """


class PackingBase(TypedDict, total=False):
    """The format of the numbers. A base."""

    embed_dtype: Annotated[EmbedDtype | None, Default('`"float32"`'), Since("0.11.1")]
    """The type of packed numbers: smaller types round them, and save transfer time.

    Default: `"float32"`. Since: vLLM 0.11.1.
    """
    endianness: Annotated[Endianness | None, Default('`"little"`'), Since("0.11.1")]
    """The byte order of packed numbers. `"native"` is the server's, which must then be the same as yours.

    Default: `"little"`. Since: vLLM 0.11.1.
    """


class EmbedBase(PackingBase, total=False):
    """Accepted only for embeddings. A base."""

    dimensions: Annotated[int | None, Bounds(ge=1), Default("the model's own")]
    """The length of the vectors, for models trained to be shortened (Matryoshka); others reject it.

    Range: at least 1. Default: the model's own.
    """
    encoding_format: Annotated[
        Literal["float", "base64", "bytes", "bytes_only"] | None, Default('`"base64"`')
    ]
    """How the vectors are sent; the result is the same.

    `"base64"` is exact, a quarter of the size of `"float"`, and supported by all versions. `"bytes"` saves another
    quarter and accepts at most 512 inputs; `"bytes_only"` accepts more, and its response has no usage and no ID. Both
    since vLLM 0.11.1. They are the default with an `embed_dtype` other than `"float32"` or with big-endian numbers:
    older servers, which ignore those, reject these formats. With `"base64"`, the server's version is looked up.

    Default: `"base64"`.
    """
    use_activation: Annotated[
        bool | None, Default("the model's pooler setting, usually True"), Since("0.10.1")
    ]
    """Normalize the vectors to length 1. Sent as `normalize` to servers before 0.16, where it has that name.

    Default: the model's pooler setting, usually True. Since: vLLM 0.10.1.
    """


class EmbedParams(InputBase, ConversationInputBase, EmbedBase, total=False, closed=True):
    """Parameters of `VLLMProvider.embed`."""


class EmbedTextParams(InputBase, EmbedBase, total=False, closed=True):
    """Its parameters with text or tokens."""


class OpenAIEmbedParams(CallBase, total=False, closed=True):
    """Parameters of `OpenAIProvider.embed`."""

    dimensions: Annotated[int | None, Bounds(ge=1), Default("the model's own")]
    """The length of the vectors, for models trained to be shortened (Matryoshka); others reject it.

    Range: at least 1. Default: the model's own.
    """
    encoding_format: Annotated[Literal["float", "base64"] | None, Default('`"float"`')]
    """How the vectors are sent; the result is the same. `"base64"` is a quarter of the size.

    Default: `"float"`.
    """
    user: str | None
    """An identifier of the end user."""


class LateChunkingParams(TypedDict, closed=True):
    """How a text is divided into chunks after the model has read it as a whole."""

    chunk_size: Annotated[int, Bounds(ge=1, le=INT64_MAX)]
    """Tokens per chunk, including special tokens; the last one may be shorter.

    Range: between 1 and `2**63 - 1`.
    """


class EmbedTokensParams(InputBase, ActivationBase, total=False, closed=True):
    """Parameters of `VLLMProvider.embed_tokens`."""

    late_chunking_params: Annotated[LateChunkingParams | None, Default("one vector per token"), Since("0.33")]
    """Return one vector per chunk of tokens: the mean of what the model computed for them when it read the whole text.

    Only for texts that are neither truncated nor padded.

    Default: one vector per token. Since: vLLM 0.33.
    """


class PoolBase(PackingBase, ActivationBase, total=False):
    """Accepted only by `pool`. A base."""

    task: Annotated[
        Literal["embed", "classify", "token_embed", "token_classify", "embed&token_classify"] | None,
        Default("the server's own"),
        Since("0.11.1"),
    ]
    """What to compute. A server supports one task or a few, set by its `--pooler-config`.

    Default: the server's own. Since: vLLM 0.11.1.
    """
    encoding_format: Annotated[Literal["float", "base64", "bytes"] | None, Default('`"float"`')]
    """How the numbers are sent.

    `"float"` and `"bytes"` (since vLLM 0.11.1, at most 512 inputs) keep rows separate; `"base64"` joins the rows of a
    token task end to end. With an `embed_dtype` other than `"float32"`, or with big-endian numbers, `"bytes"` is the
    default.

    Default: `"float"`.
    """


class PoolParams(InputBase, ConversationInputBase, PoolBase, total=False, closed=True):
    """Parameters of `VLLMProvider.pool`."""


class PoolTextParams(InputBase, PoolBase, total=False, closed=True):
    """Its parameters with text or tokens."""


class ClassifyParams(InputBase, ConversationInputBase, ActivationBase, total=False, closed=True):
    """Parameters of `VLLMProvider.classify`."""


class ClassifyTextParams(InputBase, ActivationBase, total=False, closed=True):
    """Its parameters with text or tokens."""


class ScoringBase(PoolingBase, ActivationBase, total=False):
    """Accepted by endpoints that compare inputs. A base."""

    max_tokens_per_query: Annotated[int | None, Bounds(ge=0), Default("0, no limit"), Since("0.20")]
    """Longest query, in tokens; longer ones are truncated.

    Range: at least 0. Default: 0, no limit. Since: vLLM 0.20.
    """
    max_tokens_per_doc: Annotated[int | None, Bounds(ge=0), Default("0, no limit"), Since("0.20")]
    """Longest document, in tokens; longer ones are truncated.

    Range: at least 0. Default: 0, no limit. Since: vLLM 0.20.
    """
    instruction: Annotated[str | None, Since("0.22")]
    """The criterion to judge by, for models whose template has an `instruction`.

    Since: vLLM 0.22.
    """
    chat_template_kwargs: Annotated[Mapping[str, object] | None, Since("0.22")]
    """Variables for the model's score template. An `instruction` in them takes precedence over the parameter.

    Since: vLLM 0.22.
    """


class ScoreParams(ScoringBase, total=False, closed=True):
    """Parameters of `VLLMProvider.score`."""


class RerankParams(ScoringBase, total=False, closed=True):
    """Parameters of `VLLMProvider.rerank`."""

    top_n: Annotated[int | None, Bounds(ge=0), Default("0, all")]
    """How many of the best documents to return.

    Range: at least 0. Default: 0, all.
    """
