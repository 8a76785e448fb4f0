"""The request parameters of a chat, as TypedDicts for `**params: Unpack[...]`.

A parameter is defined once, by its annotation and the text below it. Type checkers and editors read both; the
validation before sending (`checkers`) and the table in `docs/parameters.md` are generated from them. The last
paragraph of each text (range, default, version) is written by `scripts/parameters_page.py` from the annotation.

Every value may be `None`, which means "not set": it is not sent. Server defaults are not sent either, because a
value that is sent overrides the recommendation in the model's `generation_config.json`.

The class hierarchy is determined by what type checkers accept::

    CallBase, SamplingBase, SeveralBase     open: parameters shared with other endpoints
    └── ChatParamsBase                      open: parameters of all chats
        ├── ChatParams              closed  OpenAIProvider
        └── PlainChatParams                 open: the common fields in their narrower form
            ├── CommonChatParams    closed  the Provider protocol: what every provider accepts
            └── VLLMChatParams      closed  VLLMProvider; also has the bases named VLLM...Base

A method that accepts `Unpack[ChatParams]` or `Unpack[VLLMChatParams]` satisfies a protocol whose method accepts
`Unpack[CommonChatParams]`, in mypy and in pyright, because all three are closed (PEP 728): a closed TypedDict
unpacks to exactly its keys, so the two are methods with more optional keywords. With an open TypedDict in the
protocol, pyright assumes that any other keyword may be passed, and rejects both.
"""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Required, TypeAlias

from typing_extensions import TypedDict, TypeForm

from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import (
    Bounds,
    Default,
    ExactlyOne,
    Length,
    Needs,
    NotBlank,
    Since,
    TokenIds,
    Without,
)
from vllmchat.schemas.tool_params import (
    AllowedToolsChoice,
    CustomTool,
    FunctionCallName,
    FunctionDefinition,
    FunctionTool,
    NamedCustomToolChoice,
    NamedToolChoice,
)

__all__ = [
    "ApproximateLocation",
    "AudioOutput",
    "ChatParams",
    "ChatParamsBase",
    "CommonChatParams",
    "CustomVoice",
    "JSONObjectFormat",
    "JSONSchema",
    "JSONSchemaFormat",
    "LegacyStructuralTagFormat",
    "Moderation",
    "ModerationMode",
    "ModerationPolicy",
    "PlainChatParams",
    "Prediction",
    "PromptCacheOptions",
    "ReasoningEffort",
    "RepetitionDetection",
    "ResponseFormat",
    "SamplingBase",
    "ServiceTier",
    "SeveralBase",
    "StreamOptions",
    "StructuralTagFormat",
    "StructuralTagPassage",
    "StructuredOutputs",
    "TextFormat",
    "TextPiece",
    "TopPBase",
    "UserLocation",
    "VLLMChatParams",
    "VLLMDecodingBase",
    "VLLMPromptingBase",
    "VLLMRenderingBase",
    "VLLMSamplingBase",
    "WebSearchOptions",
]

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ServiceTier: TypeAlias = Literal["auto", "default", "flex", "scale", "priority", "fast"]


# The format of the reply


class StructuredOutputs(TypedDict, total=False, closed=True):
    """A constraint on the reply, enforced while it is generated. Set exactly one of the first six keys.

    The backend that enforces it (xgrammar, guidance, outlines, lm-format-enforcer) is chosen when the server
    starts.
    """

    json: Annotated[str | Mapping[str, object] | TypeForm[Any] | None, NotBlank()]
    """A JSON schema, as a mapping or a JSON string; or a type that has one, such as a pydantic model.

    Range: not blank.
    """
    regex: Annotated[str | None, Without("\0")]
    """A regular expression that the whole reply must match.

    Range: without NUL.
    """
    choice: Annotated[Sequence[str] | None, Length(1)]
    """The allowed replies.

    Range: not empty.
    """
    grammar: Annotated[str | None, NotBlank()]
    """A context-free grammar, in EBNF with `::=` or in Lark's notation.

    Range: not blank.
    """
    json_object: Literal[True] | None
    """Any JSON object."""
    structural_tag: Annotated[str | None, NotBlank()]
    """A structural tag: free text with constrained passages, as the JSON string that xgrammar reads.

    Range: not blank.
    """
    disable_any_whitespace: Annotated[bool, Default("False")]
    """Generate JSON without optional white space.

    Default: False.
    """
    disable_additional_properties: Annotated[bool, Default("False")]
    """Allow only the properties that the JSON schema names.

    Default: False.
    """
    whitespace_pattern: str | None
    """A regular expression for the white space inside JSON."""


class TextFormat(TypedDict, closed=True):
    """Free text: no constraint."""

    type: Literal["text"]
    """Always `"text"`."""


class JSONObjectFormat(TypedDict, closed=True):
    """Any JSON object."""

    type: Literal["json_object"]
    """Always `"json_object"`."""


class JSONSchema(TypedDict, total=False, closed=True):
    """A named JSON schema."""

    name: Required[Annotated[str, Length(1)]]
    """A name for the schema. OpenAI's own server allows at most 64 letters, digits, `_` and `-`.

    Range: not empty.
    """
    description: str | None
    """What the format is for."""
    schema: Mapping[str, object] | None
    """The schema, which vLLM requires. For a pydantic model, `Model.model_json_schema()`."""
    strict: bool | None
    """OpenAI's strict mode. vLLM always enforces the schema, regardless of this."""


class JSONSchemaFormat(TypedDict, closed=True):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    """Always `"json_schema"`."""
    json_schema: JSONSchema
    """The schema and its name."""


class StructuralTagFormat(TypedDict, closed=True):
    """Free text with constrained passages, in xgrammar's notation. vLLM 0.11.1 or newer."""

    type: Literal["structural_tag"]
    """Always `"structural_tag"`."""
    format: Mapping[str, object]
    """The structural tag's format, as xgrammar defines it."""


class StructuralTagPassage(TypedDict, total=False, closed=True):
    """One constrained passage of a `LegacyStructuralTagFormat`."""

    begin: Required[str]
    """The text that opens the passage."""
    schema: Mapping[str, object] | None
    """The JSON schema of the content."""
    end: Required[str]
    """The text that closes the passage."""


class LegacyStructuralTagFormat(TypedDict, closed=True):
    """Free text with constrained passages, in vLLM's older notation."""

    type: Literal["structural_tag"]
    """Always `"structural_tag"`."""
    structures: Sequence[StructuralTagPassage]
    """The passages."""
    triggers: Sequence[str]
    """The texts that must be followed by a passage."""


ResponseFormat: TypeAlias = (
    TextFormat | JSONObjectFormat | JSONSchemaFormat | StructuralTagFormat | LegacyStructuralTagFormat
)


# Streaming and the rest


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


class CustomVoice(TypedDict, closed=True):
    """A custom voice."""

    id: str
    """Its id."""


class AudioOutput(TypedDict, closed=True):
    """The format of audio output."""

    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    """The encoding."""
    voice: str | CustomVoice
    """Name of the voice, or the id of a custom voice."""


class TextPiece(TypedDict, closed=True):
    """A piece of text."""

    type: Literal["text"]
    """Always `"text"`."""
    text: str
    """The text."""


class Prediction(TypedDict, closed=True):
    """Text that the reply is expected to repeat in large part."""

    type: Literal["content"]
    """Always `"content"`."""
    content: str | Sequence[TextPiece]
    """The expected text."""


class PromptCacheOptions(TypedDict, total=False, closed=True):
    """How OpenAI's own server caches the prompt."""

    mode: Literal["implicit", "explicit"]
    """Whether the server chooses what to cache, or the messages mark it."""
    ttl: str
    """How long to keep the prompt cached at least, such as `"30m"`."""


class ModerationMode(TypedDict, closed=True):
    """What moderation does with what it finds."""

    mode: Literal["score", "block"]
    """Report it, or block the request."""


class ModerationPolicy(TypedDict, total=False, closed=True):
    """What is moderated, and how."""

    input: ModerationMode | None
    """The prompt."""
    output: ModerationMode | None
    """The reply."""


class Moderation(TypedDict, total=False, closed=True):
    """Moderation by OpenAI's own server."""

    model: Required[str]
    """The moderation model."""
    policy: ModerationPolicy | None
    """What is moderated, and how."""


class ApproximateLocation(TypedDict, total=False, closed=True):
    """Roughly where the user is."""

    city: str | None
    """City, as free text."""
    country: str | None
    """Country, as a two-letter ISO code."""
    region: str | None
    """Region, as free text."""
    timezone: str | None
    """Time zone, by its IANA name."""


class UserLocation(TypedDict, closed=True):
    """Where the user is."""

    type: Literal["approximate"]
    """Always `"approximate"`."""
    approximate: ApproximateLocation
    """Roughly where."""


class WebSearchOptions(TypedDict, total=False, closed=True):
    """A web search by the server, for models that have one."""

    search_context_size: Literal["low", "medium", "high"] | None
    """How much of the context window the results may use."""
    user_location: UserLocation | None
    """Where the user is."""


# The parameters


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


class ChatParamsBase(SamplingBase, SeveralBase, CallBase, total=False):
    """Parameters that all chats accept in the same form. A base class; use one of the closed classes below."""

    logprobs: Annotated[bool | None, Default("False")]
    """Return the log probability of each generated token. For alternatives, set `top_logprobs`.

    Default: False.
    """
    top_logprobs: Annotated[int | None, Bounds(ge=-1), Default("0")]
    """How many of the most likely tokens to return at each position. Requires `logprobs=True`.

    The server limits it (vLLM: `--max-logprobs`, 20). -1 means the whole vocabulary, in vLLM 0.11 or newer.

    Range: at least -1. Default: 0.
    """
    max_tokens: Annotated[
        int | None,
        Bounds(ge=1),
        Default("the remaining context, or `max_new_tokens` of the generation config"),
    ]
    """Maximum length of the reply in tokens, including reasoning.

    `max_completion_tokens` is its newer name and takes precedence. vLLM 0.31 and older reject a request if the prompt
    and `max_tokens` together exceed the model's context; newer versions truncate the reply.

    Range: at least 1. Default: the remaining context, or `max_new_tokens` of the generation config.
    """
    max_completion_tokens: Annotated[
        int | None,
        Bounds(ge=1),
        Default("the remaining context, or `max_new_tokens` of the generation config"),
    ]
    """Maximum length of the reply in tokens, including reasoning. The newer name of `max_tokens`.

    Range: at least 1. Default: the remaining context, or `max_new_tokens` of the generation config.
    """
    response_format: ResponseFormat | TypeForm[Any] | None
    """Constrain the reply to JSON, a JSON schema or a structural tag.

    A type stands for its JSON schema: a pydantic model, a dataclass, a TypedDict, `list[int]`,
    `Literal["yes", "no"]`. The method `parse` also converts the reply to the type.

    `{"type": "json_schema", "json_schema": {"name": "person", "schema": {...}}}` works with every vLLM version and
    most other servers. Structural tags are a vLLM extension. `VLLMProvider` raises if it is combined with beam search
    or with a `tool_choice` that forces a call, because vLLM would silently ignore it.
    """
    parallel_tool_calls: Annotated[bool | None, Default("True; vLLM before 0.12: not enforced")]
    """Whether one reply may contain several tool calls. False keeps only the first.

    Default: True; vLLM before 0.12: not enforced.
    """
    user: str | None
    """An identifier for the end user. vLLM ignores it."""


class PlainChatParams(ChatParamsBase, TopPBase, total=False):
    """The other common parameters, in the form that vLLM accepts. A base class; use one of the closed classes below."""

    reasoning_effort: Annotated[ReasoningEffort | None, Since("0.10.1")]
    """How much to reason before the reply, for models whose chat template supports it.

    Since 0.22, vLLM also sets the template variable `enable_thinking`: False for `"none"`, True otherwise. The
    parameters `enable_thinking` and `chat_template_kwargs` take precedence over that. With older servers, set
    `enable_thinking` too. vLLM up to 0.17 accepts only `"low"`, `"medium"` and `"high"`; 0.18 to 0.20 also `"none"`.

    Since: vLLM 0.10.1.
    """
    tools: Annotated[Sequence[FunctionTool | Callable[..., object]] | None, Length(1)]
    """The functions the model may call: Python functions, `Tool` objects, or mappings that describe a function.

    A Python function is described to the model by its name, annotations and docstring. `run_tools` also calls it.

    The default `tool_choice` is then `"auto"`, which requires the server options `--enable-auto-tool-choice` and
    `--tool-call-parser`.

    Range: not empty.
    """
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | NamedToolChoice | None,
        Default('`"auto"` with `tools`, else `"none"`'),
    ]
    """Which tools the model calls: none, those it chooses, at least one, or the named one.

    Requires `tools`. `"auto"` requires the server options `--enable-auto-tool-choice` and `--tool-call-parser`;
    `"required"` and a named tool require `--tool-call-parser` since vLLM 0.14.

    Default: `"auto"` with `tools`, else `"none"`.
    """


class CommonChatParams(PlainChatParams, total=False, closed=True):
    """What every provider accepts: the parameters that OpenAI's API and vLLM share."""


class ChatParams(ChatParamsBase, total=False, closed=True):
    """What `OpenAIProvider` accepts: OpenAI's chat completions request."""

    top_p: Annotated[float | None, Bounds(ge=0, le=1), Default("1.0")]
    """Sample only from the most likely tokens whose probabilities add up to this. 1 keeps all tokens.

    Range: between 0 and 1. Default: 1.0.
    """
    reasoning_effort: ReasoningEffort | str | None
    """How much to reason before the reply. Servers may accept other values."""
    tools: Annotated[Sequence[FunctionTool | CustomTool | Callable[..., object]] | None, Length(1)]
    """The tools the model may call: functions, and custom tools if the server supports them.

    A Python function is described to the model by its name, annotations and docstring. `run_tools` also calls it.

    Range: not empty.
    """
    tool_choice: Annotated[
        Literal["none", "auto", "required"]
        | NamedToolChoice
        | NamedCustomToolChoice
        | AllowedToolsChoice
        | None,
        Default('`"auto"` with `tools`, else `"none"`'),
    ]
    """Which tools the model calls: none, those it chooses, at least one, or those that are named.

    Requires `tools`.

    Default: `"auto"` with `tools`, else `"none"`.
    """
    audio: AudioOutput | None
    """The format of audio output, with `modalities=["text", "audio"]`."""
    metadata: Mapping[str, str] | None
    """Labels to store with the reply."""
    modalities: Annotated[Sequence[Literal["text", "audio"]] | None, Length(1), Default("text")]
    """What to generate.

    Range: not empty. Default: text.
    """
    moderation: Moderation | None
    """Moderation of prompt and reply by the server."""
    prediction: Prediction | None
    """Text that the reply is expected to repeat in large part, which makes it faster."""
    prompt_cache_key: str | None
    """Groups requests with similar prompts, for more hits in the server's prompt cache."""
    prompt_cache_options: PromptCacheOptions | None
    """How the prompt is cached."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None
    """How long the prompt stays cached."""
    safety_identifier: str | None
    """A stable, anonymous name for the end user, for the operator's abuse detection."""
    service_tier: ServiceTier | str | None
    """The class of service. Servers may accept other values."""
    store: bool | None
    """Keep the reply on the server."""
    verbosity: Literal["low", "medium", "high"] | None
    """How verbose the reply is."""
    web_search_options: WebSearchOptions | None
    """A web search by the server, for models that have one."""
    functions: Annotated[Sequence[FunctionDefinition] | None, Length(1)]
    """The functions the model may call: the old form of `tools`, for servers that support nothing else.

    Range: not empty.
    """
    function_call: Literal["none", "auto"] | FunctionCallName | None
    """Whether a function must be called: the old form of `tool_choice`."""


class VLLMSamplingBase(TypedDict, total=False):
    """Parameters of all vLLM endpoints that generate: chats, completions, responses and `generate`. A base class."""

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

    # Prompt and template

    cache_salt: Annotated[str | None, Length(1, 128), Without("@/\\\0"), Since("0.9")]
    """Share the prefix cache only with requests that have the same salt, to prevent timing attacks.

    Use a long random string, such as `secrets.token_urlsafe(32)`.

    Range: 1 to 128 characters; without `@`, `/`, backslash, NUL. Since: vLLM 0.9.
    """

    # Output

    skip_special_tokens: Annotated[bool | None, Default("True")]
    """Leave special tokens out of the text.

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


class VLLMDecodingBase(TypedDict, total=False):
    """Further parameters of chats, completions and `generate`. A base class."""

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

    Since: vLLM 0.28.
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


class VLLMChatParams(
    PlainChatParams,
    VLLMSamplingBase,
    VLLMDecodingBase,
    VLLMRenderingBase,
    VLLMPromptingBase,
    total=False,
    closed=True,
):
    """What `VLLMProvider` accepts: every field of vLLM's chat completions request."""

    # Reasoning

    enable_thinking: bool | None
    """Whether the model reasons before the reply. Sent as `chat_template_kwargs={"enable_thinking": ...}`.

    Read by Qwen3's template and several others. DeepSeek's template reads `thinking` instead:
    `chat_template_kwargs={"thinking": True}`. Takes precedence over what `reasoning_effort` implies. A different
    `enable_thinking` in `chat_template_kwargs` raises.
    """
    include_reasoning: Annotated[bool | None, Default("True"), Since("0.10.1")]
    """If False, the model reasons, but the reply leaves out its reasoning.

    The log probabilities and token ids of the reasoning are left out too. In streams, vLLM supports this since 0.24.

    Default: True. Since: vLLM 0.10.1.
    """

    # Prompt and template

    chat_template: Annotated[
        str | None, Default("the model's own"), Needs("--trust-request-chat-template (0.11 or newer)")
    ]
    """A Jinja chat template to use instead of the model's own.

    Default: the model's own. Needs: --trust-request-chat-template (0.11 or newer).
    """
    chat_template_kwargs: Mapping[str, object] | None
    """Variables for the chat template, such as `{"enable_thinking": False}`.

    The server drops variables that the template does not know. The keys `chat_template`, `add_generation_prompt` and
    `continue_final_message` raise: use the parameters of the same names. The key `tokenize` raises too.
    """
    documents: Sequence[Mapping[str, str]] | None
    """Documents for templates that support retrieval, each with a `title` and a `text`."""
    add_generation_prompt: Annotated[bool | None, Default("True")]
    """End the prompt with the start of an assistant message.

    Default: True.
    """
    continue_final_message: Annotated[bool | None, Default("False")]
    """Continue the last message instead of replying to it, to prefill the reply with an assistant message.

    Also sends `add_generation_prompt=False`, which the server requires. Setting both to True raises.

    Default: False.
    """
    echo: Annotated[bool | None, Default("False")]
    """Prepend the last message to the reply, if it has the same role.

    Default: False.
    """
    add_special_tokens: Annotated[bool | None, Default("False")]
    """Add the tokenizer's special tokens, such as the beginning-of-sequence token, to the rendered prompt.

    Chat templates usually add them already.

    Default: False.
    """
    media_io_kwargs: Annotated[
        Mapping[str, Mapping[str, object]] | None,
        Since("0.18"),
        Needs("--trust-request-mm-kwargs (0.31 or newer)"),
    ]
    """How to load media, by modality: `{"video": {"num_frames": 40}}`.

    Needs: --trust-request-mm-kwargs (0.31 or newer). Since: vLLM 0.18.
    """
    mm_processor_kwargs: Annotated[
        Mapping[str, object] | None, Needs("--trust-request-mm-kwargs (0.31 or newer)")
    ]
    """Arguments for the model's image, audio and video processor.

    Needs: --trust-request-mm-kwargs (0.31 or newer).
    """

    # Output

    return_prompt_text: Annotated[bool | None, Default("False"), Since("0.21")]
    """Return the prompt as the chat template rendered it.

    Default: False. Since: vLLM 0.21.
    """
    return_weight_versions: Annotated[bool | None, Default("False"), Since("0.33")]
    """Return which version of the weights generated each token, for servers that update weights while running.

    Default: False. Since: vLLM 0.33.
    """
