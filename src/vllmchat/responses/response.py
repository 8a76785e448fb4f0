"""A whole response: the items that the model generated, and the usage.

Parsing is lenient: null and absent are the same, missing fields have defaults, and unknown fields are kept in
`model_extra`.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from vllmchat.chat.completion import FunctionCall, ToolCall, mark_truncated
from vllmchat.http.call import ResponseHead
from vllmchat.wire import markdown
from vllmchat.wire.decode import (
    NEEDED,
    Answer,
    JsonObject,
    JsonText,
    LenientInt,
    LenientList,
    LenientStr,
    WireModel,
    decode,
    default_for_null,
    drop_empty_usage,
    unexpected_body,
    with_record,
)
from vllmchat.wire.usage import LINE_BREAKS, RequestMetrics, ResponseUsage, TokenLogprob

NEEDED_IN_RESPONSES = NEEDED | {"output", "item", "part", "response"}
"""See `NEEDED`."""

ResponseStatus: TypeAlias = Literal["completed", "incomplete", "in_progress", "failed", "cancelled", "queued"]
"""The status of a response or an item.

- `"completed"`: the model ended it.
- `"incomplete"`: `max_output_tokens` or the model's context truncated it; see `incomplete_details`.
- `"in_progress"`: a stream is still running, or broke off.
- `"cancelled"`: the server aborted it.
- `"failed"`, `"queued"`: servers other than vLLM.
"""


_GOOD = frozenset({"completed", "", None})


class ResponsePart(WireModel):
    """A part of an item's content."""

    type: LenientStr = ""
    """`"output_text"`, `"reasoning_text"`, `"refusal"` and others."""

    text: LenientStr = ""
    """The text."""

    annotations: list[JsonObject] | None = None
    """Citations and the like."""

    logprobs: list[TokenLogprob] | None = None
    """Log probabilities of the text's tokens, if `include` requested them."""

    refusal: str | None = None
    """Why the model declined, in a part of type `"refusal"`. vLLM does not return it."""


class ResponseItem(WireModel):
    """An item that the model generated: a message, reasoning or a tool call. It can be sent back unchanged as input."""

    type: LenientStr = ""
    """`"message"`, `"reasoning"`, `"function_call"`, `"custom_tool_call"`, `"mcp_call"` and others."""

    id: str | None = None
    """Its id."""

    status: ResponseStatus | str | None = None
    """Its status."""

    role: str | None = None
    """For a message: the author's role, `"assistant"`."""

    content: list[ResponsePart] | None = None
    """The parts of a message or of reasoning."""

    summary: list[ResponsePart] | None = None
    """A summary of reasoning. vLLM does not return it."""

    name: str | None = None
    """For a tool call: the tool's name."""

    arguments: JsonText | None = None
    """For a function call: the arguments as the model wrote them, as JSON text."""

    call_id: str | None = None
    """For a tool call: the id that the result must have as its `call_id`."""

    @property
    def text(self) -> str:
        """The text of its parts, joined."""
        return "".join(part.text for part in self.content or ())

    def to_request(self) -> dict[str, object]:
        """Returns the item in the form for a request's input, without nulls."""
        return self.model_dump(mode="json", exclude_none=True, exclude_unset=True)


class IncompleteDetails(WireModel):
    """Why a response is not complete."""

    reason: str | None = None
    """`"max_output_tokens"`; from other servers also `"content_filter"`."""


class ModelResponse(Answer):
    """A whole response."""

    id: LenientStr = ""
    """The id of the response: `resp_...`."""

    object: Annotated[str, default_for_null(lambda: "response")] = "response"
    """Always `"response"`."""

    created_at: LenientInt = 0
    """When the server created it, in seconds since 1970."""

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name."""

    status: ResponseStatus | str | None = None
    """Its status."""

    output: LenientList[ResponseItem] = Field(default_factory=list[ResponseItem])
    """The generated items, in order. Add them to the input of the next request: `history += response.output`."""

    usage: ResponseUsage | None = None
    """The token usage. None while a stream is running."""

    incomplete_details: IncompleteDetails | None = None
    """Why it is not complete."""

    error: JsonObject | None = None
    """Why it failed. Only from servers other than vLLM."""

    instructions: str | None = None
    """The requested `instructions`."""

    max_output_tokens: int | None = None
    """The maximum length of the reply, in tokens."""

    temperature: float | None = None
    """The temperature used."""

    top_p: float | None = None
    """The `top_p` used."""

    previous_response_id: str | None = None
    """The id of the response that it continues."""

    metadata: dict[str, str] | None = None
    """The labels from the request."""

    safety_identifier: str | None = None
    """The requested `safety_identifier`. Since vLLM 0.33."""

    prompt_cache_key: str | None = None
    """The requested `prompt_cache_key`. Since vLLM 0.33."""

    prompt_cache_options: JsonObject | None = None
    """The requested `prompt_cache_options`, without `prewarm`. Since vLLM 0.33."""

    prompt_cache_retention: str | None = None
    """The requested `prompt_cache_retention`. Since vLLM 0.33."""

    kv_transfer_params: JsonObject | None = None
    """For disaggregated prefill and decode; pass it on unchanged."""

    ec_transfer_params: JsonObject | None = None
    """The same for a disaggregated encoder."""

    input_messages: list[JsonObject] | None = None
    """The prompt as the model reads it, if `enable_response_messages` requested it."""

    output_messages: list[JsonObject] | None = None
    """The reply as the model wrote it, if `enable_response_messages` requested it."""

    metrics: RequestMetrics | None = None
    """Timings measured by the server."""

    @property
    def text(self) -> str:
        """The text of all messages, without the line breaks around it; empty if there is none.

        The items of `output` keep them.
        """
        text = "".join(item.text for item in self.output if item.type == "message")
        return text.strip(LINE_BREAKS)

    @property
    def reasoning(self) -> str | None:
        """The reasoning before the reply, without the line breaks around it, or None. It is never part of `text`."""
        thoughts = [item.text for item in self.output if item.type == "reasoning" and item.content]
        return "".join(thoughts).strip(LINE_BREAKS) or None

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the reasoning, the text and the tool calls."""
        return markdown.reply(self.text, self.reasoning, self.tool_calls)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The function calls, in order, in the form of chats. `ToolCall.id` is the `call_id`."""
        # vLLM reports truncated items as completed, so the last item of a truncated response counts as truncated. Old
        # servers also report the response as completed, even if it has as many tokens as it may have.
        most, usage = self.max_output_tokens, self.usage
        full = most is not None and usage is not None and usage.output_tokens >= most
        was_cut = full or self.status not in (*_GOOD, "in_progress", "queued")
        cut = self.output[-1] if self.output and was_cut else None
        calls: list[ToolCall] = []
        for item in self.output:
            if item.type == "function_call":
                function = FunctionCall(name=item.name or "", arguments=item.arguments or "")
                call = ToolCall(id=item.call_id or "", function=function)
                if item.status not in _GOOD or item is cut:
                    mark_truncated(call)
                calls.append(call)
        return calls


def decode_response(body: bytes, *, head: ResponseHead | None = None) -> ModelResponse:
    """Parses the body of a response without streaming.

    Raises:
        ResponseError: The body is not a Responses API response: not JSON, or JSON of another shape.
    """
    response = decode(ModelResponse, body, "a response", needed=NEEDED_IN_RESPONSES)
    if "output" not in response.model_fields_set:
        raise unexpected_body("a response", body, "it has no output")
    drop_empty_usage(response)
    return with_record(response, head)
