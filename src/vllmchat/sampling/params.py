"""The parameters that all generating endpoints share. How to write one: `vllmchat.chat.params`."""

# No `from __future__ import annotations` here: the annotations are read at run time.

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from typing_extensions import TypedDict

from vllmchat.checking.rules import Bounds, Default, ExactlyOne, Length, Since, TokenIds, Without
from vllmchat.sampling.formats import StructuredOutputs

__all__ = [
    "ReasoningEffort",
    "RepetitionDetection",
    "SamplingBase",
    "SeveralBase",
    "StreamOptions",
    "TopPBase",
    "VLLMDecodingBase",
    "VLLMLimitsBase",
    "VLLMPromptingBase",
    "VLLMRenderingBase",
    "VLLMSamplingBase",
    "VLLMTokensBase",
]


INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(TypedDict, total=False, closed=True):
    """What a stream contains in addition to the text."""

    include_usage: Annotated[bool | None, Default("False; True in vLLM before 0.18")]
    """End the stream with a chunk that contains the token counts.

    Default: False; True in vLLM before 0.18.
    """
    continuous_usage_stats: Annotated[bool | None, Default("False")]
    """Put the token counts so far on every chunk. Only with `include_usage`. Supported by vLLM and some other servers.

    Default: False.
    """
    include_obfuscation: bool | None
    """Random characters on each chunk that hide the length of its text. OpenAI's own server only."""


class RepetitionDetection(TypedDict, total=False, closed=True):
    """When to end a reply that repeats itself: a pattern of tokens that occurs several times in a row."""

    max_pattern_size: Annotated[int, Bounds(ge=0), Default("0: no detection")]
    """Longest pattern to look for, in tokens. 0 turns detection off.

    Range: at least 0. Default: 0: no detection.
    """
    min_pattern_size: Annotated[int, Bounds(ge=0), Default("0")]
    """Shortest pattern to look for, in tokens; at most `max_pattern_size`. 0 means 1.

    Range: at least 0. Default: 0.
    """
    min_count: Annotated[int, Bounds(ge=0), Default("0")]
    """How many times in a row the pattern must occur. At least 2, unless `max_pattern_size` is 0.

    Range: at least 0. Default: 0.
    """


class SamplingBase(TypedDict, total=False):
    """Sampling parameters that all endpoints that generate accept in the same form. A base class."""

    frequency_penalty: Annotated[
        float | None,
        Bounds(ge=-2, le=2),
        Default("0.0, or the model's generation config (vLLM 0.31 or newer)"),
    ]
    """Make a token less likely the more often it has been generated. Negative values make it more likely.

    Range: between -2 and 2. Default: 0.0, or the model's generation config (vLLM 0.31 or newer).
    """
    presence_penalty: Annotated[
        float | None,
        Bounds(ge=-2, le=2),
        Default("0.0, or the model's generation config (vLLM 0.31 or newer)"),
    ]
    """Make a token less likely once it has been generated. Negative values make it more likely.

    Range: between -2 and 2. Default: 0.0, or the model's generation config (vLLM 0.31 or newer).
    """
    logit_bias: Annotated[Mapping[str, float] | Mapping[int, float] | None, TokenIds()]
    """Biases to add to the logits before sampling, by token id.

    Ids may be integers or strings of digits, and must be in the model's vocabulary. The server clamps each bias to
    the range from -100 to 100.
    """
    seed: Annotated[int | None, Bounds(ge=INT64_MIN, le=INT64_MAX), Default("random")]
    """Seed for sampling, to reproduce a reply. vLLM treats -1 as "random".

    Range: between `-2**63` and `2**63 - 1`. Default: random.
    """
    stop: Annotated[str, Length(1)] | Sequence[Annotated[str, Length(1)]] | None
    """One or more strings that end generation. They are not part of the reply.

    vLLM 0.28 and newer accept at most 4 (the server's `VLLM_MAX_STOP_STRINGS`), and more raise a `BadRequestError`.
    Older versions accept any number.

    Range: not empty; each not empty.
    """
    temperature: Annotated[float | None, Bounds(ge=0, le=2), Default("1.0, or the model's generation config")]
    """Randomness of sampling: 0 always picks the most likely token; higher values are more random.

    vLLM raises values between 0 and 0.01 to 0.01. Before 0.24 it has no upper bound; use `extra_body` for values
    above 2.

    Range: between 0 and 2. Default: 1.0, or the model's generation config.
    """


class TopPBase(TypedDict, total=False):
    """`top_p` as vLLM accepts it; OpenAI's API also allows 0. A base class."""

    top_p: Annotated[float | None, Bounds(gt=0, le=1), Default("1.0, or the model's generation config")]
    """Sample only from the most likely tokens whose probabilities add up to this. 1 keeps all tokens.

    Range: greater than 0 and at most 1. Default: 1.0, or the model's generation config.
    """


class SeveralBase(TypedDict, total=False):
    """Parameters for several replies and for streams: chats, completions and `generate`. A base class."""

    n: Annotated[int | None, Bounds(ge=1), Default("1")]
    """How many replies to generate for one prompt. They are in `completion.choices`.

    Greedy decoding (`temperature=0`) makes them identical, and vLLM rejects it if `n` is above 1. A vLLM server
    allows at most its `VLLM_MAX_N_SEQUENCES`, 16384.

    Range: at least 1. Default: 1.
    """
    stream_options: StreamOptions | None
    """What a stream contains in addition to the text. Requires streaming."""


class VLLMTokensBase(TypedDict, total=False):
    """How all vLLM endpoints choose tokens, which a provider can have defaults for. A base class."""

    # Sampling

    top_k: Annotated[int | None, Bounds(ge=-1), Default("0, or the model's generation config")]
    """Sample only from this many of the most likely tokens. -1 and 0 both mean all tokens.

    Range: at least -1. Default: 0, or the model's generation config.
    """
    min_p: Annotated[float | None, Bounds(ge=0, le=1), Default("0.0, or the model's generation config")]
    """Drop tokens whose probability is below this fraction of the most likely token's. 0 keeps all tokens.

    Range: between 0 and 1. Default: 0.0, or the model's generation config.
    """
    repetition_penalty: Annotated[
        float | None, Bounds(gt=0), Default("1.0, or the model's generation config")
    ]
    """Above 1, make tokens that occur in the prompt or the reply so far less likely; below 1, more likely.

    Range: greater than 0. Default: 1.0, or the model's generation config.
    """
    stop_token_ids: Annotated[
        Sequence[Annotated[int, Bounds(ge=0)]] | None,
        Default("none; the model's own end token always applies"),
    ]
    """Token ids that end generation, in addition to the model's own end token.

    Range: each at least 0. Default: none; the model's own end token always applies.
    """
    include_stop_str_in_output: Annotated[bool | None, Default("False")]
    """Keep the stop string in the reply.

    Default: False.
    """
    ignore_eos: Annotated[bool | None, Default("False")]
    """Continue after the model's end token, until `max_tokens`, for benchmarks.

    Default: False.
    """
    watermarking: Annotated[
        bool | None, Default("the server's setting; True in 0.30 and 0.31"), Since("0.30")
    ]
    """Watermark the reply, on servers that are configured for it.

    Default: the server's setting; True in 0.30 and 0.31. Since: vLLM 0.30.
    """
    vllm_xargs: Annotated[
        Mapping[
            str,
            str
            | Annotated[int, Bounds(ge=INT64_MIN, lt=2**64)]
            | float
            | Sequence[str | Annotated[int, Bounds(ge=INT64_MIN, lt=2**64)] | float],
        ]
        | None,
        Since("0.9.2"),
    ]
    """Arguments for server extensions, such as custom logits processors.

    Lists are supported since vLLM 0.11.1, in completions since 0.26.

    Range: each at least `-2**63` and less than `2**64`. Since: vLLM 0.9.2.
    """


class VLLMSamplingBase(VLLMTokensBase, total=False):
    """Parameters of all vLLM endpoints that generate: chats, completions, responses and `generate`. A base class."""

    # Sampling

    structured_outputs: Annotated[
        StructuredOutputs | None,
        ExactlyOne("json", "regex", "choice", "grammar", "json_object", "structural_tag"),
        Since("0.11"),
    ]
    """Constrain the reply to a JSON schema, a regular expression, one of several choices, or a grammar.

    Exactly one constraint. It cannot be combined with a constraining `response_format`, a `tool_choice` that forces a
    call, or beam search. A constraint that the server cannot compile raises a `BadRequestError`; in a stream, at the
    first event.

    Since: vLLM 0.11.
    """

    # Prompt and template

    cache_salt: Annotated[str | None, Length(1, 128), Without("@/\\\0"), Since("0.9")]
    """Share the prefix cache only with requests that have the same salt, to prevent timing attacks.

    Use a long random string, such as `secrets.token_urlsafe(32)`.

    Range: 1 to 128 characters; without `@`, `/`, backslash, NUL. Since: vLLM 0.9.
    """

    # Output

    skip_special_tokens: Annotated[bool | None, Default("True")]
    """Leave special tokens out of the text. Since vLLM 0.33, the model's generation config may have another default.

    Default: True.
    """

    # Scheduling and transfer

    priority: Annotated[int | None, Bounds(ge=INT64_MIN, le=INT64_MAX), Default("0")]
    """Scheduling priority: requests with lower numbers run first.

    Servers without `--scheduling-policy priority` accept only 0.

    Range: between `-2**63` and `2**63 - 1`. Default: 0.
    """
    request_id: Annotated[str | None, Default("random")]
    """The id of the request in the server's logs. The reply's id is this with a prefix such as `chatcmpl-`.

    Default: random.
    """
    kv_transfer_params: Annotated[Mapping[str, object] | None, Since("0.9")]
    """Where to load the KV cache from or send it to, if prefill and decode run on different servers.

    Since: vLLM 0.9.
    """
    ec_transfer_params: Annotated[Mapping[str, object] | None, Since("0.26")]
    """Where to load encoder outputs from or send them to, if the encoder runs on a different server.

    Since: vLLM 0.26.
    """


class VLLMLimitsBase(TypedDict, total=False):
    """Limits of chats, completions and `generate`, which a provider can have defaults for. A base class."""

    # Sampling

    min_tokens: Annotated[int | None, Bounds(ge=0), Default("0")]
    """Minimum length of the reply in tokens; at most `max_tokens`. Until then, end and stop tokens are not sampled.

    Range: at least 0. Default: 0.
    """
    bad_words: Annotated[Sequence[Annotated[str, Length(1)]] | None, Default("none"), Since("0.9.2")]
    """Strings the model must not generate. The server converts them to at most 128 token sequences.

    Range: each not empty. Default: none. Since: vLLM 0.9.2.
    """
    allowed_token_ids: Annotated[Sequence[Annotated[int, Bounds(ge=0)]] | None, Length(1), Since("0.9.1")]
    """The only tokens that may be generated.

    Range: not empty; each at least 0. Since: vLLM 0.9.1.
    """
    repetition_detection: Annotated[RepetitionDetection | None, Since("0.17")]
    """End a reply that repeats itself. Its finish reason is then `"repetition"`.

    Since: vLLM 0.17.
    """

    # Reasoning

    thinking_token_budget: Annotated[int | None, Bounds(ge=-1), Default("unlimited"), Since("0.19")]
    """Maximum number of reasoning tokens, after which the reply begins. -1 means no limit.

    Requires a server with a reasoning parser; vLLM 0.19 also requires `--reasoning-config`. On a CPU, it crashes the
    engine of vLLM 0.22.

    Range: at least -1. Default: unlimited. Since: vLLM 0.19.
    """


class VLLMDecodingBase(VLLMLimitsBase, total=False):
    """Further parameters of chats, completions and `generate`. A base class."""

    # Output

    prompt_logprobs: Annotated[int | None, Bounds(ge=-1)]
    """Return the log probabilities of the prompt tokens, with this many alternatives. Not supported when streaming.

    The server limits it to `--max-logprobs`. -1 means the whole vocabulary, in vLLM 0.11 or newer.

    Range: at least -1.
    """
    logprob_token_ids: Annotated[Sequence[Annotated[int, Bounds(ge=0)]] | None, Length(0, 128), Since("0.26")]
    """Return the log probabilities of these tokens at each position.

    Requires `logprobs`. Cannot be combined with beam search.

    Range: at most 128 items; each at least 0. Since: vLLM 0.26.
    """
    spaces_between_special_tokens: Annotated[bool | None, Default("True")]
    """Put spaces between special tokens, if they are included in the text.

    Default: True.
    """
    return_token_ids: Annotated[bool | None, Default("False"), Since("0.10.2")]
    """Return the token ids of the prompt and of the reply.

    Default: False. Since: vLLM 0.10.2.
    """
    routed_experts_prompt_start: Annotated[int | None, Bounds(ge=0), Default("0"), Since("0.28")]
    """First prompt token for which to return the expert routing, on servers that return it.

    Range: at least 0. Default: 0. Since: vLLM 0.28.
    """
    stream_interval: Annotated[int | None, Bounds(ge=1), Default("the server's setting"), Since("0.27")]
    """How many tokens to put into one chunk of a stream. Values below the server's setting have no effect.

    Range: at least 1. Default: the server's setting. Since: vLLM 0.27.
    """


class VLLMRenderingBase(TypedDict, total=False):
    """Further parameters of chats, completions and responses. A base class."""

    # Scheduling and transfer

    session_id: Annotated[str | None, Since("0.28")]
    """An identifier for the conversation, for routing to the replica that has its cache.

    Also sent as the header `X-Session-ID`, which routers read, if it can be the value of a header.

    Since: vLLM 0.28.
    """
    data_parallel_rank: Annotated[int | None, Bounds(ge=0, le=INT64_MAX), Since("0.12")]
    """The data-parallel rank of the server that is to process the request. Sent as the header `X-data-parallel-rank`.

    Range: between 0 and `2**63 - 1`. Since: vLLM 0.12.
    """


class VLLMPromptingBase(TypedDict, total=False):
    """Further parameters of chats and completions. A base class."""

    # Sampling

    use_beam_search: Annotated[bool | None, Default("False")]
    """Use beam search of width `n` instead of sampling.

    Of the sampling parameters, only `temperature`, `max_tokens`, `ignore_eos` and `length_penalty` then have an
    effect. Constraints, stops and `min_tokens` raise, because the server would silently ignore them.

    Default: False.
    """
    length_penalty: Annotated[float | None, Default("1.0")]
    """Length normalization in beam search: the sum of log probabilities is divided by the length to this power.

    Default: 1.0.
    """

    # Prompt and template

    truncate_prompt_tokens: Annotated[int | None, Bounds(ge=-1, le=INT64_MAX), Default("no truncation")]
    """Maximum length of the prompt in tokens. Longer prompts are truncated on the side that `truncation_side` names.

    -1 means the model's context, in vLLM 0.10.2 or newer.

    Range: between -1 and `2**63 - 1`. Default: no truncation.
    """
    truncation_side: Annotated[
        Literal["left", "right"] | None, Default("the tokenizer's setting"), Since("0.22")
    ]
    """Side on which `truncate_prompt_tokens` truncates: `"left"` keeps the end of the prompt, `"right"` the beginning.

    Default: the tokenizer's setting. Since: vLLM 0.22.
    """

    # Output

    return_tokens_as_token_ids: Annotated[bool | None, Default("the server's setting")]
    """Write the tokens in log probabilities as `token_id:123`, for tokens that are not valid text.

    Default: the server's setting.
    """
    return_token_offsets: Annotated[bool | None, Default("False"), Since("0.25")]
    """Return the position of each prompt token in the text. Only for `render` and `render_completion`.

    Has no effect on replies.

    Default: False. Since: vLLM 0.25.
    """
    mm_payload: Annotated[Literal["tensors", "none"] | None, Default('`"tensors"`'), Since("0.32")]
    """What to return for media. Only for `render` and `render_completion`.

    Has no effect on replies.

    Default: `"tensors"`. Since: vLLM 0.32.
    """
    return_mm_kwargs: Annotated[bool | None, Since("0.32")]
    """The older, deprecated form of `mm_payload`: False means `"none"`. Only for `render` and `render_completion`.

    Since: vLLM 0.32.
    """
