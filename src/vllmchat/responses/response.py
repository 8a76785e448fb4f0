"""A whole response: items that the model put out, and what it took.

Read leniently: null and absent are the same, what is missing has its default, unknown fields are kept in
`model_extra`.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PrivateAttr

from vllmchat.chat.completion import FunctionCall, RequestMetrics, TokenLogprob, ToolCall, mark_cut
from vllmchat.wire import Items, JsonObject, JsonText, Text, Whole, WireModel, decode, not_this, null_as

ResponseStatus: TypeAlias = Literal["completed", "incomplete", "in_progress", "failed", "cancelled", "queued"]
"""How far a response or an item is.

- `"completed"`: the model ended it.
- `"incomplete"`: `max_output_tokens` or the model's context cut it; `incomplete_details` tells.
- `"in_progress"`: a stream still runs, or broke off.
- `"cancelled"`: the server gave it up.
- `"failed"`, `"queued"`: other servers than vLLM.
"""


class ResponsePart(WireModel):
    """A part of an item's content."""

    type: Text = ""
    """`"output_text"`, `"reasoning_text"`, `"refusal"` and others."""

    text: Text = ""
    """The text."""

    annotations: list[JsonObject] | None = None
    """Citations and the like."""

    logprobs: list[TokenLogprob] | None = None
    """Log probabilities of the text's tokens, when `include` asked for them."""

    refusal: str | None = None
    """Why the model declined, in a part of the type `"refusal"`. vLLM makes none."""


class ResponseItem(WireModel):
    """One thing that the model put out: a message, its reasoning, a tool call. It goes back as input as it is."""

    type: Text = ""
    """`"message"`, `"reasoning"`, `"function_call"`, `"custom_tool_call"`, `"mcp_call"` and others."""

    id: str | None = None
    """Its id."""

    status: ResponseStatus | str | None = None
    """How far it is."""

    role: str | None = None
    """Who speaks in a message: `"assistant"`."""

    content: list[ResponsePart] | None = None
    """The parts of a message or of reasoning."""

    summary: list[ResponsePart] | None = None
    """A summary of reasoning. vLLM makes none."""

    name: str | None = None
    """Of a tool call: the tool's name."""

    arguments: JsonText | None = None
    """Of a function call: the arguments as the model wrote them, JSON text."""

    call_id: str | None = None
    """Of a tool call: what the answer must name as its `call_id`."""

    @property
    def text(self) -> str:
        """The text of its parts, joined."""
        return "".join(part.text for part in self.content or ())

    def to_request(self) -> dict[str, object]:
        """The item as a request takes it for input: what is set, without the nulls."""
        return self.model_dump(mode="json", exclude_none=True, exclude_unset=True)


class InputTokensDetails(WireModel):
    """What the tokens of the prompt were."""

    cached_tokens: Whole = 0
    """How many were found in the prefix cache."""

    cache_write_tokens: int | None = None
    """How many were put into it."""


class OutputTokensDetails(WireModel):
    """What the generated tokens were."""

    reasoning_tokens: Whole = 0
    """How many were reasoning."""

    tool_output_tokens: int | None = None
    """How many came from the server's own tools."""


class ResponseUsage(WireModel):
    """How many tokens a response took."""

    input_tokens: Whole = 0
    """Tokens of the prompt."""

    output_tokens: Whole = 0
    """Generated tokens, reasoning included."""

    total_tokens: Whole = 0
    """The sum of both."""

    input_tokens_details: InputTokensDetails | None = None
    """What the tokens of the prompt were."""

    output_tokens_details: OutputTokensDetails | None = None
    """What the generated tokens were."""


class IncompleteDetails(WireModel):
    """Why a response is not complete."""

    reason: str | None = None
    """`"max_output_tokens"`; with other servers also `"content_filter"`."""


class ModelResponse(WireModel):
    """A whole answer to `respond`."""

    id: Text = ""
    """The server's name for it: `resp_...`."""

    object: Annotated[str, null_as(lambda: "response")] = "response"
    """Always `"response"`."""

    created_at: Whole = 0
    """When the server made it, in seconds since 1970."""

    model: Text = ""
    """The model's first served name, or the LoRA adapter's."""

    status: ResponseStatus | str | None = None
    """How far it is."""

    output: Items[ResponseItem] = Field(default_factory=list[ResponseItem])
    """What the model put out, in its order. `history += response.output` makes it input of the next request."""

    usage: ResponseUsage | None = None
    """How many tokens it took. None while a stream runs."""

    incomplete_details: IncompleteDetails | None = None
    """Why it is not complete."""

    error: JsonObject | None = None
    """Why it failed, with other servers than vLLM."""

    instructions: str | None = None
    """The `instructions` that were given."""

    max_output_tokens: int | None = None
    """The longest reply that was allowed."""

    temperature: float | None = None
    """The temperature that was sampled at."""

    top_p: float | None = None
    """The `top_p` that was sampled with."""

    previous_response_id: str | None = None
    """The response that it goes on from."""

    metadata: dict[str, str] | None = None
    """The labels that were given."""

    kv_transfer_params: JsonObject | None = None
    """For a deployment whose prefill and decode run apart; to be passed on as it is."""

    ec_transfer_params: JsonObject | None = None
    """The same for a separate encoder."""

    input_messages: list[JsonObject] | None = None
    """The prompt as the model reads it, when `enable_response_messages` asked for it."""

    output_messages: list[JsonObject] | None = None
    """The reply as the model wrote it, when `enable_response_messages` asked for it."""

    metrics: RequestMetrics | None = None
    """How long it took in the server."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, else the one that was sent; None when it did not come over HTTP."""
        return self._request_id

    @property
    def text(self) -> str:
        """The text of all messages; empty when there is none."""
        return "".join(item.text for item in self.output if item.type == "message")

    @property
    def reasoning(self) -> str | None:
        """What the model thought before it answered, or None. Never a part of `text`."""
        thoughts = [item.text for item in self.output if item.type == "reasoning" and item.content]
        return "".join(thoughts) if thoughts else None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The functions that the model calls, in its order, as a chat has them; `ToolCall.id` is the `call_id`."""
        # vLLM calls items completed that were cut, so of a response that was cut the last one counts as such. Old
        # ones call the response completed too, even where it has all the tokens that it may have.
        most, usage = self.max_output_tokens, self.usage
        full = most is not None and usage is not None and usage.output_tokens >= most
        was_cut = full or self.status in ("incomplete", "cancelled", "failed")
        cut = self.output[-1] if self.output and was_cut else None
        calls: list[ToolCall] = []
        for item in self.output:
            if item.type == "function_call":
                function = FunctionCall(name=item.name or "", arguments=item.arguments or "")
                call = ToolCall(id=item.call_id or "", function=function)
                if item.status == "in_progress" or item is cut:
                    mark_cut(call)
                calls.append(call)
        return calls


def set_request_id(response: ModelResponse, request_id: str | None) -> None:
    """Tell a response under which `X-Request-Id` it was made."""
    response._request_id = request_id  # pyright: ignore[reportPrivateUsage] - this module alone may set it


def decode_response(body: bytes, *, request_id: str | None = None) -> ModelResponse:
    """Read the body of an answer to a request that did not stream.

    Raises:
        ResponseError: The body is no response: not JSON, or JSON of another shape.
    """
    response = decode(ModelResponse, body, "a response")
    if "output" not in response.model_fields_set:
        raise not_this("a response", body, "it has no output")
    set_request_id(response, request_id)
    return response
