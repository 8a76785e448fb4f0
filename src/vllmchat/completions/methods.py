"""Methods for completions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.client.request import ModelRequest
    from vllmchat.completions import check as checks, request as requests, stream as streams
    from vllmchat.completions.completion import TextCompletion
    from vllmchat.completions.params import CompletionParams, VLLMCompletionParams
    from vllmchat.completions.prompt import Prompt
    from vllmchat.completions.stream import AsyncTextStream, TextStream
else:
    checks = LazyModule("vllmchat.completions.check")
    requests = LazyModule("vllmchat.completions.request")
    streams = LazyModule("vllmchat.completions.stream")


class _TextStreams(ProviderBase):
    """Creates streams of completions."""

    def _stream_text(self, request: ModelRequest[TextCompletion], model: str | None) -> TextStream:
        return streams.TextStream(streams.text_reader(request), partial(self._open, request, model))

    def _astream_text(self, request: ModelRequest[TextCompletion], model: str | None) -> AsyncTextStream:
        return streams.AsyncTextStream(streams.text_reader(request), partial(self._aopen, request, model))


class CompletionMethods(_TextStreams):
    """Completions from a vLLM server."""

    def complete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> TextCompletion:
        """Sends a prompt without a chat template, and returns the model's continuation.

        Args:
            prompt: A string, a list of token ids, or a list of several such prompts. None with `prompt_embeds`.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMCompletionParams`. `max_tokens` defaults to 16.

        Raises:
            InvalidRequestError: The prompt or a parameter is invalid; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a completion.
        """
        return self._run(requests.complete_request(prompt, params, checks.check_vllm, stream=False), model)

    async def acomplete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> TextCompletion:
        """Async version of `complete`."""
        return await self._arun(
            requests.complete_request(prompt, params, checks.check_vllm, stream=False), model
        )

    def stream_complete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> TextStream:
        """Sends a prompt without a chat template, and streams the model's continuation as it is generated.

        Nothing is sent until you iterate over the stream or enter it. The stream ends with the usage, unless
        `stream_options` turns it off.

        Args:
            prompt: A string, a list of token ids, or a list of several such prompts. None with `prompt_embeds`.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMCompletionParams`.

        Raises:
            InvalidRequestError: The prompt or a parameter is invalid. Other errors are raised by the stream.
        """
        request = requests.complete_request(prompt, params, checks.check_vllm, stream=True, ask_usage=True)
        return self._stream_text(request, model)

    def astream_complete(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> AsyncTextStream:
        """Async version of `stream_complete`."""
        request = requests.complete_request(prompt, params, checks.check_vllm, stream=True, ask_usage=True)
        return self._astream_text(request, model)


class OpenAICompletionMethods(_TextStreams):
    """Completions from any OpenAI-compatible server."""

    def complete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> TextCompletion:
        """Sends a prompt without a chat template, and returns the model's continuation.

        Args:
            prompt: A string, a list of token ids, or a list of several such prompts.
            model: The model for this call.
            **params: See `CompletionParams`. `max_tokens` defaults to 16.

        Raises:
            InvalidRequestError: The prompt or a parameter is invalid; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a completion.
        """
        return self._run(requests.complete_request(prompt, params, checks.check_openai, stream=False), model)

    async def acomplete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> TextCompletion:
        """Async version of `complete`."""
        return await self._arun(
            requests.complete_request(prompt, params, checks.check_openai, stream=False), model
        )

    def stream_complete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> TextStream:
        """Sends a prompt without a chat template, and streams the model's continuation as it is generated.

        Nothing is sent until you iterate over the stream or enter it. The server decides whether the stream ends with
        the usage; to request it, write `stream_options={"include_usage": True}`.

        Args:
            prompt: A string, a list of token ids, or a list of several such prompts.
            model: The model for this call.
            **params: See `CompletionParams`.

        Raises:
            InvalidRequestError: The prompt or a parameter is invalid. Other errors are raised by the stream.
        """
        return self._stream_text(
            requests.complete_request(prompt, params, checks.check_openai, stream=True), model
        )

    def astream_complete(
        self, prompt: Prompt, *, model: str | None = None, **params: Unpack[CompletionParams]
    ) -> AsyncTextStream:
        """Async version of `stream_complete`."""
        return self._astream_text(
            requests.complete_request(prompt, params, checks.check_openai, stream=True), model
        )
