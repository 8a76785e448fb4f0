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
    DefaultParams, VLLMDefaultParams closed  the defaults of a provider, from the bases that hold nothing else

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
    Length,
    Needs,
    Since,
)
from vllmchat.sampling.formats import ResponseFormat
from vllmchat.sampling.params import (
    ReasoningEffort,
    SamplingBase,
    SeveralBase,
    TopPBase,
    VLLMDecodingBase,
    VLLMLimitsBase,
    VLLMPromptingBase,
    VLLMRenderingBase,
    VLLMSamplingBase,
    VLLMTokensBase,
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
    "DefaultParams",
    "Moderation",
    "ModerationMode",
    "ModerationPolicy",
    "OpenAISamplingBase",
    "PlainChatParams",
    "Prediction",
    "PromptCacheOptions",
    "ReasoningEffortBase",
    "ReplyLengthBase",
    "ServiceTier",
    "TextPiece",
    "ThinkingBase",
    "UserLocation",
    "VLLMChatParams",
    "VLLMDefaultParams",
    "WebSearchOptions",
]


ServiceTier: TypeAlias = Literal["auto", "default", "flex", "scale", "priority", "fast"]


# Nested values


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


class ReplyLengthBase(TypedDict, total=False):
    """How long a reply may be. A base class."""

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


class ChatParamsBase(SamplingBase, ReplyLengthBase, SeveralBase, CallBase, total=False):
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
    response_format: ResponseFormat | TypeForm[Any] | None
    """Constrain the reply to JSON, a JSON schema or a structural tag.

    A type is sent as its JSON schema: a pydantic model, a dataclass, a TypedDict, `list[int]`,
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


class ReasoningEffortBase(TypedDict, total=False):
    """`reasoning_effort` as vLLM accepts it. A base class."""

    reasoning_effort: Annotated[ReasoningEffort | None, Since("0.10.1")]
    """How much to reason before the reply, for models whose chat template supports it.

    Since 0.22, vLLM also sets the template variable `enable_thinking`: False for `"none"`, True otherwise. The
    parameters `enable_thinking` and `chat_template_kwargs` take precedence over that. With older servers, set
    `enable_thinking` too. vLLM up to 0.17 accepts only `"low"`, `"medium"` and `"high"`; 0.18 to 0.20 also `"none"`.

    Since: vLLM 0.10.1.
    """


class PlainChatParams(ChatParamsBase, TopPBase, ReasoningEffortBase, total=False):
    """The other common parameters, in the form that vLLM accepts. A base class; use one of the closed classes below."""

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


class OpenAISamplingBase(TypedDict, total=False):
    """How OpenAI's API samples, as far as it differs from vLLM. A base class."""

    top_p: Annotated[float | None, Bounds(ge=0, le=1), Default("1.0")]
    """Sample only from the most likely tokens whose probabilities add up to this. 1 keeps all tokens.

    Range: between 0 and 1. Default: 1.0.
    """
    reasoning_effort: ReasoningEffort | str | None
    """How much to reason before the reply. Servers may accept other values."""
    verbosity: Literal["low", "medium", "high"] | None
    """How verbose the reply is."""


class ChatParams(ChatParamsBase, OpenAISamplingBase, total=False, closed=True):
    """What `OpenAIProvider` accepts: OpenAI's chat completions request."""

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
    web_search_options: WebSearchOptions | None
    """A web search by the server, for models that have one."""
    functions: Annotated[Sequence[FunctionDefinition] | None, Length(1)]
    """The functions the model may call: the old form of `tools`, for servers that support nothing else.

    Range: not empty.
    """
    function_call: Literal["none", "auto"] | FunctionCallName | None
    """Whether a function must be called: the old form of `tool_choice`."""


class ThinkingBase(TypedDict, total=False):
    """Whether and how the model reasons, in chats with a vLLM server. A base class."""

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

    chat_template_kwargs: Mapping[str, object] | None
    """Variables for the chat template, such as `{"enable_thinking": False}`.

    The server drops variables that the template does not know. The keys `chat_template`, `add_generation_prompt` and
    `continue_final_message` raise: use the parameters of the same names. The key `tokenize` raises too.
    """


class VLLMChatParams(
    PlainChatParams,
    VLLMSamplingBase,
    VLLMDecodingBase,
    VLLMRenderingBase,
    VLLMPromptingBase,
    ThinkingBase,
    total=False,
    closed=True,
):
    """What `VLLMProvider` accepts: every field of vLLM's chat completions request."""

    # Prompt and template

    chat_template: Annotated[
        str | None, Default("the model's own"), Needs("--trust-request-chat-template (0.11 or newer)")
    ]
    """A Jinja chat template to use instead of the model's own.

    Default: the model's own. Needs: --trust-request-chat-template (0.11 or newer).
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


# The defaults of a provider


class DefaultParams(SamplingBase, ReplyLengthBase, OpenAISamplingBase, total=False, closed=True):
    """The parameters that an `OpenAIProvider` can have defaults for. A call's own parameters override them."""


class VLLMDefaultParams(
    SamplingBase,
    TopPBase,
    ReplyLengthBase,
    ReasoningEffortBase,
    VLLMTokensBase,
    VLLMLimitsBase,
    ThinkingBase,
    total=False,
    closed=True,
):
    """The parameters that a `VLLMProvider` can have defaults for. A call's own parameters override them."""
