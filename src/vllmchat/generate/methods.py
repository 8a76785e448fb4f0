"""Methods to render prompts and to generate from tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import VLLMChatParams
    from vllmchat.completions.params import VLLMCompletionParams
    from vllmchat.completions.prompt import Prompt
    from vllmchat.generate import request as requests, stream as streams
    from vllmchat.generate.generation import Generation
    from vllmchat.generate.params import GenerateParams
    from vllmchat.generate.rendered import RenderedPrompt
    from vllmchat.generate.request import (
        TokenPrompt,
    )
    from vllmchat.generate.stream import AsyncGenerationStream, GenerationStream
else:
    requests = LazyModule("vllmchat.generate.request")
    streams = LazyModule("vllmchat.generate.stream")


class GenerateMethods(ProviderBase):
    """Tokens in, tokens out. The server must be started with `--enable-scale-out`."""

    def render(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> RenderedPrompt:
        """Converts a conversation to the tokens that the model would read. Nothing is generated.

        Args:
            messages: The conversation so far; a string is one user message.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMChatParams`. Since vLLM 0.18, the result has the sampling parameters.

        Raises:
            InvalidRequestError: A parameter is invalid; nothing was sent.
            PermissionDeniedError: The server was started without `--enable-scale-out`.
            NotFoundError: The server is older than vLLM 0.15.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a rendered prompt.
        """
        return self._run(requests.render_request(messages, params), model)

    async def arender(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> RenderedPrompt:
        """Async version of `render`."""
        return await self._arun(requests.render_request(messages, params), model)

    def render_completion(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> list[RenderedPrompt]:
        """Converts the prompts of a completion to the tokens that the model would read. Nothing is generated.

        Args:
            prompt: A string, a list of token ids, or a list of several such prompts. None with `prompt_embeds`.
            model: The model or LoRA adapter for this call.
            **params: See `VLLMCompletionParams`. Since vLLM 0.18, the result has the sampling parameters.

        Returns:
            One rendered prompt for each prompt.

        Raises:
            InvalidRequestError: The prompt or a parameter is invalid; nothing was sent.
            PermissionDeniedError: The server was started without `--enable-scale-out`.
            NotFoundError: The server is older than vLLM 0.15.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list of rendered prompts.
        """
        return self._run(requests.render_completion_request(prompt, params), model)

    async def arender_completion(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> list[RenderedPrompt]:
        """Async version of `render_completion`."""
        return await self._arun(requests.render_completion_request(prompt, params), model)

    def generate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> Generation:
        """Generates from tokens, and returns tokens; with `output_mode="text"`, also their text.

        Args:
            prompt: A list of token ids, or a prompt from `render`.
            model: The model or LoRA adapter for this call.
            **params: See `GenerateParams`. They override the parameters in a rendered prompt.

        Raises:
            InvalidRequestError: The prompt or a parameter is invalid; nothing was sent.
            PermissionDeniedError: The server was started without `--enable-scale-out`.
            NotFoundError: The server is older than vLLM 0.11.1.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a generation.
        """
        return self._run(requests.generate_request(prompt, params, stream=False), model)

    async def agenerate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> Generation:
        """Async version of `generate`."""
        return await self._arun(requests.generate_request(prompt, params, stream=False), model)

    def stream_generate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> GenerationStream:
        """Generates from tokens, and streams the tokens as they are generated.

        Up to vLLM 0.19, the server does not stream here: all tokens come in one chunk at the end.

        Nothing is sent until you iterate over the stream or enter it. The stream ends with the usage, unless
        `stream_options` turns it off.

        Args:
            prompt: A list of token ids, or a prompt from `render`.
            model: The model or LoRA adapter for this call.
            **params: See `GenerateParams`. They override the parameters in a rendered prompt.

        Raises:
            InvalidRequestError: The prompt or a parameter is invalid. Other errors are raised by the stream.
        """
        request = requests.generate_request(prompt, params, stream=True)
        return streams.GenerationStream(
            streams.generation_reader(request), partial(self._open, request, model)
        )

    def astream_generate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> AsyncGenerationStream:
        """Async version of `stream_generate`."""
        request = requests.generate_request(prompt, params, stream=True)
        return streams.AsyncGenerationStream(
            streams.generation_reader(request), partial(self._aopen, request, model)
        )
