"""The request parameters of a chat, as TypedDicts for `**params: Unpack[...]`.

One source: a parameter is its annotation and the text under it. Type checkers and editors read them, the
check before sending is compiled from them (`checkers`), and so is the table in `docs/parameters.md`. The last
paragraph of each text (bounds, default, version) is written by `scripts/parameters_page.py` from the
annotation.

Every value may be `None`, which means "not set": it is not sent. Server defaults are not sent either, since a
value that is sent overrides what the model's own `generation_config.json` recommends.

How the classes stand beside each other is decided by what type checkers accept::

    CallBase, SamplingBase, SeveralBase     open: what other endpoints take as well, written once
    └── ChatParamsBase                      open: what all chats have
        ├── ChatParams              closed  OpenAIProvider
        └── PlainChatParams                 open: the common fields in their narrower form
            ├── CommonChatParams    closed  the Provider protocol: what every provider takes
            └── VLLMChatParams      closed  VLLMProvider; with the bases named VLLM...Base

A method that takes `Unpack[ChatParams]` or `Unpack[VLLMChatParams]` satisfies a protocol whose method takes
`Unpack[CommonChatParams]`, under mypy and under pyright, because all three are closed (PEP 728): a closed
TypedDict unpacks to exactly its keys, so the two are methods with more optional keywords. With an open
TypedDict in the protocol, pyright assumes that any further keyword may come and refuses both.
"""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Required, TypeAlias

from typing_extensions import TypedDict, TypeForm

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
from vllmchat.http.timeout import Timeout

__all__ = [
    "AllowedTools",
    "AllowedToolsChoice",
    "ApproximateLocation",
    "AudioOutput",
    "CallBase",
    "ChatParams",
    "ChatParamsBase",
    "CommonChatParams",
    "CustomDefinition",
    "CustomName",
    "CustomTool",
    "CustomVoice",
    "FunctionCallName",
    "FunctionDefinition",
    "FunctionName",
    "FunctionTool",
    "GrammarInputFormat",
    "InputGrammar",
    "JSONObjectFormat",
    "JSONSchema",
    "JSONSchemaFormat",
    "LegacyStructuralTagFormat",
    "Moderation",
    "ModerationMode",
    "ModerationPolicy",
    "NamedCustomToolChoice",
    "NamedToolChoice",
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
    "TextInputFormat",
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


# What the reply must look like


class StructuredOutputs(TypedDict, total=False, closed=True):
    """A constraint that the reply is held to while it is generated. Exactly one of the first six keys.

    Which library enforces it (xgrammar, guidance, outlines, lm-format-enforcer) is chosen when the server
    starts.
    """

    json: Annotated[str | Mapping[str, object] | TypeForm[Any] | None, NotBlank()]
    """A JSON schema, as a mapping or as a JSON string; or a type that has one, such as a pydantic model.

    Range: not blank.
    """
    regex: Annotated[str | None, Without("\0")]
    """A regular expression that the whole reply matches.

    Range: without NUL.
    """
    choice: Annotated[Sequence[str] | None, Length(1)]
    """The replies to choose from.

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
    """Allow no property that the JSON schema does not name.

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
    """What to call it. OpenAI's own server allows letters, digits, `_` and `-`, at most 64.

    Range: not empty.
    """
    description: str | None
    """What the format is for."""
    schema: Mapping[str, object] | None
    """The schema itself, which vLLM needs. `Model.model_json_schema()` of a pydantic model fits here."""
    strict: bool | None
    """OpenAI's strict mode. vLLM always holds the reply to the schema, whatever this says."""


class JSONSchemaFormat(TypedDict, closed=True):
    """JSON that a schema describes."""

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
    """The JSON schema of what stands inside."""
    end: Required[str]
    """The text that closes the passage."""


class LegacyStructuralTagFormat(TypedDict, closed=True):
    """Free text with constrained passages, in vLLM's older notation."""

    type: Literal["structural_tag"]
    """Always `"structural_tag"`."""
    structures: Sequence[StructuralTagPassage]
    """The passages."""
    triggers: Sequence[str]
    """The texts after which a passage must follow."""


ResponseFormat: TypeAlias = (
    TextFormat | JSONObjectFormat | JSONSchemaFormat | StructuralTagFormat | LegacyStructuralTagFormat
)


# Tools


class FunctionDefinition(TypedDict, total=False, closed=True):
    """A function the model may call."""

    name: Required[Annotated[str, Length(1)]]
    """Its name, as it comes back in the tool call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it: the model reads this."""
    parameters: Mapping[str, object] | None
    """JSON schema of its arguments: an object schema. Without it the function takes no arguments."""
    strict: Annotated[bool | None, Since("0.24")]
    """Hold the arguments to the schema.

    Since: vLLM 0.24.
    """
    defer_loading: Annotated[bool | None, Since("0.21")]
    """Leave it out of the prompt until a tool search finds it, for models with such a search.

    Since: vLLM 0.21.
    """


class FunctionTool(TypedDict, total=False, closed=True):
    """A tool that is a function."""

    type: Required[Literal["function"]]
    """Always `"function"`."""
    function: Required[FunctionDefinition]
    """The function."""
    defer_loading: Annotated[bool | None, Since("0.21")]
    """Leave it out of the prompt until a tool search finds it, for models with such a search.

    Since: vLLM 0.21.
    """


class FunctionName(TypedDict, closed=True):
    """The name of a function among the `tools`."""

    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """


class NamedToolChoice(TypedDict, closed=True):
    """This function must be called."""

    type: Literal["function"]
    """Always `"function"`."""
    function: FunctionName
    """Which one."""


class TextInputFormat(TypedDict, closed=True):
    """The input of a custom tool is free text."""

    type: Literal["text"]
    """Always `"text"`."""


class InputGrammar(TypedDict, closed=True):
    """The grammar of a custom tool's input."""

    definition: str
    """The grammar itself."""
    syntax: Literal["lark", "regex"]
    """Its notation."""


class GrammarInputFormat(TypedDict, closed=True):
    """The input of a custom tool follows a grammar."""

    type: Literal["grammar"]
    """Always `"grammar"`."""
    grammar: InputGrammar
    """The grammar."""


class CustomDefinition(TypedDict, total=False, closed=True):
    """A tool that takes text instead of JSON arguments."""

    name: Required[Annotated[str, Length(1)]]
    """Its name, as it comes back in the tool call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it."""
    format: TextInputFormat | GrammarInputFormat | None
    """What its input looks like."""


class CustomTool(TypedDict, closed=True):
    """A custom tool, for servers that know them. vLLM does not."""

    type: Literal["custom"]
    """Always `"custom"`."""
    custom: CustomDefinition
    """The tool."""


class CustomName(TypedDict, closed=True):
    """The name of a custom tool among the `tools`."""

    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """


class NamedCustomToolChoice(TypedDict, closed=True):
    """This custom tool must be called."""

    type: Literal["custom"]
    """Always `"custom"`."""
    custom: CustomName
    """Which one."""


class AllowedTools(TypedDict, closed=True):
    """A choice among the `tools`."""

    mode: Literal["auto", "required"]
    """Whether one of them must be called."""
    tools: Sequence[Mapping[str, object]]
    """The allowed ones, such as `{"type": "function", "function": {"name": "get_weather"}}`."""


class AllowedToolsChoice(TypedDict, closed=True):
    """Only some of the `tools` may be called."""

    type: Literal["allowed_tools"]
    """Always `"allowed_tools"`."""
    allowed_tools: AllowedTools
    """Which ones."""


class FunctionCallName(TypedDict, closed=True):
    """This function must be called (old form)."""

    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """


# Streaming and the rest


class StreamOptions(TypedDict, total=False, closed=True):
    """What a stream carries beside the text."""

    include_usage: Annotated[bool | None, Default("False; True in vLLM before 0.18")]
    """End the stream with a chunk that holds the token counts.

    Default: False; True in vLLM before 0.18.
    """
    continuous_usage_stats: Annotated[bool | None, Default("False")]
    """Put the token counts so far on every chunk. Only together with `include_usage`; vLLM and some others.

    Default: False.
    """
    include_obfuscation: bool | None
    """Random characters on each chunk that hide how long its text is; OpenAI's own server alone."""


class RepetitionDetection(TypedDict, total=False, closed=True):
    """When to end a reply that repeats itself: a pattern of tokens, some number of times in a row."""

    max_pattern_size: Annotated[int, Bounds(ge=0), Default("0: no detection")]
    """Longest pattern to look for, in tokens. 0 switches the detection off.

    Range: at least 0. Default: 0: no detection.
    """
    min_pattern_size: Annotated[int, Bounds(ge=0), Default("0")]
    """Shortest pattern to look for, in tokens; at most `max_pattern_size`. 0 means 1.

    Range: at least 0. Default: 0.
    """
    min_count: Annotated[int, Bounds(ge=0), Default("0")]
    """How often the pattern must have come in a row. At least 2, unless `max_pattern_size` is 0.

    Range: at least 0. Default: 0.
    """


class CustomVoice(TypedDict, closed=True):
    """A voice of one's own."""

    id: str
    """Its id."""


class AudioOutput(TypedDict, closed=True):
    """How spoken output sounds."""

    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    """The encoding."""
    voice: str | CustomVoice
    """Name of the voice, or a custom one by its id."""


class TextPiece(TypedDict, closed=True):
    """A piece of text."""

    type: Literal["text"]
    """Always `"text"`."""
    text: str
    """The text."""


class Prediction(TypedDict, closed=True):
    """Text that much of the reply is expected to equal."""

    type: Literal["content"]
    """Always `"content"`."""
    content: str | Sequence[TextPiece]
    """The expected text."""


class PromptCacheOptions(TypedDict, total=False, closed=True):
    """How OpenAI's own server caches the prompt."""

    mode: Literal["implicit", "explicit"]
    """Whether the server chooses what to cache or the messages mark it."""
    ttl: str
    """How long the prompt stays cached at least, such as `"30m"`."""


class ModerationMode(TypedDict, closed=True):
    """What a moderation does with what it finds."""

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
    """How much of the context window the findings may take."""
    user_location: UserLocation | None
    """Where the user is."""


# The parameters


class CallBase(TypedDict, total=False):
    """What every verb takes that sends a request to a model. A base."""

    extra_body: Mapping[str, object] | None
    """Fields for the request body as they are: the unchecked door, for servers that know more.

    Merged last, over everything else.
    """
    extra_headers: Mapping[str, str] | None
    """Headers for this request, over the provider's own."""
    timeout: Annotated[float, Bounds(gt=0)] | Timeout | None
    """How long to wait for this call, over the provider's own. A number limits the whole call, in seconds.

    Range: greater than 0.
    """


class SamplingBase(TypedDict, total=False):
    """How to sample: what every endpoint that generates takes, in one form everywhere. A base."""

    frequency_penalty: Annotated[
        float | None,
        Bounds(ge=-2, le=2),
        Default("0.0, or the model's generation config (vLLM 0.31 or newer)"),
    ]
    """Make a token less likely the more often it has been generated; negative values, more likely.

    Range: between -2 and 2. Default: 0.0, or the model's generation config (vLLM 0.31 or newer).
    """
    presence_penalty: Annotated[
        float | None,
        Bounds(ge=-2, le=2),
        Default("0.0, or the model's generation config (vLLM 0.31 or newer)"),
    ]
    """Make a token less likely once it has been generated; negative values, more likely.

    Range: between -2 and 2. Default: 0.0, or the model's generation config (vLLM 0.31 or newer).
    """
    logit_bias: Annotated[Mapping[str, float] | Mapping[int, float] | None, TokenIds()]
    """Add to the logits of some tokens before sampling: token id to bias.

    Ids may be numbers or strings of digits, and must be in the model's vocabulary. The server cuts each bias to
    the range from -100 to 100.
    """
    seed: Annotated[int | None, Bounds(ge=INT64_MIN, le=INT64_MAX), Default("random")]
    """Seed of the sampling, for the same reply again. vLLM takes -1 for "random".

    Range: between `-2**63` and `2**63 - 1`. Default: random.
    """
    stop: Annotated[str, Length(1)] | Sequence[Annotated[str, Length(1)]] | None
    """Text, or texts, at which generation ends. They are not part of the reply.

    vLLM 0.28 and newer take at most 4 (the server's `VLLM_MAX_STOP_STRINGS`); older ones any number. The
    server decides: it answers more of them with a `BadRequestError`.

    Range: not empty; each not empty.
    """
    temperature: Annotated[float | None, Bounds(ge=0, le=2), Default("1.0, or the model's generation config")]
    """How freely to sample: 0 always takes the most likely token, higher values choose more widely.

    vLLM raises values between 0 and 0.01 to 0.01. Before 0.24 it has no upper bound: `extra_body` reaches it.

    Range: between 0 and 2. Default: 1.0, or the model's generation config.
    """


class TopPBase(TypedDict, total=False):
    """`top_p` as vLLM takes it; OpenAI's protocol allows 0 as well. A base."""

    top_p: Annotated[float | None, Bounds(gt=0, le=1), Default("1.0, or the model's generation config")]
    """Sample from the most likely tokens whose probabilities sum up to this. 1 keeps all of them.

    Range: greater than 0 and at most 1. Default: 1.0, or the model's generation config.
    """


class SeveralBase(TypedDict, total=False):
    """Several replies, and streams of them: chats, completions and tokens. A base."""

    n: Annotated[int | None, Bounds(ge=1), Default("1")]
    """How many replies to generate for one prompt: `completion.choices` holds them.

    Greedy decoding (`temperature=0`) makes them all equal, and vLLM refuses it with more than one. The most a
    vLLM server allows is its `VLLM_MAX_N_SEQUENCES`, 16384.

    Range: at least 1. Default: 1.
    """
    stream_options: StreamOptions | None
    """What a stream carries beside the text. Only for streams."""


class ChatParamsBase(SamplingBase, SeveralBase, CallBase, total=False):
    """What every chat request takes, in one form everywhere. A base: take one of the closed classes below."""

    logprobs: Annotated[bool | None, Default("False")]
    """Return the log probability of each generated token. How many alternatives: `top_logprobs`.

    Default: False.
    """
    top_logprobs: Annotated[int | None, Bounds(ge=-1), Default("0")]
    """How many of the most likely tokens to return at each position. Only together with `logprobs=True`.

    The server caps it (vLLM: `--max-logprobs`, 20). -1 means the whole vocabulary, on vLLM 0.11 or newer.

    Range: at least -1. Default: 0.
    """
    max_tokens: Annotated[
        int | None,
        Bounds(ge=1),
        Default("what the context leaves, or `max_new_tokens` of the generation config"),
    ]
    """Longest reply, in tokens, reasoning included.

    `max_completion_tokens` is its newer name and wins over it. vLLM 0.31 and older refuse a request whose prompt and
    reply together exceed the model's context; newer ones cut the reply.

    Range: at least 1. Default: what the context leaves, or `max_new_tokens` of the generation config.
    """
    max_completion_tokens: Annotated[
        int | None,
        Bounds(ge=1),
        Default("what the context leaves, or `max_new_tokens` of the generation config"),
    ]
    """Longest reply, in tokens, reasoning included. The newer name of `max_tokens`.

    Range: at least 1. Default: what the context leaves, or `max_new_tokens` of the generation config.
    """
    response_format: ResponseFormat | TypeForm[Any] | None
    """Hold the reply to JSON, to a JSON schema or to a structural tag.

    A type stands for its JSON schema: a pydantic model, a dataclass, a TypedDict, `list[int]`,
    `Literal["yes", "no"]`. The verb `parse` also makes the value of it.

    `{"type": "json_schema", "json_schema": {"name": "person", "schema": {...}}}` works on every vLLM and on
    most other servers. Structural tags are a vLLM extension. `VLLMProvider` refuses it beside a
    `tool_choice` that forces a call and beside beam search, where vLLM would drop it without a word.
    """
    parallel_tool_calls: Annotated[bool | None, Default("True; vLLM before 0.12: not enforced")]
    """Whether one reply may hold several tool calls. False keeps the first only.

    Default: True; vLLM before 0.12: not enforced.
    """
    user: str | None
    """A name for the end user. vLLM ignores it."""


class PlainChatParams(ChatParamsBase, TopPBase, total=False):
    """The other common fields, in the form that vLLM takes. A base: take one of the closed classes below."""

    reasoning_effort: Annotated[ReasoningEffort | None, Since("0.10.1")]
    """How much to reason before the reply, for models whose chat template reads it.

    Since 0.22 vLLM also tells the template `enable_thinking`, False for `"none"` and True otherwise, unless
    `enable_thinking` or `chat_template_kwargs` says something else: these win. Before, give `enable_thinking`
    too. vLLM up to 0.17 knows low, medium and high, 0.18 to 0.20 also none.

    Since: vLLM 0.10.1.
    """
    tools: Annotated[Sequence[FunctionTool | Callable[..., object]] | None, Length(1)]
    """The functions the model may call: Python functions, a `Tool` of one, or mappings that describe one.

    A function is described by its name, annotations and docstring. The verb `run_tools` also calls it.

    Without a `tool_choice` they mean `"auto"`, which needs the server's `--enable-auto-tool-choice` and
    `--tool-call-parser`.

    Range: not empty.
    """
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | NamedToolChoice | None,
        Default('`"auto"` with `tools`, else `"none"`'),
    ]
    """Whether a tool must be called: none, as the model sees fit, at least one, or the one that is named.

    Only together with `tools`. `"auto"` needs the server's `--enable-auto-tool-choice` and
    `--tool-call-parser`; `"required"` and a named one need `--tool-call-parser` since vLLM 0.14.

    Default: `"auto"` with `tools`, else `"none"`.
    """


class CommonChatParams(PlainChatParams, total=False, closed=True):
    """What every provider takes: the fields that OpenAI's protocol and vLLM's share."""


class ChatParams(ChatParamsBase, total=False, closed=True):
    """What `OpenAIProvider` takes: OpenAI's chat completions request."""

    top_p: Annotated[float | None, Bounds(ge=0, le=1), Default("1.0")]
    """Sample from the most likely tokens whose probabilities sum up to this. 1 keeps all of them.

    Range: between 0 and 1. Default: 1.0.
    """
    reasoning_effort: ReasoningEffort | str | None
    """How much to reason before the reply. Servers may know further words."""
    tools: Annotated[Sequence[FunctionTool | CustomTool | Callable[..., object]] | None, Length(1)]
    """The tools the model may call: functions, and custom tools where the server knows them.

    A Python function is described by its name, annotations and docstring. The verb `run_tools` also calls it.

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
    """Whether a tool must be called: none, as the model sees fit, at least one, or which.

    Only together with `tools`.

    Default: `"auto"` with `tools`, else `"none"`.
    """
    audio: AudioOutput | None
    """How spoken output sounds; with `modalities=["text", "audio"]`."""
    metadata: Mapping[str, str] | None
    """Labels to store with the reply."""
    modalities: Annotated[Sequence[Literal["text", "audio"]] | None, Length(1), Default("text")]
    """What to generate.

    Range: not empty. Default: text.
    """
    moderation: Moderation | None
    """Moderation of prompt and reply by the server."""
    prediction: Prediction | None
    """Text that much of the reply is expected to equal, which makes it faster."""
    prompt_cache_key: str | None
    """Groups requests with similar prompts, for better use of the server's prompt cache."""
    prompt_cache_options: PromptCacheOptions | None
    """How the prompt is cached."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None
    """How long the prompt stays cached."""
    safety_identifier: str | None
    """A stable, anonymous name for the end user, for the operator's abuse detection."""
    service_tier: ServiceTier | str | None
    """The class of service. Servers may know further words."""
    store: bool | None
    """Keep the reply on the server."""
    verbosity: Literal["low", "medium", "high"] | None
    """How wordy the reply is."""
    web_search_options: WebSearchOptions | None
    """A web search by the server, for models that have one."""
    functions: Annotated[Sequence[FunctionDefinition] | None, Length(1)]
    """The functions the model may call: the old form of `tools`, for servers that know no other.

    Range: not empty.
    """
    function_call: Literal["none", "auto"] | FunctionCallName | None
    """Whether a function must be called: the old form of `tool_choice`."""


class VLLMSamplingBase(TypedDict, total=False):
    """What every endpoint of vLLM that generates takes: chats, completions, responses and tokens. A base."""

    # Sampling

    top_k: Annotated[int | None, Bounds(ge=-1), Default("0, or the model's generation config")]
    """Sample from this many of the most likely tokens. -1 and 0 both mean all; vLLM 0.8 knows only -1.

    Range: at least -1. Default: 0, or the model's generation config.
    """
    min_p: Annotated[float | None, Bounds(ge=0, le=1), Default("0.0, or the model's generation config")]
    """Drop tokens less likely than this share of the most likely one's probability. 0 keeps all.

    Range: between 0 and 1. Default: 0.0, or the model's generation config.
    """
    repetition_penalty: Annotated[
        float | None, Bounds(gt=0), Default("1.0, or the model's generation config")
    ]
    """Above 1: make tokens of the prompt and of the reply so far less likely. Below 1: more likely.

    Range: greater than 0. Default: 1.0, or the model's generation config.
    """
    stop_token_ids: Annotated[
        Sequence[Annotated[int, Bounds(ge=0)]] | None, Default("none; the model's own always end")
    ]
    """Token ids at which generation ends, beside the model's own end token.

    Range: each at least 0. Default: none; the model's own always end.
    """
    include_stop_str_in_output: Annotated[bool | None, Default("False")]
    """Keep the stop text in the reply.

    Default: False.
    """
    ignore_eos: Annotated[bool | None, Default("False")]
    """Generate on after the model's end token, until `max_tokens`: for measurements.

    Default: False.
    """
    structured_outputs: Annotated[
        StructuredOutputs | None,
        ExactlyOne("json", "regex", "choice", "grammar", "json_object", "structural_tag"),
        Since("0.11"),
    ]
    """Hold the reply to a JSON schema, a regular expression, a choice or a grammar.

    Exactly one constraint, and none beside it: no constraining `response_format`, no `tool_choice` that forces a
    call, no beam search. The server compiles it when it begins: one it cannot compile is a `BadRequestError`, in
    a stream as the first event.

    Since: vLLM 0.11.
    """
    watermarking: Annotated[
        bool | None, Default("as the server is set; True in 0.30 and 0.31"), Since("0.30")
    ]
    """Watermark the reply, on servers that are set up for it.

    Default: as the server is set; True in 0.30 and 0.31. Since: vLLM 0.30.
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
    """Arguments for extensions of the server, such as custom logits processors.

    Lists since vLLM 0.11.1, in completions since 0.26.

    Range: each at least `-2**63` and less than `2**64`. Since: vLLM 0.9.2.
    """

    # Prompt and template

    cache_salt: Annotated[str | None, Length(1, 128), Without("@/\\\0"), Since("0.9")]
    """Share the prefix cache only with requests that send the same salt, so that timing tells others nothing.

    Long random text, such as 43 characters of base64, with `-` and `_` for `+` and `/`.

    Range: 1 to 128 characters; without `@`, `/`, backslash, NUL. Since: vLLM 0.9.
    """

    # What comes back

    skip_special_tokens: Annotated[bool | None, Default("True")]
    """Leave special tokens out of the text.

    Default: True.
    """

    # Scheduling and transfer

    priority: Annotated[int | None, Bounds(ge=INT64_MIN, le=INT64_MAX), Default("0")]
    """Which request runs earlier: the one with the lower number.

    Servers without `--scheduling-policy priority` refuse what is not 0.

    Range: between `-2**63` and `2**63 - 1`. Default: 0.
    """
    request_id: Annotated[str | None, Default("random")]
    """The id of the request in the server's logs and, after a prefix such as `chatcmpl-`, of the reply.

    Default: random.
    """
    kv_transfer_params: Annotated[Mapping[str, object] | None, Since("0.9")]
    """Where the key-value cache comes from or goes to, when prefill and decode run on different servers.

    Since: vLLM 0.9.
    """
    ec_transfer_params: Annotated[Mapping[str, object] | None, Since("0.26")]
    """Where encoder outputs come from or go to, when the encoder runs on a different server.

    Since: vLLM 0.26.
    """


class VLLMDecodingBase(TypedDict, total=False):
    """What chats, completions and tokens take besides. A base."""

    # Sampling

    min_tokens: Annotated[int | None, Bounds(ge=0), Default("0")]
    """Shortest reply, in tokens; at most `max_tokens`. Until then no end and no stop is sampled.

    Range: at least 0. Default: 0.
    """
    bad_words: Annotated[Sequence[Annotated[str, Length(1)]] | None, Default("none"), Since("0.9.2")]
    """Texts the model must not write. The server turns them into at most 128 token sequences.

    Range: each not empty. Default: none. Since: vLLM 0.9.2.
    """
    allowed_token_ids: Annotated[Sequence[Annotated[int, Bounds(ge=0)]] | None, Length(1), Since("0.9.1")]
    """Only these tokens may be generated.

    Range: not empty; each at least 0. Since: vLLM 0.9.1.
    """
    repetition_detection: Annotated[RepetitionDetection | None, Since("0.17")]
    """End a reply that repeats itself; its finish reason is then `"repetition"`.

    Since: vLLM 0.17.
    """

    # Reasoning

    thinking_token_budget: Annotated[int | None, Bounds(ge=-1), Default("unlimited"), Since("0.19")]
    """Most tokens of reasoning; then it is ended and the reply begins. -1 means no limit.

    Needs a server with a reasoning parser; vLLM 0.19 wants `--reasoning-config` too. On a CPU, the engine of
    vLLM 0.22 dies of it.

    Range: at least -1. Default: unlimited. Since: vLLM 0.19.
    """

    # What comes back

    prompt_logprobs: Annotated[int | None, Bounds(ge=-1)]
    """Return the log probabilities of the prompt's tokens, with this many alternatives. Not in streams.

    The server caps it at `--max-logprobs`. -1 means the whole vocabulary, on vLLM 0.11 or newer.

    Range: at least -1.
    """
    logprob_token_ids: Annotated[Sequence[Annotated[int, Bounds(ge=0)]] | None, Length(0, 128), Since("0.26")]
    """Return the log probabilities of these tokens at each position.

    Only together with `logprobs`, and not with beam search.

    Range: at most 128 items; each at least 0. Since: vLLM 0.26.
    """
    spaces_between_special_tokens: Annotated[bool | None, Default("True")]
    """Put spaces between special tokens, where they are shown.

    Default: True.
    """
    return_token_ids: Annotated[bool | None, Default("False"), Since("0.10.2")]
    """Return the token ids of the prompt and of the reply.

    Default: False. Since: vLLM 0.10.2.
    """
    routed_experts_prompt_start: Annotated[int | None, Bounds(ge=0), Default("0"), Since("0.28")]
    """First prompt token whose routing to experts is returned, on servers that return it.

    Range: at least 0. Default: 0. Since: vLLM 0.28.
    """
    stream_interval: Annotated[int | None, Bounds(ge=1), Default("as the server is set"), Since("0.27")]
    """How many tokens go into one chunk of a stream. It can only raise the server's own value.

    Range: at least 1. Default: as the server is set. Since: vLLM 0.27.
    """


class VLLMRenderingBase(TypedDict, total=False):
    """What chats, completions and responses take besides. A base."""

    # Scheduling and transfer

    session_id: Annotated[str | None, Since("0.28")]
    """Name of the conversation, for routing to where its cache is.

    Since: vLLM 0.28.
    """


class VLLMPromptingBase(TypedDict, total=False):
    """What chats and completions take besides. A base."""

    # Sampling

    use_beam_search: Annotated[bool | None, Default("False")]
    """Search with a beam of width `n` instead of sampling.

    Of the sampling parameters, only `temperature`, `max_tokens`, `ignore_eos` and `length_penalty` mean something
    then. Constraints, stops and `min_tokens` are refused beside it: the server would drop them without a word.

    Default: False.
    """
    length_penalty: Annotated[float | None, Default("1.0")]
    """How beam search scores length: the sum of log probabilities is divided by length to this power.

    Default: 1.0.
    """

    # Prompt and template

    truncate_prompt_tokens: Annotated[int | None, Bounds(ge=-1, le=INT64_MAX), Default("no truncation")]
    """Longest prompt, in tokens; what is longer is cut at the side that `truncation_side` names.

    -1 means the model's context, on vLLM 0.10.2 or newer.

    Range: between -1 and `2**63 - 1`. Default: no truncation.
    """
    truncation_side: Annotated[
        Literal["left", "right"] | None, Default("as the tokenizer is set"), Since("0.22")
    ]
    """Which side `truncate_prompt_tokens` cuts off: `"left"` keeps the end of the prompt, `"right"` its beginning.

    Default: as the tokenizer is set. Since: vLLM 0.22.
    """

    # What comes back

    return_tokens_as_token_ids: Annotated[bool | None, Default("as the server is set")]
    """Write the tokens of log probabilities as `token_id:123`, for tokens that are no valid text.

    Default: as the server is set.
    """
    return_token_offsets: Annotated[bool | None, Default("False"), Since("0.25")]
    """Return where each prompt token stands in the text. Only for `render` and `render_completion`.

    The server has it for rendering alone: replies are the same with and without it.

    Default: False. Since: vLLM 0.25.
    """
    mm_payload: Annotated[Literal["tensors", "none"] | None, Default('`"tensors"`'), Since("0.32")]
    """What is returned for media. Only for `render` and `render_completion`.

    The server has it for rendering alone: replies are the same with and without it.

    Default: `"tensors"`. Since: vLLM 0.32.
    """
    return_mm_kwargs: Annotated[bool | None, Since("0.32")]
    """The older form of `mm_payload`, deprecated on the server: False means `"none"`. Only for `render` and
    `render_completion`.

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
    """What `VLLMProvider` takes: every field of vLLM's chat completions request."""

    # Reasoning

    enable_thinking: bool | None
    """Let the model reason before the reply, or not: sent as `chat_template_kwargs={"enable_thinking": ...}`.

    Qwen3's template and several others read it. DeepSeek's reads `thinking`:
    `chat_template_kwargs={"thinking": True}`. It wins over what `reasoning_effort` implies. An
    `enable_thinking` of another value in `chat_template_kwargs` is a contradiction and is refused.
    """
    include_reasoning: Annotated[bool | None, Default("True"), Since("0.10.1")]
    """False: the model reasons, but its reasoning is left out of the answer.

    Log probabilities and token ids are left out with it. In streams, vLLM obeys since 0.24.

    Default: True. Since: vLLM 0.10.1.
    """

    # Prompt and template

    chat_template: Annotated[
        str | None, Default("the model's own"), Needs("--trust-request-chat-template (0.11 or newer)")
    ]
    """A chat template in Jinja, in place of the model's own.

    Default: the model's own. Needs: --trust-request-chat-template (0.11 or newer).
    """
    chat_template_kwargs: Mapping[str, object] | None
    """Variables for the chat template, such as `{"enable_thinking": False}`.

    The server drops those that the template does not know. It refuses the keys `chat_template` and `tokenize`, and
    puts the parameters `add_generation_prompt` and `continue_final_message` over keys of these names.
    """
    documents: Sequence[Mapping[str, str]] | None
    """Documents for templates that know retrieval, each with a `title` and a `text`."""
    add_generation_prompt: Annotated[bool | None, Default("True")]
    """Open the assistant's turn at the end of the prompt.

    Default: True.
    """
    continue_final_message: Annotated[bool | None, Default("False")]
    """Go on writing the last message instead of answering it: prefill the reply with an assistant message.

    Sends `add_generation_prompt=False` with it, which the server needs; setting both to True is refused.

    Default: False.
    """
    echo: Annotated[bool | None, Default("False")]
    """Put the last message before the reply, when it is of the same role.

    Default: False.
    """
    add_special_tokens: Annotated[bool | None, Default("False")]
    """Add the tokenizer's special tokens, such as the beginning of the sequence, to the templated prompt.

    Templates usually write them themselves.

    Default: False.
    """
    media_io_kwargs: Annotated[
        Mapping[str, Mapping[str, object]] | None,
        Since("0.18"),
        Needs("--trust-request-mm-kwargs (0.31 or newer)"),
    ]
    """How media are loaded, by modality: `{"video": {"num_frames": 40}}`.

    Needs: --trust-request-mm-kwargs (0.31 or newer). Since: vLLM 0.18.
    """
    mm_processor_kwargs: Annotated[
        Mapping[str, object] | None, Needs("--trust-request-mm-kwargs (0.31 or newer)")
    ]
    """Arguments for the model's image, audio and video processor.

    Needs: --trust-request-mm-kwargs (0.31 or newer).
    """

    # What comes back

    return_prompt_text: Annotated[bool | None, Default("False"), Since("0.21")]
    """Return the prompt as the chat template rendered it.

    Default: False. Since: vLLM 0.21.
    """
    return_weight_versions: Annotated[bool | None, Default("False"), Since("0.33")]
    """Return which version of the weights generated what, for servers that update them while they run.

    Default: False. Since: vLLM 0.33.
    """
