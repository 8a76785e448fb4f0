"""The verbs that make a value of a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from vllmchat.chat.check import OPENAI_CHAT, VLLM_CHAT
from vllmchat.chat.request import ChatRequest
from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from typing_extensions import TypeForm, Unpack

    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import ChatParams, VLLMChatParams
    from vllmchat.chat.structured import AsyncParseStream, Options, Parsed, ParseStream, Shape
    from vllmchat.errors import Problem

    Params: TypeAlias = Mapping[str, object]

T = TypeVar("T")
S = TypeVar("S", bound=str)


class StructuredVerbs(ProviderBase):
    """Values from a vLLM server, which holds replies to any JSON schema."""

    def parse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> Parsed[T]:
        """Sends a conversation and makes a value of the reply, which is held to the value's type.

        Args:
            messages: A text, or the conversation so far.
            kind: The type: a pydantic model, a dataclass, a TypedDict, `list[int]`, `Literal["yes", "no"]`, or
                anything else that pydantic's `TypeAdapter` takes.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`. `response_format` and `structured_outputs` follow from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is wrong; nothing was sent.
            StructuredOutputError: The reply was cut, is a refusal, or does not match; the error holds it.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no chat completion.
        """
        shape = _shape(kind, wrap=False)
        return shape.read(self._run(_vllm(messages, shape.asked, params, stream=False), model))

    async def aparse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> Parsed[T]:
        """Sends a conversation and makes a value of the reply, awaiting. See `parse`."""
        shape = _shape(kind, wrap=False)
        return shape.read(await self._arun(_vllm(messages, shape.asked, params, stream=False), model))

    def stream_parse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> ParseStream[T]:
        """Sends a conversation and gives the value of the reply while it grows.

        Nothing is sent before the stream is iterated over or entered.

        Args:
            messages: A text, or the conversation so far.
            kind: The type, as of `parse`.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`. `response_format` and `structured_outputs` follow from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is wrong. What else can go wrong is
                raised by the stream.
        """
        from vllmchat.chat.structured import ParseStream

        shape = _shape(kind, wrap=False)
        return ParseStream(shape, self._stream_chat(_vllm(messages, shape.asked, params, stream=True), model))

    def astream_parse(
        self,
        messages: Messages,
        kind: TypeForm[T],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> AsyncParseStream[T]:
        """Sends a conversation and gives the value of the reply while it grows, awaiting. See `stream_parse`."""
        from vllmchat.chat.structured import AsyncParseStream

        shape = _shape(kind, wrap=False)
        return AsyncParseStream(
            shape, self._astream_chat(_vllm(messages, shape.asked, params, stream=True), model)
        )

    @overload
    def choose(
        self,
        messages: Messages,
        options: type[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S: ...

    @overload
    def choose(
        self,
        messages: Messages,
        options: Sequence[S],
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
        """Sends a conversation and lets the model choose one of some options as its whole reply.

        Args:
            messages: A text, or the conversation so far.
            options: A list of strings, a `Literal["yes", "no"]`, or an enumeration of strings.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`. `response_format` and `structured_outputs` follow from the options.

        Returns:
            The option: one of the strings, or the member of the enumeration.

        Raises:
            InvalidRequestError: The options are no strings, or a parameter is wrong; nothing was sent.
            StructuredOutputError: The reply was cut, is a refusal, or is none of the options.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no chat completion.
        """
        chosen = _options(options)
        return chosen.read(self._run(_vllm(messages, _choice(chosen), params, stream=False), model))

    @overload
    async def achoose(
        self,
        messages: Messages,
        options: type[S],
        *,
        model: str | None = None,
        **params: Unpack[VLLMChatParams],
    ) -> S: ...

    @overload
    async def achoose(
        self,
        messages: Messages,
        options: Sequence[S],
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
        """Sends a conversation and lets the model choose one of some options, awaiting. See `choose`."""
        chosen = _options(options)
        return chosen.read(await self._arun(_vllm(messages, _choice(chosen), params, stream=False), model))


class OpenAIStructuredVerbs(ProviderBase):
    """Values from any OpenAI-compatible server.

    OpenAI's own server takes no schema but that of an object. Other types are sent within one, as its `value`.
    """

    def parse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> Parsed[T]:
        """Sends a conversation and makes a value of the reply, which is held to the value's type.

        Args:
            messages: A text, or the conversation so far.
            kind: The type: a pydantic model, a dataclass, a TypedDict, `list[int]`, `Literal["yes", "no"]`, or
                anything else that pydantic's `TypeAdapter` takes.
            model: The model, for this call.
            **params: See `ChatParams`. `response_format` follows from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is wrong; nothing was sent.
            StructuredOutputError: The reply was cut, is a refusal, or does not match; the error holds it.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no chat completion.
        """
        shape = _shape(kind, wrap=True)
        return shape.read(self._run(_openai(messages, shape.asked, params, stream=False), model))

    async def aparse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> Parsed[T]:
        """Sends a conversation and makes a value of the reply, awaiting. See `parse`."""
        shape = _shape(kind, wrap=True)
        return shape.read(await self._arun(_openai(messages, shape.asked, params, stream=False), model))

    def stream_parse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ParseStream[T]:
        """Sends a conversation and gives the value of the reply while it grows.

        Nothing is sent before the stream is iterated over or entered.

        Args:
            messages: A text, or the conversation so far.
            kind: The type, as of `parse`.
            model: The model, for this call.
            **params: See `ChatParams`. `response_format` follows from the type.

        Raises:
            InvalidRequestError: The type has no JSON schema, or a parameter is wrong. What else can go wrong is
                raised by the stream.
        """
        from vllmchat.chat.structured import ParseStream

        shape = _shape(kind, wrap=True)
        return ParseStream(
            shape, self._stream_chat(_openai(messages, shape.asked, params, stream=True), model)
        )

    def astream_parse(
        self, messages: Messages, kind: TypeForm[T], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> AsyncParseStream[T]:
        """Sends a conversation and gives the value of the reply while it grows, awaiting. See `stream_parse`."""
        from vllmchat.chat.structured import AsyncParseStream

        shape = _shape(kind, wrap=True)
        return AsyncParseStream(
            shape, self._astream_chat(_openai(messages, shape.asked, params, stream=True), model)
        )

    @overload
    def choose(
        self, messages: Messages, options: type[S], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> S: ...

    @overload
    def choose(
        self,
        messages: Messages,
        options: Sequence[S],
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
        """Sends a conversation and lets the model choose one of some options.

        The options are sent as a JSON schema: this protocol has no other way.

        Args:
            messages: A text, or the conversation so far.
            options: A list of strings, a `Literal["yes", "no"]`, or an enumeration of strings.
            model: The model, for this call.
            **params: See `ChatParams`. `response_format` follows from the options.

        Returns:
            The option: one of the strings, or the member of the enumeration.

        Raises:
            InvalidRequestError: The options are no strings, or a parameter is wrong; nothing was sent.
            StructuredOutputError: The reply was cut, is a refusal, or is none of the options.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no chat completion.
        """
        chosen = _options(options)
        shape = _shape(chosen.literal, wrap=True)
        reply = self._run(_openai(messages, shape.asked, params, stream=False), model)
        return chosen.named(shape.read(reply).value)

    @overload
    async def achoose(
        self, messages: Messages, options: type[S], *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> S: ...

    @overload
    async def achoose(
        self,
        messages: Messages,
        options: Sequence[S],
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
        """Sends a conversation and lets the model choose one of some options, awaiting. See `choose`."""
        chosen = _options(options)
        shape = _shape(chosen.literal, wrap=True)
        reply = await self._arun(_openai(messages, shape.asked, params, stream=False), model)
        return chosen.named(shape.read(reply).value)


def _vllm(messages: Messages, asked: Params, params: Params, *, stream: bool) -> ChatRequest:
    params, found = _judged(params)
    return ChatRequest.make(
        messages, VLLM_CHAT, {**params, **asked}, stream=stream, ask_usage=True, found=found
    )


def _openai(messages: Messages, asked: Params, params: Params, *, stream: bool) -> ChatRequest:
    params, found = _judged(params)
    return ChatRequest.make(
        messages, OPENAI_CHAT, {**params, **asked}, stream=stream, ask_usage=False, found=found
    )


# What these verbs need is imported when they are called: chats do without.


def _shape(kind: TypeForm[T], *, wrap: bool) -> Shape[T]:
    from vllmchat.chat.structured import Shape

    return Shape(kind, wrap=wrap)


def _options(options: type[S] | Sequence[S] | TypeForm[S]) -> Options[S]:
    from vllmchat.chat.structured import Options

    return Options(options)


def _judged(params: Params) -> tuple[Params, list[Problem]]:
    """The parameters that can stand where one value is made of a reply, and what is wrong with the others."""
    from vllmchat.chat.structured import judge_single

    found = judge_single(params)
    wrong = {problem.parameter for problem in found}
    return {name: value for name, value in params.items() if name not in wrong}, found


def _choice(options: Options[S]) -> dict[str, object]:
    return {"structured_outputs": {"choice": options.names}}
