"""The request parameters of embeddings, classes and scores, as TypedDicts for `**params: Unpack[...]`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Mapping
from typing import Annotated, Literal

from typing_extensions import TypedDict

from vllmchat.chat.params import INT64_MAX, INT64_MIN, CallBase
from vllmchat.chat.templating import TemplatingBase
from vllmchat.checking.rules import Bounds, Default, Length, Needs, Since, Without
from vllmchat.pooling.vector import EmbedDtype, Endianness

__all__ = [
    "ActivationBase",
    "ClassifyParams",
    "ClassifyTextParams",
    "ConversationBase",
    "EmbedBase",
    "EmbedParams",
    "EmbedTextParams",
    "InputBase",
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
    """What every endpoint of these takes. A base."""

    truncate_prompt_tokens: Annotated[int | None, Bounds(ge=-1, le=INT64_MAX), Default("no truncation")]
    """Longest input, in tokens; what is longer is cut instead of refused.

    -1 means the model's context, on vLLM 0.9 or newer.

    Range: between -1 and `2**63 - 1`. Default: no truncation.
    """
    truncation_side: Annotated[
        Literal["left", "right"] | None, Default("as the tokenizer is set"), Since("0.18")
    ]
    """Which side `truncate_prompt_tokens` cuts off: `"left"` keeps the end of the input, `"right"` its beginning.

    Default: as the tokenizer is set. Since: vLLM 0.18.
    """
    padding: Annotated[
        Literal["max_length", "do_not_pad"] | None, Default("as the tokenizer is set"), Since("0.29")
    ]
    """Fill inputs up to the model's length, for models that were trained so, such as SigLIP.

    Default: as the tokenizer is set. Since: vLLM 0.29.
    """
    priority: Annotated[int | None, Bounds(ge=INT64_MIN, le=INT64_MAX), Default("0")]
    """Which request runs earlier: the one with the lower number.

    Servers without `--scheduling-policy priority` refuse what is not 0.

    Range: between `-2**63` and `2**63 - 1`. Default: 0.
    """
    request_id: Annotated[str | None, Default("random"), Since("0.10.1")]
    """The id of the request in the server's logs and, after a prefix such as `embd-`, of the answer.

    Default: random. Since: vLLM 0.10.1.
    """
    mm_processor_kwargs: Annotated[
        Mapping[str, object] | None, Needs("--trust-request-mm-kwargs (0.31 or newer)")
    ]
    """Arguments for the model's image, audio and video processor.

    Needs: --trust-request-mm-kwargs (0.31 or newer).
    """
    cache_salt: Annotated[str | None, Length(1, 128), Without("@/\\\0"), Since("0.16")]
    """Share the prefix cache only with requests that send the same salt, so that timing tells others nothing.

    Range: 1 to 128 characters; without `@`, `/`, backslash, NUL. Since: vLLM 0.16.
    """
    user: str | None
    """A name for the end user. vLLM ignores it."""


class InputBase(PoolingBase, total=False):
    """What endpoints take that have an input. A base."""

    add_special_tokens: Annotated[
        bool | None, Default("True for text, False for conversations, whose template writes them")
    ]
    """Add the tokenizer's special tokens, such as the beginning of the sequence.

    Default: True for text, False for conversations, whose template writes them.
    """


class ConversationBase(TemplatingBase, total=False):
    """What only conversations take. A base."""

    add_generation_prompt: Annotated[bool | None, Default("False"), Since("0.10.2")]
    """Open the assistant's turn at the end of the prompt. Only for conversations.

    Default: False. Since: vLLM 0.10.2.
    """
    continue_final_message: Annotated[bool | None, Default("False"), Since("0.14")]
    """Leave the last message open. Only for conversations.

    Default: False. Since: vLLM 0.14.
    """


class ActivationBase(TypedDict, total=False):
    """What comes after the model. A base."""

    use_activation: Annotated[
        bool | None, Default("as the model's pooler is set; mostly True"), Since("0.11.1")
    ]
    """Apply the model's last function: for embeddings it makes the length 1, for classes and scores it makes
    probabilities. False gives what was there before.

    Default: as the model's pooler is set; mostly True. Since: vLLM 0.11.1.
    """


class PackingBase(TypedDict, total=False):
    """How numbers are sent. A base."""

    embed_dtype: Annotated[EmbedDtype | None, Default('`"float32"`'), Since("0.11.1")]
    """The type that packed numbers are sent in: smaller ones are rounded, and save time on the wire.

    Default: `"float32"`. Since: vLLM 0.11.1.
    """
    endianness: Annotated[Endianness | None, Default('`"little"`'), Since("0.11.1")]
    """The order of the bytes of packed numbers. `"native"` is that of the server, and must then be yours.

    Default: `"little"`. Since: vLLM 0.11.1.
    """


class EmbedBase(PackingBase, total=False):
    """What only embeddings take. A base."""

    dimensions: Annotated[int | None, Bounds(ge=1), Default("the model's own")]
    """How many numbers a vector has, for models that were trained to be cut (Matryoshka); others refuse it.

    Range: at least 1. Default: the model's own.
    """
    encoding_format: Annotated[
        Literal["float", "base64", "bytes", "bytes_only"] | None, Default('`"base64"`')
    ]
    """How the vectors are sent; what you get is the same.

    `"base64"` is exact, a quarter of the size of `"float"`, and every version knows it. `"bytes"` saves another
    quarter and takes at most 512 inputs; `"bytes_only"` takes more, and its answer has no usage and no id. Both since
    vLLM 0.11.1. With an `embed_dtype` other than `"float32"`, or with big-endian numbers, they are the default: older
    servers, which ignore that, refuse them. With `"base64"` the server is asked for its version.

    Default: `"base64"`.
    """
    use_activation: Annotated[
        bool | None, Default("as the model's pooler is set; mostly True"), Since("0.10.1")
    ]
    """Normalise the vectors to length 1. It is sent as `normalize` to servers before 0.16, which call it so.

    Default: as the model's pooler is set; mostly True. Since: vLLM 0.10.1.
    """


class EmbedParams(InputBase, ConversationBase, EmbedBase, total=False, closed=True):
    """What `VLLMProvider.embed` takes."""


class EmbedTextParams(InputBase, EmbedBase, total=False, closed=True):
    """What it takes with a text or with tokens."""


class PoolBase(PackingBase, ActivationBase, total=False):
    """What only pooling takes. A base."""

    task: Annotated[
        Literal["embed", "classify", "token_embed", "token_classify", "embed&token_classify"] | None,
        Default("the server's own"),
        Since("0.11.1"),
    ]
    """What to compute. A server does one task, or one of a few: its `--pooler-config` says which.

    Default: the server's own. Since: vLLM 0.11.1.
    """
    encoding_format: Annotated[Literal["float", "base64", "bytes"] | None, Default('`"float"`')]
    """How the numbers are sent.

    `"float"` and `"bytes"` (since vLLM 0.11.1, at most 512 inputs) keep rows apart; `"base64"` has the rows of a token
    task end to end. With an `embed_dtype` other than `"float32"`, or with big-endian numbers, `"bytes"` is the default.

    Default: `"float"`.
    """


class PoolParams(InputBase, ConversationBase, PoolBase, total=False, closed=True):
    """What `VLLMProvider.pool` takes."""


class PoolTextParams(InputBase, PoolBase, total=False, closed=True):
    """What it takes with a text or with tokens."""


class ClassifyParams(InputBase, ConversationBase, ActivationBase, total=False, closed=True):
    """What `VLLMProvider.classify` takes."""


class ClassifyTextParams(InputBase, ActivationBase, total=False, closed=True):
    """What it takes with a text or with tokens."""


class ScoringBase(PoolingBase, ActivationBase, total=False):
    """What compares two things takes. A base."""

    max_tokens_per_query: Annotated[int | None, Bounds(ge=0), Default("0, no limit"), Since("0.20")]
    """Longest query, in tokens; what is longer is cut.

    Range: at least 0. Default: 0, no limit. Since: vLLM 0.20.
    """
    max_tokens_per_doc: Annotated[int | None, Bounds(ge=0), Default("0, no limit"), Since("0.20")]
    """Longest document, in tokens; what is longer is cut.

    Range: at least 0. Default: 0, no limit. Since: vLLM 0.20.
    """
    instruction: Annotated[str | None, Since("0.22")]
    """What to judge by, for models whose template has an `instruction`.

    Since: vLLM 0.22.
    """
    chat_template_kwargs: Annotated[Mapping[str, object] | None, Since("0.22")]
    """Variables for the model's score template. An `instruction` in them wins over the parameter of that name.

    Since: vLLM 0.22.
    """


class ScoreParams(ScoringBase, total=False, closed=True):
    """What `VLLMProvider.score` takes."""


class RerankParams(ScoringBase, total=False, closed=True):
    """What `VLLMProvider.rerank` takes."""

    top_n: Annotated[int | None, Bounds(ge=0), Default("0, all")]
    """How many of the best documents to return.

    Range: at least 0. Default: 0, all.
    """
