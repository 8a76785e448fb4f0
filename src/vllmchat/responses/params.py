"""The request parameters of a response. Those shared with chats are in `chat.params`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Required, TypeAlias

from typing_extensions import TypedDict

from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import Bounds, Default, Length, Needs, Since
from vllmchat.sampling.formats import JSONObjectFormat, TextFormat
from vllmchat.sampling.params import (
    ReasoningEffort,
    SamplingBase,
    TopPBase,
    VLLMRenderingBase,
    VLLMSamplingBase,
)

__all__ = [
    "OpenAIResponseParams",
    "ResponseBase",
    "ResponseCodeInterpreter",
    "ResponseCustomTool",
    "ResponseFunctionTool",
    "ResponseJSONSchemaFormat",
    "ResponseMCPTool",
    "ResponseNamedTool",
    "ResponseParams",
    "ResponsePromptCacheOptions",
    "ResponseReasoning",
    "ResponseText",
    "ResponseTool",
    "ResponseWebSearch",
]


class ResponseFunctionTool(TypedDict, total=False, closed=True):
    """A function the model may call. Unlike in chats, its keys are next to `type`, not nested."""

    type: Required[Literal["function"]]
    """Always `"function"`."""
    name: Required[Annotated[str, Length(1)]]
    """Its name, as it appears in the call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it. The model reads this."""
    parameters: Mapping[str, object] | None
    """JSON schema of its arguments: an object schema."""
    strict: bool | None
    """Constrain the arguments to the schema."""
    defer_loading: bool | None
    """Leave it out of the prompt until a tool search finds it, for models that support tool search."""


class ResponseCustomTool(TypedDict, total=False, closed=True):
    """A tool that accepts text instead of JSON arguments."""

    type: Required[Literal["custom"]]
    """Always `"custom"`."""
    name: Required[Annotated[str, Length(1)]]
    """Its name, as it appears in the call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it."""
    format: Mapping[str, object] | None
    """The format of its input: `{"type": "text"}`. vLLM does not support grammars."""


class ResponseMCPTool(TypedDict, total=False, closed=True):
    """Tools of an MCP server that the vLLM server is configured with (`--tool-server`)."""

    type: Required[Literal["mcp"]]
    """Always `"mcp"`."""
    server_label: Required[Annotated[str, Length(1)]]
    """The name of the MCP server.

    Range: not empty.
    """
    server_url: str | None
    """URL of the MCP server."""
    server_description: str | None
    """What the MCP server is for."""
    headers: Mapping[str, str] | None
    """Headers to send to the MCP server."""
    allowed_tools: Sequence[str] | Mapping[str, object] | None
    """Which of its tools may be called."""
    require_approval: str | Mapping[str, object] | None
    """Which calls must be approved."""


class ResponseWebSearch(TypedDict, total=False, closed=True):
    """A web search by the server, for models and servers that have one."""

    type: Required[Literal["web_search_preview", "web_search"]]
    """`"web_search_preview"` or `"web_search"`."""
    search_context_size: Literal["low", "medium", "high"] | None
    """How much of the context window the results may use."""
    user_location: Mapping[str, object] | None
    """Roughly where the user is."""


class ResponseCodeInterpreter(TypedDict, total=False, closed=True):
    """A Python interpreter on the server, for models and servers that have one."""

    type: Required[Literal["code_interpreter"]]
    """Always `"code_interpreter"`."""
    container: Required[str | Mapping[str, object]]
    """Where the code runs: `{"type": "auto"}`."""


ResponseTool: TypeAlias = (
    ResponseFunctionTool | ResponseCustomTool | ResponseMCPTool | ResponseWebSearch | ResponseCodeInterpreter
)


class ResponseNamedTool(TypedDict, closed=True):
    """Requires a call of this function."""

    type: Literal["function", "custom"]
    """`"function"` or `"custom"`."""
    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """


class ResponseReasoning(TypedDict, total=False, closed=True):
    """How the model reasons."""

    effort: ReasoningEffort | None
    """How much to reason before the reply, for models whose chat template supports it."""


class ResponseJSONSchemaFormat(TypedDict, total=False, closed=True):
    """JSON that matches a schema. Unlike in chats, its keys are next to `type`, not nested."""

    type: Required[Literal["json_schema"]]
    """Always `"json_schema"`."""
    name: Required[Annotated[str, Length(1)]]
    """A name for the schema.

    Range: not empty.
    """
    schema: Required[Mapping[str, object]]
    """The schema."""
    description: str | None
    """What the format is for."""
    strict: bool | None
    """OpenAI's strict mode. vLLM always enforces the schema, regardless of this."""


class ResponsePromptCacheOptions(TypedDict, total=False, closed=True):
    """How OpenAI's own server caches the prompt. vLLM only returns it with the response."""

    mode: Literal["implicit", "explicit"]
    """Whether the server chooses what to cache, or the input marks it."""
    ttl: Literal["30m"]
    """How long to keep the prompt cached at least."""
    comparison_response_id: str | None
    """The id of a response to compare the cached prompt with."""
    prewarm: bool | None
    """Fill the cache without generating. It is not returned."""


class ResponseText(TypedDict, total=False, closed=True):
    """The format of the reply's text."""

    format: TextFormat | JSONObjectFormat | ResponseJSONSchemaFormat | None
    """Constrain the text to JSON or to a JSON schema."""


class ResponseBase(TypedDict, total=False):
    """The fields of OpenAI's responses request that vLLM supports. A base class."""

    instructions: str | None
    """A system message before the input. Instructions of an earlier response do not carry over."""
    max_output_tokens: Annotated[
        int | None,
        Bounds(ge=1),
        Default("the remaining context, or `max_new_tokens` of the generation config"),
    ]
    """Maximum length of the reply in tokens, including reasoning.

    Range: at least 1. Default: the remaining context, or `max_new_tokens` of the generation config.
    """
    text: ResponseText | None
    """The format of the reply's text. Cannot be combined with `structured_outputs`."""
    reasoning: ResponseReasoning | None
    """How the model reasons: `{"effort": "low"}`."""
    tools: Annotated[Sequence[ResponseTool | Callable[..., object]] | None, Length(1)]
    """The tools the model may call. Python functions are described by their name, annotations and docstring.

    The default `tool_choice` is then `"auto"`, which requires the server options `--enable-auto-tool-choice` and
    `--tool-call-parser`.

    Range: not empty.
    """
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ResponseNamedTool | None,
        Default('`"auto"` with `tools`, else `"none"`'),
    ]
    """Which tools the model calls: none, those it chooses, at least one, or the named one.

    Default: `"auto"` with `tools`, else `"none"`.
    """
    parallel_tool_calls: Annotated[bool | None, Default("True")]
    """Whether one reply may contain several tool calls.

    Default: True.
    """
    max_tool_calls: Annotated[int | None, Bounds(ge=1)]
    """Maximum number of calls of the server's own tools.

    Range: at least 1.
    """
    include: (
        Sequence[
            Literal[
                "message.output_text.logprobs",
                "reasoning.encrypted_content",
                "code_interpreter_call.outputs",
                "computer_call_output.output.image_url",
                "file_search_call.results",
                "message.input_image.image_url",
            ]
        ]
        | None
    )
    """What else to return. vLLM supports `"message.output_text.logprobs"`, the log probabilities of the text."""
    top_logprobs: Annotated[int | None, Bounds(ge=-1), Default("0")]
    """How many of the most likely tokens to return at each position.

    Requires `include=["message.output_text.logprobs"]`.

    Range: at least -1. Default: 0.
    """
    truncation: Annotated[Literal["auto", "disabled"] | None, Default('`"disabled"`')]
    """Whether an input that is too long is truncated (`"auto"`) or rejected (`"disabled"`).

    Default: `"disabled"`.
    """
    previous_response_id: Annotated[str | None, Needs("VLLM_ENABLE_RESPONSES_API_STORE=1")]
    """The id of the response to continue. It must not have been created with `store=False`.

    A server without this environment variable stores no responses and does not find it: send the earlier items as
    input instead.

    Needs: `VLLM_ENABLE_RESPONSES_API_STORE=1`.
    """
    store: Annotated[bool | None, Default("True"), Needs("VLLM_ENABLE_RESPONSES_API_STORE=1")]
    """Store the response on the server, for `previous_response_id`.

    A server with this environment variable stores it unless this is False; any other server silently ignores this.

    Default: True. Needs: `VLLM_ENABLE_RESPONSES_API_STORE=1`.
    """
    metadata: Mapping[str, str] | None
    """Labels that are returned with the response."""
    user: str | None
    """An identifier for the end user. It is returned with the response."""
    safety_identifier: Annotated[str | None, Since("0.33")]
    """A stable, anonymous name for the end user. vLLM only returns it with the response.

    Since: vLLM 0.33.
    """
    prompt_cache_key: Annotated[str | None, Since("0.15")]
    """Groups requests with similar prompts on OpenAI's own server. vLLM caches prefixes automatically and ignores it;
    since 0.33, it is returned with the response.

    Since: vLLM 0.15.
    """
    prompt_cache_options: Annotated[ResponsePromptCacheOptions | None, Since("0.33")]
    """How OpenAI's own server caches the prompt. vLLM only returns it with the response.

    Since: vLLM 0.33.
    """
    prompt_cache_retention: Annotated[Literal["in_memory", "24h"] | None, Since("0.33")]
    """How long OpenAI's own server keeps the prompt cached. vLLM only returns it with the response.

    Since: vLLM 0.33.
    """


class ResponseParams(
    ResponseBase,
    SamplingBase,
    TopPBase,
    VLLMSamplingBase,
    VLLMRenderingBase,
    CallBase,
    total=False,
    closed=True,
):
    """What `respond` accepts: the fields of OpenAI's responses request that vLLM supports, and vLLM's own.

    For parameters shared with chats, the text gives the version that added them to chats. The documentation lists
    those that differ here.
    """

    include_reasoning: Annotated[bool | None, Default("True"), Since("0.26")]
    """If False, the model reasons, but the response leaves out its reasoning.

    Default: True. Since: vLLM 0.26.
    """
    enable_thinking: Annotated[bool | None, Since("0.22")]
    """Whether the model reasons before the reply. Sent as `chat_template_kwargs={"enable_thinking": ...}`.

    Since: vLLM 0.22.
    """
    chat_template_kwargs: Annotated[Mapping[str, object] | None, Since("0.22")]
    """Variables for the chat template, such as `{"enable_thinking": False}`.

    Since: vLLM 0.22.
    """
    previous_input_messages: Annotated[Sequence[Mapping[str, object]] | None, Since("0.11.1")]
    """The conversation before the input, as `enable_response_messages` returned it, for gpt-oss models.

    Since: vLLM 0.11.1.
    """
    enable_response_messages: Annotated[bool | None, Default("False"), Since("0.11")]
    """Return the prompt and the reply in the form in which the model reads and writes them.

    Default: False. Since: vLLM 0.11.
    """
    spaces_between_special_tokens: Annotated[bool | None, Default("True"), Since("0.33")]
    """Put spaces between special tokens, if they are included in the text.

    Default: True. Since: vLLM 0.33.
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


class OpenAIResponseParams(ResponseBase, CallBase, total=False, closed=True):
    """What `OpenAIProvider.respond` accepts."""

    temperature: Annotated[float | None, Bounds(ge=0, le=2), Default("1.0")]
    """Sampling temperature: 0 always chooses the most likely token.

    Range: between 0 and 2. Default: 1.0.
    """
    top_p: Annotated[float | None, Bounds(ge=0, le=1), Default("1.0")]
    """Sample from the most likely tokens whose probabilities add up to this.

    Range: between 0 and 1. Default: 1.0.
    """
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None
    """The tier that processes the request, on OpenAI's own server."""
    conversation: str | Mapping[str, object] | None
    """The conversation on the server that the response belongs to. Not together with `previous_response_id`."""
