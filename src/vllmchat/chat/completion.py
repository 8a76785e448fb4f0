"""A whole chat reply, as the server sends it and as a stream adds up to.

The models hold the wire's own fields under the wire's own names, and beside them what a caller asks for
most. Read leniently: null and absent are the same, what is missing has its default, unknown fields are kept
in `model_extra`.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import AliasChoices, Field, PrivateAttr, model_validator
from pydantic_core import from_json

from vllmchat.errors import ResponseError
from vllmchat.wire import (
    Content,
    Items,
    JsonObject,
    JsonText,
    Text,
    Whole,
    WireModel,
    as_object,
    decode,
    not_this,
    null_as,
)

FinishReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "function_call", "abort", "repetition"
]
"""Why generation ended.

- `"stop"`: the model ended its turn, or a stop string or stop token came; a named tool choice ends so too.
- `"length"`: `max_tokens` or the model's context was used up.
- `"tool_calls"`: the model called tools. Some servers say so even when `max_tokens` cut the call: ask
  `ToolCall.complete`.
- `"abort"`: the server gave up the request (pause, shutdown); the text is cut. HTTP status is 200 all the
  same.
- `"repetition"`: `repetition_detection` ended it. Since vLLM 0.17.
- `"content_filter"`, `"function_call"`: other servers than vLLM.
"""

CUT_REASONS = frozenset({"length", "abort", "repetition", "content_filter"})
"""The reasons to finish that stop the model in the middle of what it was writing."""

MISSING_LOGPROB = -9999.0
"""What the wire says for minus infinity, and what stands for a log probability that was not sent."""


class FunctionCall(WireModel):
    """The function of a tool call: which, and with what."""

    name: Text = ""
    """Name of the function."""

    arguments: JsonText = ""
    """The arguments as the model wrote them: JSON text, perhaps cut, perhaps invalid."""


class ToolCall(WireModel):
    """One tool call of a reply."""

    id: Text = ""
    """What the tool's answer must name as its `tool_call_id`. Empty where the server gave none."""

    type: Annotated[str, null_as(lambda: "function")] = "function"
    """`"function"`; other servers than vLLM also have `"custom"`."""

    function: Annotated[FunctionCall, null_as(lambda: FunctionCall())] = Field(default_factory=FunctionCall)
    """The function and its arguments."""

    _cut: bool = PrivateAttr(default=False)

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.name

    @property
    def arguments(self) -> str:
        """The arguments as the model wrote them: JSON text. `parse` makes a dict of them."""
        return self.function.arguments

    @property
    def complete(self) -> bool:
        """Whether the model wrote the call to its end.

        False when the arguments are not whole JSON; when the reply ended by `"length"` or another reason
        that cuts (`CUT_REASONS`) and this was its last call; and while a stream still adds to it.

        The finish reason alone would not do: vLLM 0.10 to 0.32 give `"tool_calls"` also for a call that
        `max_tokens` cut, and may have closed its JSON. So it is False too for the last call of a reply that has as
        many tokens as `max_tokens` allows, by its usage, and for a last call that came without any arguments,
        unless its function takes none, or requires none and the usage is below `max_tokens`.
        """
        return not self._cut and is_whole(self.function.arguments)

    def parse(self) -> dict[str, object]:
        """The arguments as a dict; empty when the model wrote none.

        Raises:
            ResponseError: The call was cut, or its arguments are not a JSON object. The message shows their
                start.
        """
        text = self.function.arguments
        if self._cut:
            raise _unusable(self, "was cut before its end")
        if not text.strip():
            return {}
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = "were cut before their end" if _is_start(text) else f"are not valid JSON ({error})"
            raise _unusable(self, f"has arguments that {why}") from error
        parsed = as_object(value)
        if parsed is None:
            raise _unusable(self, "has arguments that are not a JSON object")
        return parsed

    def to_request(self) -> dict[str, object]:
        """The call in the shape that a request's message history takes, without empty fields."""
        call: dict[str, object] = {"id": self.id, "type": self.type}
        if self.type == "function" or "function" in self.model_fields_set:
            call["function"] = {"name": self.function.name, "arguments": self.function.arguments}
        call.update(_filled(self.model_extra))
        return call


def mark_cut(call: ToolCall) -> None:
    """Say that a call was cut, whatever its arguments look like: `complete` is False from now on."""
    call._cut = True  # pyright: ignore[reportPrivateUsage] - this module alone may set it


class ChatMessage(WireModel):
    """The message of a reply. It goes back into the next request's `messages` as it is."""

    role: Annotated[str, null_as(lambda: "assistant")] = "assistant"
    """Who speaks; in a reply always `"assistant"`."""

    content: Content = None
    """The text, or None when there is none beside reasoning or tool calls. `ChatCompletion.text` is never
    None."""

    reasoning: Annotated[
        str | None, Field(validation_alias=AliasChoices("reasoning", "reasoning_content"))
    ] = None
    """What the model thought before it answered; with a server that has a reasoning parser. Since vLLM 0.11.1
    under this name; the `reasoning_content` of older servers is read as well."""

    refusal: str | None = None
    """Why the model declined, with servers that tell. vLLM never does."""

    tool_calls: Items[ToolCall] = Field(default_factory=list[ToolCall])
    """The tools that the model calls, in its order; empty when it calls none."""

    annotations: object = None
    """Citations and the like, with servers that make them. vLLM makes none."""

    audio: JsonObject | None = None
    """Spoken output, with servers that make it. vLLM makes none."""

    function_call: FunctionCall | None = None
    """The forerunner of `tool_calls`, with old servers."""

    @model_validator(mode="after")
    def _take_old_reasoning(self) -> "ChatMessage":
        # vLLM 0.11.1 to 0.15 send both names with the same text, of which one must go; others a null for one.
        extra = self.__pydantic_extra__
        if extra and "reasoning_content" in extra:
            old = extra.pop("reasoning_content")
            if self.reasoning is None and isinstance(old, str):
                self.reasoning = old
        return self

    def to_request(self) -> dict[str, object]:
        """The message as a request's `messages` takes it: what is set, without the nulls.

        `content` is always there: null beside tool calls, else at least the empty text, because some
        servers insist on the key. `reasoning` is sent back, as the chat templates of reasoning models
        expect. A tool call that was cut is sent as it is; a server may refuse it.
        """
        message: dict[str, object] = {"role": self.role, "content": self.content}
        called = bool(self.tool_calls) or self.function_call is not None
        if self.content is None and not called:
            message["content"] = ""
        if self.reasoning:
            message["reasoning"] = self.reasoning
        if self.refusal:
            message["refusal"] = self.refusal
        if self.tool_calls:
            message["tool_calls"] = [call.to_request() for call in self.tool_calls]
        if self.function_call is not None:
            function = self.function_call
            message["function_call"] = {"name": function.name, "arguments": function.arguments}
        if self.audio is not None and "id" in self.audio:
            message["audio"] = {"id": self.audio["id"]}  # The request names the audio, it does not repeat it.
        message.update(_filled(self.model_extra))
        return message


# Plain dataclasses, which know the fields below and keep no others: six of them come with each token, and models took
# thrice the time and the memory.


@dataclass(slots=True)
class TopLogprob:
    """One of the tokens that could have come at a position. Fields beyond these are not kept."""

    token: Text = ""
    """The token as text; with `return_tokens_as_token_ids`, as `"token_id:17"`."""

    logprob: Annotated[float, null_as(lambda: MISSING_LOGPROB)] = MISSING_LOGPROB
    """Natural logarithm of its probability; -9999.0 stands for minus infinity and for "not sent"."""

    bytes: list[int] | None = None
    """The token's UTF-8 bytes, 0 to 255 each: a token may be a part of a character."""


@dataclass(slots=True)
class TokenLogprob(TopLogprob):
    """The token that came at a position, and those that could have. Fields beyond these are not kept."""

    top_logprobs: Items[TopLogprob] = field(default_factory=list[TopLogprob])
    """The likeliest tokens of this position, as many as `top_logprobs` asked for."""


class ChoiceLogprobs(WireModel):
    """Log probabilities of a reply's tokens, those of reasoning and tool calls included."""

    content: list[TokenLogprob] | None = None
    """One entry a generated token."""

    refusal: list[TokenLogprob] | None = None
    """The same for a refusal; vLLM never sends it."""


class PromptLogprob(WireModel):
    """How likely one token was at one position of the prompt."""

    logprob: Annotated[float, null_as(lambda: MISSING_LOGPROB)] = MISSING_LOGPROB
    """Natural logarithm of its probability; -9999.0 stands for minus infinity."""

    rank: int | None = None
    """Its place among all tokens, 1 the likeliest."""

    decoded_token: str | None = None
    """The token as text."""


class Choice(WireModel):
    """One of the replies of an answer; there are `n` of them."""

    index: Whole = 0
    """Its number, from 0."""

    message: Annotated[ChatMessage, null_as(lambda: ChatMessage())] = Field(default_factory=ChatMessage)
    """What the model said."""

    logprobs: ChoiceLogprobs | None = None
    """Log probabilities, when `logprobs` asked for them."""

    finish_reason: FinishReason | str | None = None
    """Why generation ended; None while a stream still runs. `FinishReason` tells the known ones."""

    stop_reason: int | str | None = None
    """What stopped it: the stop string, the id of the stop token, `"repetition_detected"`, or None for the
    model's own end of turn."""

    token_ids: list[int] | None = None
    """Ids of the generated tokens, when `return_token_ids` asked for them. Since vLLM 0.10.2."""

    routed_experts: object = None
    """Which experts of a mixture-of-experts model computed each token, with a server started to tell:
    nested lists in vLLM 0.21, base64 text since 0.22."""

    @model_validator(mode="after")
    def _mark_cut_call(self) -> "Choice":
        # Tokens come in order, so what cut the reply cut its last call; the calls before it were whole by
        # then.
        if self.finish_reason in CUT_REASONS and self.message.tool_calls:
            mark_cut(self.message.tool_calls[-1])
        return self


class PromptTokensDetails(WireModel):
    """What the prompt's tokens were. With a server started with `--enable-prompt-tokens-details`."""

    cached_tokens: int | None = None
    """How many were found in the prefix cache."""

    created_cache_tokens: int | None = None
    """How many were put into it. Since vLLM 0.26."""

    multimodal_tokens: dict[str, int] | None = None
    """How many stand for images, audio and video, by kind. Since vLLM 0.24."""


class CompletionTokensDetails(WireModel):
    """What the generated tokens were. With a server that has a reasoning parser, since vLLM 0.28."""

    reasoning_tokens: int | None = None
    """How many were reasoning."""


class Usage(WireModel):
    """How many tokens a request took."""

    prompt_tokens: Whole = 0
    """Tokens of the prompt."""

    completion_tokens: Whole = 0
    """Generated tokens, of all choices together, reasoning included."""

    total_tokens: Whole = 0
    """The sum of both."""

    prompt_tokens_details: PromptTokensDetails | None = None
    """What the prompt's tokens were."""

    completion_tokens_details: CompletionTokensDetails | None = None
    """What the generated tokens were."""


class RequestMetrics(WireModel):
    """How long the server took. Since vLLM 0.25, with `--enable-per-request-metrics` and `n=1`."""

    time_to_first_token_ms: float | None = None
    """From arrival to the first token, in milliseconds."""

    generation_time_ms: float | None = None
    """From the first to the last token, in milliseconds."""

    queue_time_ms: float | None = None
    """Waiting for a place in the batch, in milliseconds."""

    mean_itl_ms: float | None = None
    """Mean time between two tokens, in milliseconds."""

    tokens_per_second: float | None = None
    """Generated tokens a second."""

    speculative_decoding: JsonObject | None = None
    """How many drafted tokens were accepted, and more, with a server that drafts. Since vLLM 0.29."""


class ChatCompletion(WireModel):
    """A whole reply.

    `text`, `reasoning`, `tool_calls`, `message` and `finish_reason` are those of the first choice. An
    answer without choices (no vLLM sends one) has the empty ones: no text, no calls, an empty message.
    """

    id: Text = ""
    """The server's name for this answer: `chatcmpl-` and the request's id."""

    object: Annotated[str, null_as(lambda: "chat.completion")] = "chat.completion"
    """Always `"chat.completion"`."""

    created: Whole = 0
    """When the server made it, in seconds since 1970."""

    model: Text = ""
    """The model's first served name, or the LoRA adapter's; not always what was asked for."""

    choices: Items[Choice] = Field(default_factory=list[Choice])
    """The replies, `n` of them."""

    usage: Usage | None = None
    """How many tokens it took. A stream has it when the server was asked for it or always tells."""

    service_tier: str | None = None
    """With other servers than vLLM."""

    system_fingerprint: str | None = None
    """Which server build answered. Since vLLM 0.21; None before, or with `--fingerprint-mode none`."""

    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    """When `prompt_logprobs` asked for them: for each position of the prompt, log probabilities by token id
    (as text). The first position has None. Never in a stream."""

    prompt_token_ids: list[int] | None = None
    """The prompt's token ids, when `return_token_ids` asked for them. Since vLLM 0.10.2."""

    prompt_text: str | None = None
    """The prompt after the chat template, when `return_prompt_text` asked for it. Since vLLM 0.21."""

    kv_transfer_params: JsonObject | None = None
    """For a deployment whose prefill and decode run apart; to be passed on as it is. Since vLLM 0.9."""

    ec_transfer_params: JsonObject | None = None
    """The same for a separate encoder."""

    metrics: RequestMetrics | None = None
    """How long it took in the server."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, else the one that was sent; None when it did not come over HTTP.

        Tell it whoever runs the server: it is in the server's log.
        """
        return self._request_id

    @property
    def message(self) -> ChatMessage:
        """The first choice's message, ready for the history: `history.append(reply.message)`."""
        return self.choices[0].message if self.choices else ChatMessage()

    @property
    def text(self) -> str:
        """The first choice's text; empty when it has none."""
        return self.message.content or ""

    @property
    def reasoning(self) -> str | None:
        """What the model thought before it answered, or None. Never a part of `text`."""
        return self.message.reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The first choice's tool calls; empty when there are none."""
        return self.message.tool_calls

    @property
    def finish_reason(self) -> FinishReason | str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None


def set_request_id(completion: ChatCompletion, request_id: str | None) -> None:
    """Tell a completion under which `X-Request-Id` it was made."""
    completion._request_id = request_id  # pyright: ignore[reportPrivateUsage] - this module alone may set it


def decode_completion(body: bytes, *, request_id: str | None = None) -> ChatCompletion:
    """Read the body of an answer to a chat request that did not stream.

    Args:
        body: The bytes.
        request_id: The `X-Request-Id` it came with.

    Raises:
        ResponseError: The body is no chat completion: not JSON, or JSON of another shape.
    """
    completion = decode(ChatCompletion, body, "a chat completion")
    given = completion.model_fields_set
    if "choices" not in given and not ("object" in given and completion.object == "chat.completion"):
        raise not_this("a chat completion", body, "it has no choices")
    set_request_id(completion, request_id)
    return completion


def is_whole(arguments: str) -> bool:
    """Whether arguments are whole JSON; none at all count as whole: a call without parameters."""
    if not arguments.strip():
        return True
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


def _is_start(arguments: str) -> bool:
    """Whether invalid JSON could become valid by what follows it."""
    try:
        from_json(arguments)
    except ValueError as error:
        return str(error).startswith("EOF")
    return False


def _unusable(call: ToolCall, why: str) -> ResponseError:
    text = call.arguments
    shown = text if len(text) <= 200 else text[:200] + "…"
    return ResponseError(
        f"the call of tool {call.name!r} {why}: {shown or '(no arguments)'}", body=text[:2_000]
    )


def _filled(extra: dict[str, object] | None) -> dict[str, object]:
    return {name: value for name, value in (extra or {}).items() if value is not None}
