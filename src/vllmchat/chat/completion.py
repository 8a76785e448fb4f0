"""A whole chat reply, as the server returns it or as the chunks of a stream add up to.

The models have the fields and names of the wire format, and shortcuts for common uses. Parsing is lenient: null and
absent are the same, missing fields have defaults, and unknown fields are kept in `model_extra`.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

import json
from collections.abc import Sized
from typing import Annotated

from pydantic import (
    AliasChoices,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import from_json

from vllmchat.chat.forms import usual_form
from vllmchat.chat.messages import TRUNCATED
from vllmchat.errors import ResponseError
from vllmchat.http.call import ResponseHead
from vllmchat.http.excerpt import excerpt
from vllmchat.sampling.whole import check_whole, has_ended, incomplete
from vllmchat.wire import markdown
from vllmchat.wire.decode import (
    NEEDED,
    Answer,
    Content,
    Fallback,
    Id,
    JsonObject,
    JsonText,
    LenientInt,
    LenientList,
    LenientStr,
    WireModel,
    as_object,
    decode,
    default_for_null,
    drop_empty_usage,
    requested,
    unexpected_body,
    with_record,
)
from vllmchat.wire.usage import (
    LINE_BREAKS,
    FinishReason,
    PromptLogprob,
    Reason,
    RequestMetrics,
    TokenLogprob,
    Usage,
    WeightVersion,
    calls_tools,
    truncates,
)


class FunctionCall(WireModel):
    """The function of a tool call, and its arguments."""

    name: LenientStr = ""
    """Name of the function."""

    arguments: JsonText = ""
    """The arguments as the model wrote them: JSON text that may be truncated or invalid."""


class ToolCall(WireModel):
    """A tool call in a reply."""

    id: Id = ""
    """The id that the result must have as its `tool_call_id`. Empty if the server sent none."""

    type: Annotated[str, default_for_null(lambda: "function")] = "function"
    """`"function"`; servers other than vLLM also have `"custom"`."""

    function: Annotated[FunctionCall, default_for_null(lambda: FunctionCall())] = Field(
        default_factory=FunctionCall
    )
    """The function and its arguments."""

    _truncated: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _take_mark(self) -> "ToolCall":
        if self.__pydantic_extra__ and self.__pydantic_extra__.pop(TRUNCATED, None):
            self._truncated = True
        return self

    @model_serializer(mode="wrap")
    def _with_mark(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Without the mark, a truncated call would look complete when a stored history comes back.
        fields: dict[str, object] = handler(self)
        return {**fields, TRUNCATED: True} if self._truncated else fields

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.name

    @property
    def arguments(self) -> str:
        """The arguments as the model wrote them: JSON text. `parse` returns them as a dict."""
        return self.function.arguments

    @property
    def complete(self) -> bool:
        """Whether the call is complete, not truncated.

        False if the arguments are not complete JSON; if the reply ended with `"length"` or another reason that
        truncates, or one that is unknown, and this is its last call; and while a stream may still add to it.

        The finish reason alone is not enough: vLLM 0.10 to 0.32 also return `"tool_calls"` for a call that
        `max_tokens` truncated, and may have closed its JSON. So this is also False for the last call of a reply whose
        usage shows that it has as many tokens as `max_tokens` allows, and for a last call without any arguments,
        unless its function takes none, or requires none and the usage is below `max_tokens`.
        """
        return not self._truncated and is_whole(self.function.arguments)

    @property
    def truncated(self) -> bool:
        """Whether the call was truncated. A call that is not `complete` and not truncated is badly written."""
        return self._truncated or _is_start(self.function.arguments)

    def parse(self) -> dict[str, object]:
        """Returns the arguments as a dict; empty if the model wrote none, or `null`.

        Raises:
            ResponseError: The call was truncated, or its arguments are not a JSON object. The message shows their
                start.
        """
        text = self.function.arguments
        if self._truncated:
            raise _unusable(self, "was truncated")
        if text.strip() in ("", "null"):
            return {}
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = "were truncated" if self.truncated else f"are not valid JSON ({error})"
            raise _unusable(self, f"has arguments that {why}") from error
        parsed = as_object(value)
        if parsed is None:
            raise _unusable(self, "has arguments that are not a JSON object")
        return parsed

    def to_request(self) -> dict[str, object]:
        """Returns the call in the form for a request's messages, without empty fields.

        A truncated call has the key `truncated`, which is not sent: it tells `run_tools` not to execute the call.
        """
        call: dict[str, object] = {"id": self.id, "type": self.type}
        if self.type == "function" or "function" in self.model_fields_set:
            call["function"] = {"name": self.function.name, "arguments": self.function.arguments}
        call.update(_filled(self.model_extra))
        if self._truncated:
            call[TRUNCATED] = True
        return call


def mark_truncated(call: ToolCall) -> None:
    """Marks a call as truncated, whatever its arguments look like: `complete` is False from now on."""
    call._truncated = True  # pyright: ignore[reportPrivateUsage] - this module alone may set it


class ChatMessage(WireModel):
    """The message of a reply. Append it unchanged to the `messages` of the next request."""

    role: Annotated[str, default_for_null(lambda: "assistant")] = "assistant"
    """The author's role; in a reply always `"assistant"`."""

    content: Content = None
    """The text as the model wrote it, or None if there is only reasoning or tool calls. `ChatCompletion.text` is never
    None, and has no line breaks around it."""

    reasoning: Annotated[Content, Field(validation_alias=AliasChoices("reasoning", "reasoning_content"))] = (
        None
    )
    """The reasoning before the reply, if the server has a reasoning parser. The `reasoning_content` of servers before
    vLLM 0.11.1 is read too."""

    refusal: str | None = None
    """Why the model declined, on servers that report it. vLLM does not."""

    tool_calls: LenientList[ToolCall] = Field(default_factory=list[ToolCall])
    """The tool calls, in order; empty if there are none."""

    annotations: object = None
    """Citations and the like, on servers that return them. vLLM does not."""

    audio: JsonObject | None = None
    """Audio output, on servers that return it. vLLM does not."""

    function_call: FunctionCall | None = None
    """The predecessor of `tool_calls`, on old servers. It is the only one of the `tool_calls` too, without an id."""

    @model_validator(mode="after")
    def _take_old_fields(self) -> "ChatMessage":
        # vLLM 0.11.1 to 0.15 send the same text under both names, of which one must go; others send nothing in one.
        extra = self.__pydantic_extra__
        if extra and "reasoning_content" in extra:
            old = extra.pop("reasoning_content")
            if not self.reasoning and isinstance(old, str):
                self.reasoning = old
        if self.function_call is not None:
            self._take_function_call(self.function_call)
        if len(self.tool_calls) > 1:
            self.tool_calls = with_own_ids(self.tool_calls)
        return self

    def _take_function_call(self, function: FunctionCall) -> None:
        if not self.tool_calls and (function.name or function.arguments):
            self.tool_calls = [ToolCall(function=function)]
        # Some servers send both; and what came in pieces was put together as a tool call.
        only = self.tool_calls[0] if len(self.tool_calls) == 1 else None
        self.function_call = only.function if only is not None and not only.id else None

    def to_request(self) -> dict[str, object]:
        """Returns the message in the form for a request's `messages`, without nulls.

        `content` is always included, because some servers require the key: null if there are tool calls, else at
        least the empty string. `reasoning` is sent back, as the chat templates of reasoning models expect. A
        truncated tool call is sent unchanged; the server may reject it. A `function_call` is sent back as one.
        """
        message: dict[str, object] = {"role": self.role, "content": self.content}
        called = bool(self.tool_calls) or self.function_call is not None
        if self.content is None and not called:
            message["content"] = ""
        if self.reasoning:
            message["reasoning"] = self.reasoning
        if self.refusal:
            message["refusal"] = self.refusal
        if self.function_call is not None:
            function = self.function_call
            message["function_call"] = {"name": function.name, "arguments": function.arguments}
        elif self.tool_calls:
            message["tool_calls"] = [call.to_request() for call in self.tool_calls]
        if self.audio is not None and "id" in self.audio:
            message["audio"] = {"id": self.audio["id"]}  # requests refer to audio by id
        message.update(_filled(self.model_extra))
        return message


def with_own_ids(calls: list[ToolCall]) -> list[ToolCall]:
    """Returns the calls of a message without repetitions, each with an id of its own.

    Some servers give all calls the same id, some send a call twice. Calls without an id are left as they are.
    """
    ids = CallIds()
    sent: set[tuple[str, str, str]] = set()
    own: list[ToolCall] = []
    for call in calls:
        call_id = ids.own(call.id) if call.id else ""
        same = call.id, call.name, call.arguments.strip()
        if not (call.id and call.name and same in sent):
            own.append(call if call_id == call.id else call.model_copy(update={"id": call_id}))
        sent.add(same)
    return own


class CallIds:
    """Ids for the calls of one message, none of them twice."""

    __slots__ = ("_counts", "_taken")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._taken: set[str] = set()

    def own(self, call_id: str) -> str:
        """Returns the id of the next call: the one that the server gave it, unless another call has that."""
        number = self._counts.get(call_id, 0) + 1
        own = call_id
        while own in self._taken:
            number = max(number, 2)
            own = f"{call_id}-{number}"
            number += own in self._taken
        self._counts[call_id] = number
        self._taken.add(own)
        return own


def _message(value: object) -> ChatMessage:
    return ChatMessage.model_validate(usual_form(value))


class ChoiceLogprobs(WireModel):
    """Log probabilities of a reply's tokens, including reasoning and tool calls."""

    content: list[TokenLogprob] | None = None
    """One entry per generated token."""

    refusal: list[TokenLogprob] | None = None
    """The same for a refusal. vLLM does not send it."""


class Choice(WireModel):
    """One of the `n` replies of a completion."""

    index: LenientInt = 0
    """Its index, from 0."""

    message: Annotated[ChatMessage, Fallback(_message)] = Field(default_factory=ChatMessage)
    """The message."""

    logprobs: ChoiceLogprobs | None = None
    """Log probabilities, if `logprobs` requested them."""

    finish_reason: Reason = None
    """Why generation ended; None while a stream is running. See `FinishReason` for the known values."""

    stop_reason: int | str | None = None
    """What stopped generation: the stop string, the id of the stop token, `"repetition_detected"`, or None for the
    model's own end of turn."""

    token_ids: list[int] | None = None
    """Ids of the generated tokens, if `return_token_ids` requested them. Since vLLM 0.10.2."""

    routed_experts: object = None
    """Which experts of a mixture-of-experts model computed each token, on servers configured to return it: nested
    lists in vLLM 0.21, base64 text since 0.22."""

    weight_versions: list[WeightVersion] | None = None
    """Which version of the weights generated each token, if `return_weight_versions` requested it. Since vLLM 0.33."""

    @model_validator(mode="after")
    def _check_end(self) -> "Choice":
        if self.__pydantic_extra__ and "message" not in self.model_fields_set:
            self._take_message(self.__pydantic_extra__)
        reason = self.finish_reason
        if reason != "stop" and truncates(reason) and self.message.tool_calls:
            # Tokens are generated in order, so only the last call can be truncated.
            mark_truncated(self.message.tool_calls[-1])
        return self

    def _take_message(self, extra: JsonObject) -> None:
        # Some servers answer in the form of a chunk, or of a completion.
        if as_object(extra.get("delta")) is not None:
            self.message = _message(extra.pop("delta"))
        elif isinstance(extra.get("text"), str):
            self.message = ChatMessage.model_validate({"content": extra.pop("text")})


class ChatCompletion(Answer):
    """A whole reply.

    `text`, `reasoning`, `tool_calls`, `message` and `finish_reason` are those of the first choice. If there are no
    choices (vLLM always returns some), they are empty.
    """

    id: LenientStr = ""
    """The id of the reply: `chatcmpl-` and the request's id."""

    object: Annotated[str, default_for_null(lambda: "chat.completion")] = "chat.completion"
    """Always `"chat.completion"`."""

    created: LenientInt = 0
    """When the server created it, in seconds since 1970."""

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name. May differ from the requested name."""

    choices: LenientList[Choice] = Field(default_factory=list[Choice])
    """The `n` replies."""

    usage: Usage | None = None
    """The token usage. In a stream, only if it was requested or the server always sends it."""

    service_tier: str | None = None
    """Only from servers other than vLLM."""

    system_fingerprint: str | None = None
    """The server build. Since vLLM 0.21; None before, or with `--fingerprint-mode none`."""

    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    """If `prompt_logprobs` requested them: for each position of the prompt, log probabilities by token id (as a
    string). None for the first position. Never in a stream."""

    prompt_token_ids: list[int] | None = None
    """The prompt's token ids, if `return_token_ids` requested them. Since vLLM 0.10.2."""

    prompt_text: str | None = None
    """The rendered prompt, if `return_prompt_text` requested it. Since vLLM 0.21."""

    kv_transfer_params: JsonObject | None = None
    """For disaggregated prefill and decode; pass it on unchanged. Since vLLM 0.9."""

    ec_transfer_params: JsonObject | None = None
    """The same for a disaggregated encoder."""

    metrics: RequestMetrics | None = None
    """Timings measured by the server."""

    @property
    def message(self) -> ChatMessage:
        """The first choice's message, ready for the history: `history.append(reply.message)`."""
        return self.choices[0].message if self.choices else ChatMessage()

    @property
    def text(self) -> str:
        """The first choice's text, without the line breaks around it; empty if it has none.

        Chat templates often put blank lines around a text, most of all after reasoning. `message.content` keeps them.
        """
        return (self.message.content or "").strip(LINE_BREAKS)

    @property
    def reasoning(self) -> str | None:
        """The first choice's reasoning, without the line breaks around it, or None. It is never part of `text`.

        `message.reasoning` keeps the line breaks.
        """
        return (self.message.reasoning or "").strip(LINE_BREAKS) or None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The first choice's tool calls; empty if there are none."""
        return self.message.tool_calls

    @property
    def finish_reason(self) -> FinishReason | str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the reasoning, the text and the tool calls of each choice."""
        messages = (choice.message for choice in self.choices)
        return markdown.joined(
            markdown.reply(message.content, message.reasoning, message.tool_calls) for message in messages
        )

    @property
    def token_ids(self) -> list[int]:
        """Ids of the first choice's tokens.

        Raises:
            ResponseError: The server did not return them: they need `return_token_ids=True`.
        """
        return requested(
            self.choices[0].token_ids if self.choices else None, "token ids", "return_token_ids=True"
        )

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Log probabilities of the first choice's tokens, one entry per token.

        Raises:
            ResponseError: The server did not return them: they need `logprobs=True`.
        """
        logprobs = self.choices[0].logprobs if self.choices else None
        return requested(None if logprobs is None else logprobs.content, "log probabilities", "logprobs=True")


def decode_completion(body: bytes, *, head: ResponseHead | None = None) -> ChatCompletion:
    """Parses the body of a response to a chat request without streaming.

    Args:
        body: The bytes.
        head: The head of the response.

    Raises:
        ResponseError: The body is not a chat completion: not JSON, or JSON of another shape.
    """
    completion = decode(ChatCompletion, body, "a chat completion", needed=NEEDED)
    given = completion.model_fields_set
    if "choices" not in given and not ("object" in given and completion.object == "chat.completion"):
        raise unexpected_body("a chat completion", body, "it has no choices")
    if len(completion.choices) > 1:
        completion.choices.sort(key=lambda choice: choice.index)
    drop_empty_usage(completion)
    return with_record(completion, head)


def check_complete(completion: ChatCompletion, expected: int, body: bytes) -> None:
    """Checks that a reply that was not streamed is complete.

    A choice whose finish reason is null is complete if it has tool calls whose arguments are all complete.

    Args:
        completion: The reply.
        expected: How many choices were requested.
        body: The body of the response.

    Raises:
        ResponseError: It is not complete.
    """
    check_whole(completion.choices, expected, completion, body, _has_ended)
    for choice in completion.choices:
        if choice.finish_reason != "stop" and lacks_calls(choice.finish_reason, choice.message.tool_calls):
            raise incomplete(no_calls(choice.index, choice.finish_reason), completion, body)


def lacks_calls(reason: str | None, calls: Sized) -> bool:
    """Whether a choice ended with tool calls, but none of them arrived."""
    return not calls and calls_tools(reason)


def no_calls(index: int, reason: str | None) -> str:
    """What is wrong with a choice that `lacks_calls`."""
    return f"choice {index} has the finish reason {reason!r}, but no tool call"


def _has_ended(choice: Choice) -> bool:
    calls = choice.message.tool_calls
    return has_ended(choice) or (
        bool(calls) and all(call.name and is_object(call.arguments) for call in calls)
    )


def is_whole(arguments: str) -> bool:
    """Whether arguments are complete JSON. No arguments at all count as complete: a call without parameters."""
    if not arguments.strip():
        return True
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


def is_object(arguments: str) -> bool:
    """Whether arguments are a complete JSON object."""
    try:
        return as_object(json.loads(arguments)) is not None
    except (ValueError, RecursionError):
        return False


def _is_start(arguments: str) -> bool:
    """Whether arguments are the start of JSON, which could become valid if they continued."""
    if not arguments.strip():
        return False
    try:
        from_json(arguments)
    except ValueError as error:
        return str(error).startswith("EOF")
    return False


def _unusable(call: ToolCall, why: str) -> ResponseError:
    text = call.arguments
    return ResponseError(
        f"the call of tool {call.name!r} {why}: {excerpt(text) or '(no arguments)'}", body=text[:2_000]
    )


def _filled(extra: dict[str, object] | None) -> dict[str, object]:
    return {name: value for name, value in (extra or {}).items() if value is not None}
