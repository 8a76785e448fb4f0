"""Chats: a reply as a whole or in pieces, or one to each of many conversations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Unpack

    from vllmchat.chat import batch, check, limits, request as requests, stream as streams
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import ChatParams, VLLMChatParams
    from vllmchat.chat.stream import AsyncChatStream, ChatStream
    from vllmchat.client.request import ModelRequest
else:
    batch = LazyModule("vllmchat.chat.batch")
    check = LazyModule("vllmchat.chat.check")
    limits = LazyModule("vllmchat.chat.limits")
    requests = LazyModule("vllmchat.chat.request")
    streams = LazyModule("vllmchat.chat.stream")


class ChatStreams(ProviderBase):
    """How chats are streamed."""

    def _stream_chat(self, request: ModelRequest[ChatCompletion], model: str | None) -> ChatStream:
        return streams.ChatStream(limits.limits_of(request.params), partial(self._open, request, model))

    def _astream_chat(self, request: ModelRequest[ChatCompletion], model: str | None) -> AsyncChatStream:
        return streams.AsyncChatStream(limits.limits_of(request.params), partial(self._aopen, request, model))


class ChatMethods(ChatStreams):
    """Chats with a vLLM server."""

    def _check_defaults(self, defaults: Mapping[str, object]) -> None:
        check.VLLM_CHAT.check(defaults)

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and returns the whole reply. It blocks, even if the thread runs an event loop.

        Args:
            messages: A string, or the conversation so far.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a chat completion.
        """
        return self._run(requests.vllm_request(messages, params, stream=False), model)

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Async version of `chat`."""
        return await self._arun(requests.vllm_request(messages, params, stream=False), model)

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatStream:
        """Sends a conversation and streams the reply as it is generated.

        Nothing is sent before the stream is iterated over or entered. The stream ends with the usage, unless
        `stream_options` says otherwise.

        Args:
            messages: A string, or the conversation so far.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong. All other errors are raised by the stream.
        """
        return self._stream_chat(requests.vllm_request(messages, params, stream=True), model)

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> AsyncChatStream:
        """Async version of `stream`."""
        return self._astream_chat(requests.vllm_request(messages, params, stream=True), model)

    def chat_batch(
        self, conversations: Sequence[Messages], *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Sends many conversations in one request, and returns one reply for each. Needs vLLM 0.19 or newer.

        The replies come together, when the last one is complete, as the choices of one completion:
        `reply.choices[i].message` replies to `conversations[i]`. If one conversation fails, all of them fail.

        Args:
            conversations: The conversations, each as for `chat`.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMChatParams`; they apply to all conversations. Tools, several replies (`n`), beam search,
                transfers between servers, and parameters whose results the server would not return
                (`prompt_logprobs`, `return_prompt_text`, `routed_experts_prompt_start`) raise. `return_token_ids`
                returns the tokens of the replies, but not of the prompts.

        Raises:
            InvalidRequestError: A conversation or a parameter is invalid; nothing was sent.
            NotFoundError: The server is older than vLLM 0.19.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a chat completion, or does not have one reply for each conversation.
        """
        return self._run(batch.batch_request(conversations, params), model)

    async def achat_batch(
        self, conversations: Sequence[Messages], *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Async version of `chat_batch`."""
        return await self._arun(batch.batch_request(conversations, params), model)


class OpenAIChatMethods(ChatStreams):
    """Chats with any OpenAI-compatible server."""

    def _check_defaults(self, defaults: Mapping[str, object]) -> None:
        check.OPENAI_CHAT.check(defaults)

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and returns the whole reply. It blocks, even if the thread runs an event loop.

        Args:
            messages: A string, or the conversation so far.
            model: The model, for this call.
            **params: See `ChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a chat completion.
        """
        return self._run(requests.openai_request(messages, params, stream=False), model)

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatCompletion:
        """Async version of `chat`."""
        return await self._arun(requests.openai_request(messages, params, stream=False), model)

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatStream:
        """Sends a conversation and streams the reply as it is generated.

        Nothing is sent before the stream is iterated over or entered. The server decides whether the stream has a
        usage, unless `stream_options={"include_usage": True}` is given. Set it together with `tools` and `max_tokens`:
        with some servers, only the usage shows that a tool call was truncated.

        Args:
            messages: A string, or the conversation so far.
            model: The model, for this call.
            **params: See `ChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong. All other errors are raised by the stream.
        """
        return self._stream_chat(requests.openai_request(messages, params, stream=True), model)

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> AsyncChatStream:
        """Async version of `stream`."""
        return self._astream_chat(requests.openai_request(messages, params, stream=True), model)
