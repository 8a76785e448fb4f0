"""The verbs for completions, and for many conversations at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.later import later
from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from vllmchat.batch import batch_request
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import VLLMChatParams
    from vllmchat.post import Post
    from vllmchat.text.check import check_openai, check_vllm
    from vllmchat.text.completion import TextCompletion
    from vllmchat.text.params import CompletionParams, VLLMCompletionParams
    from vllmchat.text.prompt import Prompt
    from vllmchat.text.request import complete_request
    from vllmchat.text.stream import AsyncTextStream, TextReader, TextStream
else:
    batch_request = later("vllmchat.batch", "batch_request")
    check_openai = later("vllmchat.text.check", "check_openai")
    check_vllm = later("vllmchat.text.check", "check_vllm")
    complete_request = later("vllmchat.text.request", "complete_request")
    AsyncTextStream = later("vllmchat.text.stream", "AsyncTextStream")
    TextReader = later("vllmchat.text.stream", "TextReader")
    TextStream = later("vllmchat.text.stream", "TextStream")


class _TextStreams(ProviderBase):
    """How completions are streamed."""

    def _stream_text(self, request: Post[TextCompletion], model: str | None) -> TextStream:
        return TextStream(TextReader(request), partial(self._open, request, model))

    def _astream_text(self, request: Post[TextCompletion], model: str | None) -> AsyncTextStream:
        return AsyncTextStream(TextReader(request), partial(self._aopen, request, model))


class TextVerbs(_TextStreams):
    """Completions by a vLLM server."""

    def complete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> TextCompletion:
        """Sends a prompt as it is, without a chat template, and gives how the model goes on.

        Args:
            prompt: A text, the ids of its tokens, or a list of several such prompts. None with `prompt_embeds`.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMCompletionParams`. Without `max_tokens` a completion stops at 16 tokens.

        Raises:
            InvalidRequestError: The prompt or a parameter is wrong; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no completion.
        """
        return self._run(complete_request(prompt, params, check_vllm, stream=False), model)

    async def acomplete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> TextCompletion:
        """Sends a prompt as it is and gives how the model goes on, awaiting. See `complete`."""
        return await self._arun(complete_request(prompt, params, check_vllm, stream=False), model)

    def stream_complete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> TextStream:
        """Sends a prompt as it is and gives how the model goes on, in pieces, as they are generated.

        Nothing is sent before the stream is iterated over or entered. The stream tells the usage at its end, unless
        `stream_options` says otherwise.

        Args:
            prompt: A text, the ids of its tokens, or a list of several such prompts. None with `prompt_embeds`.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMCompletionParams`.

        Raises:
            InvalidRequestError: The prompt or a parameter is wrong. What else can go wrong is raised by the stream.
        """
        request = complete_request(prompt, params, check_vllm, stream=True, ask_usage=True)
        return self._stream_text(request, model)

    def astream_complete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> AsyncTextStream:
        """Sends a prompt as it is and gives how the model goes on, in pieces, awaiting. See `stream_complete`."""
        request = complete_request(prompt, params, check_vllm, stream=True, ask_usage=True)
        return self._astream_text(request, model)

    def chat_batch(
        self, conversations: Sequence[Messages], *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Sends many conversations at once, and gives one reply to each. Needs vLLM 0.19 or newer.

        The replies come together, when the last is finished, as the choices of one answer:
        `reply.choices[i].message` answers `conversations[i]`. One conversation that fails fails them all.

        Args:
            conversations: The conversations, each as for `chat`.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`; they hold for all of the conversations. Tools, several replies (`n`), beam
                search, transfers between servers and what the server would not tell (`prompt_logprobs`,
                `return_prompt_text`, `routed_experts_prompt_start`) are refused. `return_token_ids` gives the tokens
                of the replies, not those of the prompts.

        Raises:
            InvalidRequestError: A conversation or a parameter is wrong; nothing was sent.
            NotFoundError: The server is older than vLLM 0.19.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no chat completion, or has not one reply to each conversation.
        """
        return self._run(batch_request(conversations, params), model)

    async def achat_batch(
        self, conversations: Sequence[Messages], *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Sends many conversations at once, and gives one reply to each, awaiting. See `chat_batch`."""
        return await self._arun(batch_request(conversations, params), model)


class OpenAITextVerbs(_TextStreams):
    """Completions by any OpenAI-compatible server."""

    def complete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> TextCompletion:
        """Sends a prompt as it is, without a chat template, and gives how the model goes on.

        Args:
            prompt: A text, the ids of its tokens, or a list of several such prompts.
            model: The model, for this call.
            **params: See `CompletionParams`. Without `max_tokens` a completion stops at 16 tokens.

        Raises:
            InvalidRequestError: The prompt or a parameter is wrong; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no completion.
        """
        return self._run(complete_request(prompt, params, check_openai, stream=False), model)

    async def acomplete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> TextCompletion:
        """Sends a prompt as it is and gives how the model goes on, awaiting. See `complete`."""
        return await self._arun(complete_request(prompt, params, check_openai, stream=False), model)

    def stream_complete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> TextStream:
        """Sends a prompt as it is and gives how the model goes on, in pieces, as they are generated.

        Nothing is sent before the stream is iterated over or entered. Whether a stream tells the usage is the
        server's choice unless `stream_options={"include_usage": True}` is given.

        Args:
            prompt: A text, the ids of its tokens, or a list of several such prompts.
            model: The model, for this call.
            **params: See `CompletionParams`.

        Raises:
            InvalidRequestError: The prompt or a parameter is wrong. What else can go wrong is raised by the stream.
        """
        return self._stream_text(complete_request(prompt, params, check_openai, stream=True), model)

    def astream_complete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> AsyncTextStream:
        """Sends a prompt as it is and gives how the model goes on, in pieces, awaiting. See `stream_complete`."""
        return self._astream_text(complete_request(prompt, params, check_openai, stream=True), model)
