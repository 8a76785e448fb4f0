"""The request parameters of a response. What they share with a chat's is written there, in `chat.params`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Required, TypeAlias

from typing_extensions import TypedDict

from vllmchat.chat.params import (
    CallBase,
    ReasoningEffort,
    SamplingBase,
    TopPBase,
    VLLMRenderingBase,
    VLLMSamplingBase,
)
from vllmchat.checking.rules import Bounds, Default, Length, Needs, Since

__all__ = [
    "ResponseCodeInterpreter",
    "ResponseCustomTool",
    "ResponseFunctionTool",
    "ResponseJSONObjectFormat",
    "ResponseJSONSchemaFormat",
    "ResponseMCPTool",
    "ResponseNamedTool",
    "ResponseParams",
    "ResponseReasoning",
    "ResponseText",
    "ResponseTextFormat",
    "ResponseTool",
    "ResponseWebSearch",
]


class ResponseFunctionTool(TypedDict, total=False, closed=True):
    """A function the model may call. Unlike in chats, its keys stand beside `type`."""

    type: Required[Literal["function"]]
    """Always `"function"`."""
    name: Required[Annotated[str, Length(1)]]
    """Its name, as it comes back in the call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it: the model reads this."""
    parameters: Mapping[str, object] | None
    """JSON schema of its arguments: an object schema."""
    strict: bool | None
    """Hold the arguments to the schema."""
    defer_loading: bool | None
    """Leave it out of the prompt until a tool search finds it, for models with such a search."""


class ResponseCustomTool(TypedDict, total=False, closed=True):
    """A tool that takes text instead of JSON arguments."""

    type: Required[Literal["custom"]]
    """Always `"custom"`."""
    name: Required[Annotated[str, Length(1)]]
    """Its name, as it comes back in the call.

    Range: not empty.
    """
    description: str | None
    """What it does and when to call it."""
    format: Mapping[str, object] | None
    """What its input looks like: `{"type": "text"}`; vLLM takes no grammar."""


class ResponseMCPTool(TypedDict, total=False, closed=True):
    """Tools of an MCP server that the vLLM server was started with (`--tool-server`)."""

    type: Required[Literal["mcp"]]
    """Always `"mcp"`."""
    server_label: Required[Annotated[str, Length(1)]]
    """The name of the MCP server.

    Range: not empty.
    """
    server_url: str | None
    """Where it is."""
    server_description: str | None
    """What it is for."""
    headers: Mapping[str, str] | None
    """Headers for it."""
    allowed_tools: Sequence[str] | Mapping[str, object] | None
    """Which of its tools may be called."""
    require_approval: str | Mapping[str, object] | None
    """Which calls must be approved."""


class ResponseWebSearch(TypedDict, total=False, closed=True):
    """A web search by the server, for models and servers that have one."""

    type: Required[Literal["web_search_preview", "web_search"]]
    """`"web_search_preview"` or `"web_search"`."""
    search_context_size: Literal["low", "medium", "high"] | None
    """How much of the context window the findings may take."""
    user_location: Mapping[str, object] | None
    """Roughly where the user is."""


class ResponseCodeInterpreter(TypedDict, total=False, closed=True):
    """A Python interpreter of the server, for models and servers that have one."""

    type: Required[Literal["code_interpreter"]]
    """Always `"code_interpreter"`."""
    container: Required[str | Mapping[str, object]]
    """Where the code runs: `{"type": "auto"}`."""


ResponseTool: TypeAlias = (
    ResponseFunctionTool | ResponseCustomTool | ResponseMCPTool | ResponseWebSearch | ResponseCodeInterpreter
)


class ResponseNamedTool(TypedDict, closed=True):
    """This function must be called."""

    type: Literal["function", "custom"]
    """`"function"` or `"custom"`."""
    name: Annotated[str, Length(1)]
    """Its name.

    Range: not empty.
    """


class ResponseReasoning(TypedDict, total=False, closed=True):
    """How the model reasons."""

    effort: ReasoningEffort | None
    """How much to reason before the reply, for models whose chat template reads it."""


class ResponseTextFormat(TypedDict, closed=True):
    """Free text: no constraint."""

    type: Literal["text"]
    """Always `"text"`."""


class ResponseJSONObjectFormat(TypedDict, closed=True):
    """Any JSON object."""

    type: Literal["json_object"]
    """Always `"json_object"`."""


class ResponseJSONSchemaFormat(TypedDict, total=False, closed=True):
    """JSON that a schema describes. Unlike in chats, its keys stand beside `type`."""

    type: Required[Literal["json_schema"]]
    """Always `"json_schema"`."""
    name: Required[Annotated[str, Length(1)]]
    """What to call it.

    Range: not empty.
    """
    schema: Required[Mapping[str, object]]
    """The schema itself."""
    description: str | None
    """What the format is for."""
    strict: bool | None
    """OpenAI's strict mode. vLLM always holds the reply to the schema, whatever this says."""


class ResponseText(TypedDict, total=False, closed=True):
    """What the text of the reply looks like."""

    format: ResponseTextFormat | ResponseJSONObjectFormat | ResponseJSONSchemaFormat | None
    """Hold it to JSON, or to a JSON schema."""


class ResponseParams(
    SamplingBase, TopPBase, VLLMSamplingBase, VLLMRenderingBase, CallBase, total=False, closed=True
):
    """What `respond` takes: those fields of OpenAI's responses request that vLLM acts on, and vLLM's own.

    The version in the text of a parameter that chats have too is that of chats; the documentation lists where it is
    another here.
    """

    instructions: str | None
    """What the model is told before the input, as a system message. Those of an earlier response do not hold on."""
    max_output_tokens: Annotated[
        int | None,
        Bounds(ge=1),
        Default("what the context leaves, or `max_new_tokens` of the generation config"),
    ]
    """Longest reply, in tokens, reasoning included.

    Range: at least 1. Default: what the context leaves, or `max_new_tokens` of the generation config.
    """
    text: ResponseText | None
    """What the text of the reply looks like. Not together with `structured_outputs`."""
    reasoning: ResponseReasoning | None
    """How the model reasons: `{"effort": "low"}`."""
    include_reasoning: Annotated[bool | None, Default("True"), Since("0.26")]
    """False: the model reasons, but its reasoning is left out of the answer.

    Default: True. Since: vLLM 0.26.
    """
    enable_thinking: Annotated[bool | None, Since("0.22")]
    """Let the model reason before the reply, or not: sent as `chat_template_kwargs={"enable_thinking": ...}`.

    Since: vLLM 0.22.
    """
    chat_template_kwargs: Annotated[Mapping[str, object] | None, Since("0.22")]
    """Variables for the chat template, such as `{"enable_thinking": False}`.

    Since: vLLM 0.22.
    """
    tools: Annotated[Sequence[ResponseTool | Callable[..., object]] | None, Length(1)]
    """The tools the model may call. A function of Python stands for its description.

    They mean `"auto"`, which needs the server's `--enable-auto-tool-choice` and `--tool-call-parser`.

    Range: not empty.
    """
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ResponseNamedTool | None,
        Default('`"auto"` with `tools`, else `"none"`'),
    ]
    """Whether a tool must be called: none, as the model sees fit, at least one, or the one that is named.

    Default: `"auto"` with `tools`, else `"none"`.
    """
    parallel_tool_calls: Annotated[bool | None, Default("True")]
    """Whether one reply may hold several tool calls.

    Default: True.
    """
    max_tool_calls: Annotated[int | None, Bounds(ge=1)]
    """How many calls of the server's own tools there may be.

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
    """What else to return. vLLM knows `"message.output_text.logprobs"`, the log probabilities of the text's tokens."""
    top_logprobs: Annotated[int | None, Bounds(ge=-1), Default("0")]
    """How many of the most likely tokens to return at each place, with `include=["message.output_text.logprobs"]`.

    Range: at least -1. Default: 0.
    """
    truncation: Annotated[Literal["auto", "disabled"] | None, Default('`"disabled"`')]
    """Whether an input that is too long is cut (`"auto"`) or refused.

    Default: `"disabled"`.
    """
    previous_response_id: Annotated[str | None, Needs("VLLM_ENABLE_RESPONSES_API_STORE=1")]
    """The response that the input goes on from; it was not made with `store=False`.

    A server without that setting in its environment keeps none and does not find it: send what was said as input.

    Needs: `VLLM_ENABLE_RESPONSES_API_STORE=1`.
    """
    store: Annotated[bool | None, Default("True"), Needs("VLLM_ENABLE_RESPONSES_API_STORE=1")]
    """Keep the response on the server, for `previous_response_id`.

    A server with that setting in its environment does so unless this is False; any other ignores it without a word.

    Default: True. Needs: `VLLM_ENABLE_RESPONSES_API_STORE=1`.
    """
    previous_input_messages: Annotated[Sequence[Mapping[str, object]] | None, Since("0.11.1")]
    """The conversation before the input, as `enable_response_messages` returned it, for gpt-oss models.

    Since: vLLM 0.11.1.
    """
    enable_response_messages: Annotated[bool | None, Default("False"), Since("0.11")]
    """Return the prompt and the reply as the model reads and writes them.

    Default: False. Since: vLLM 0.11.
    """
    metadata: Mapping[str, str] | None
    """Labels that come back with the response."""
    user: str | None
    """A name for the end user. It comes back with the response."""
    spaces_between_special_tokens: Annotated[bool | None, Default("True"), Since("0.33")]
    """Put spaces between special tokens, where they are shown.

    Default: True. Since: vLLM 0.33.
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
