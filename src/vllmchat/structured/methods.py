"""Methods that parse replies into Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from vllmchat.chat.methods import ChatStreams
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from typing_extensions import TypeForm, Unpack

    from vllmchat.chat import request as requests
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import ChatParams, VLLMChatParams
    from vllmchat.client.request import ModelRequest
    from vllmchat.errors import Problem
    from vllmchat.structured import choices, output_type as output_types, stream as streams
    from vllmchat.structured.choices import Choices
    from vllmchat.structured.output_type import Parsed
    from vllmchat.structured.stream import AsyncParseStream, ParseStream

    Params: TypeAlias = Mapping[str, object]
else:
    choices = LazyModule("vllmchat.structured.choices")
    output_types = LazyModule("vllmchat.structured.output_type")
    requests = LazyModule("vllmchat.chat.request")
    streams = LazyModule("vllmchat.structured.stream")

T = TypeVar("T")
S = TypeVar("S", bound=str)


class StructuredMethods(ChatStreams):
    """Parsed replies from a vLLM server, which supports any JSON schema."""

    def parse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> Parsed[T]:
        """Sends a conversation and parses the reply, which is constrained to a type.

        Args:
            messages: The conversation so far; a string is one user message.
            kind: The type: a pydantic model, a dataclass, a TypedDict, `list[int]`, `Literal["yes", "no"]`, or
                anything else that pydantic's `TypeAdapter` accepts.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMChatParams`. `response_format` and `structured_outputs` are set from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is invalid; nothing was sent.
            StructuredOutputError: The reply was truncated, is a refusal, or is not valid. The error has the reply.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a chat completion.
        """
        output_type = output_types.OutputType(kind, wrap=False)
        request = _vllm(messages, output_type.request_params, params)
        return output_type.read(self._run(request, model))

    async def aparse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> Parsed[T]:
        """Async version of `parse`."""
        output_type = output_types.OutputType(kind, wrap=False)
        request = _vllm(messages, output_type.request_params, params)
        return output_type.read(await self._arun(request, model))

    def stream_parse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ParseStream[T]:
        """Sends a conversation and streams the reply as partial values.

        Nothing is sent until you iterate over the stream or enter it.

        Args:
            messages: The conversation so far; a string is one user message.
            kind: The type; see `parse`.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMChatParams`. `response_format` and `structured_outputs` are set from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is invalid. Other errors are raised
                by the stream.
        """
        output_type = output_types.OutputType(kind, wrap=False)
        request = _vllm(messages, output_type.request_params, params, stream=True)
        return streams.ParseStream(output_type, self._stream_chat(request, model))

    def astream_parse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> AsyncParseStream[T]:
        """Async version of `stream_parse`."""
        output_type = output_types.OutputType(kind, wrap=False)
        request = _vllm(messages, output_type.request_params, params, stream=True)
        return streams.AsyncParseStream(output_type, self._astream_chat(request, model))

    @overload
    def choose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S: ...

    @overload
    def choose(
        self,
        messages: Messages,
        options: TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S: ...

    def choose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S] | TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S:
        """Sends a conversation; the model replies with one of several options.

        Args:
            messages: The conversation so far; a string is one user message.
            options: A list of strings, a `Literal["yes", "no"]`, or an enum of strings.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMChatParams`. `response_format` and `structured_outputs` are set from the options.

        Returns:
            The option: one of the strings, or the enum member.

        Raises:
            InvalidRequestError: The options are not strings, or a parameter is invalid; nothing was sent.
            StructuredOutputError: The reply was truncated, is a refusal, or is not one of the options.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a chat completion.
        """
        chosen = choices.Choices(options)
        return chosen.read(self._run(_vllm(messages, _choice(chosen), params), model))

    @overload
    async def achoose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S: ...

    @overload
    async def achoose(
        self,
        messages: Messages,
        options: TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S: ...

    async def achoose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S] | TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S:
        """Async version of `choose`."""
        chosen = choices.Choices(options)
        return chosen.read(await self._arun(_vllm(messages, _choice(chosen), params), model))


class OpenAIStructuredMethods(ChatStreams):
    """Parsed replies from any OpenAI-compatible server.

    OpenAI's own server accepts only object schemas. Other types are wrapped in an object with the key `value`.
    """

    def parse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> Parsed[T]:
        """Sends a conversation and parses the reply, which is constrained to a type.

        Args:
            messages: The conversation so far; a string is one user message.
            kind: The type: a pydantic model, a dataclass, a TypedDict, `list[int]`, `Literal["yes", "no"]`, or
                anything else that pydantic's `TypeAdapter` accepts.
            model: The model for this call.
            **params: See `ChatParams`. `response_format` is set from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is invalid; nothing was sent.
            StructuredOutputError: The reply was truncated, is a refusal, or is not valid. The error has the reply.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a chat completion.
        """
        output_type = output_types.OutputType(kind, wrap=True)
        request = _openai(messages, output_type.request_params, params)
        return output_type.read(self._run(request, model))

    async def aparse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> Parsed[T]:
        """Async version of `parse`."""
        output_type = output_types.OutputType(kind, wrap=True)
        request = _openai(messages, output_type.request_params, params)
        return output_type.read(await self._arun(request, model))

    def stream_parse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ParseStream[T]:
        """Sends a conversation and streams the reply as partial values.

        Nothing is sent until you iterate over the stream or enter it.

        Args:
            messages: The conversation so far; a string is one user message.
            kind: The type; see `parse`.
            model: The model for this call.
            **params: See `ChatParams`. `response_format` is set from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is invalid. Other errors are raised
                by the stream.
        """
        output_type = output_types.OutputType(kind, wrap=True)
        request = _openai(messages, output_type.request_params, params, stream=True)
        return streams.ParseStream(output_type, self._stream_chat(request, model))

    def astream_parse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> AsyncParseStream[T]:
        """Async version of `stream_parse`."""
        output_type = output_types.OutputType(kind, wrap=True)
        request = _openai(messages, output_type.request_params, params, stream=True)
        return streams.AsyncParseStream(output_type, self._astream_chat(request, model))

    @overload
    def choose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S],
        *,
        model: str | None = None,
        **params: Unpack[ChatParams],
    ) -> S: ...

    @overload
    def choose(
        self,
        messages: Messages,
        options: TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[ChatParams],
    ) -> S: ...

    def choose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S] | TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[ChatParams],
    ) -> S:
        """Sends a conversation; the model replies with one of several options.

        The options are sent as a JSON schema, because OpenAI's API has no other constraint.

        Args:
            messages: The conversation so far; a string is one user message.
            options: A list of strings, a `Literal["yes", "no"]`, or an enum of strings.
            model: The model for this call.
            **params: See `ChatParams`. `response_format` is set from the options.

        Returns:
            The option: one of the strings, or the enum member.

        Raises:
            InvalidRequestError: The options are not strings, or a parameter is invalid; nothing was sent.
            StructuredOutputError: The reply was truncated, is a refusal, or is not one of the options.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a chat completion.
        """
        chosen = choices.Choices(options)
        output_type = output_types.OutputType(chosen.literal, wrap=True)
        reply = self._run(_openai(messages, output_type.request_params, params), model)
        return chosen.named(output_type.read(reply).value)

    @overload
    async def achoose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S],
        *,
        model: str | None = None,
        **params: Unpack[ChatParams],
    ) -> S: ...

    @overload
    async def achoose(
        self,
        messages: Messages,
        options: TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[ChatParams],
    ) -> S: ...

    async def achoose(
        self,
        messages: Messages,
        options: type[S] | Sequence[S] | TypeForm[S],
        *,
        model: str | None = None,
        **params: Unpack[ChatParams],
    ) -> S:
        """Async version of `choose`."""
        chosen = choices.Choices(options)
        output_type = output_types.OutputType(chosen.literal, wrap=True)
        reply = await self._arun(_openai(messages, output_type.request_params, params), model)
        return chosen.named(output_type.read(reply).value)


def _vllm(
    messages: Messages, request_params: Params, params: Params, *, stream: bool = False
) -> ModelRequest[ChatCompletion]:
    params, found = _collected(params)
    return requests.vllm_request(messages, {**params, **request_params}, stream=stream, found=found)


def _openai(
    messages: Messages, request_params: Params, params: Params, *, stream: bool = False
) -> ModelRequest[ChatCompletion]:
    params, found = _collected(params)
    return requests.openai_request(messages, {**params, **request_params}, stream=stream, found=found)


def _collected(params: Params) -> tuple[Params, list[Problem]]:
    """Returns the parameters that a parsing method can have, and the problems of the others."""
    found = output_types.check_single(params)
    wrong = {problem.parameter for problem in found}
    return {name: value for name, value in params.items() if name not in wrong}, found


def _choice(options: Choices[S]) -> dict[str, object]:
    return {"structured_outputs": {"choice": options.names}}
