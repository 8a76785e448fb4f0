"""The verbs for prompts in tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.later import later
from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import VLLMChatParams
    from vllmchat.generate.generation import Generation
    from vllmchat.generate.params import GenerateParams
    from vllmchat.generate.rendered import RenderedPrompt
    from vllmchat.generate.request import (
        TokenPrompt,
        generate_request,
        render_completion_request,
        render_request,
    )
    from vllmchat.generate.stream import AsyncGenerationStream, GenerationReader, GenerationStream
    from vllmchat.text.params import VLLMCompletionParams
    from vllmchat.text.prompt import Prompt
else:
    generate_request = later("vllmchat.generate.request", "generate_request")
    render_completion_request = later("vllmchat.generate.request", "render_completion_request")
    render_request = later("vllmchat.generate.request", "render_request")
    AsyncGenerationStream = later("vllmchat.generate.stream", "AsyncGenerationStream")
    GenerationReader = later("vllmchat.generate.stream", "GenerationReader")
    GenerationStream = later("vllmchat.generate.stream", "GenerationStream")


class GenerateVerbs(ProviderBase):
    """Tokens in, tokens out. The server must have been started with `--enable-scale-out`."""

    def render(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> RenderedPrompt:
        """Turns a conversation into the tokens that the model would read. Nothing is generated.

        Args:
            messages: A text, or the conversation so far.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`; those of sampling are kept in the result, from vLLM 0.18 on.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            PermissionDeniedError: The server was started without `--enable-scale-out`.
            NotFoundError: The server is older than vLLM 0.15.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no rendered prompt.
        """
        return self._run(render_request(messages, params), model)

    async def arender(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> RenderedPrompt:
        """Turns a conversation into the tokens that the model would read, awaiting. See `render`."""
        return await self._arun(render_request(messages, params), model)

    def render_completion(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> list[RenderedPrompt]:
        """Turns the prompts of a completion into the tokens that the model would read. Nothing is generated.

        Args:
            prompt: A text, the ids of its tokens, or a list of several such prompts. None with `prompt_embeds`.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMCompletionParams`; those of sampling are kept in the result, from vLLM 0.18 on.

        Returns:
            One for each prompt.

        Raises:
            InvalidRequestError: The prompt or a parameter is wrong; nothing was sent.
            PermissionDeniedError: The server was started without `--enable-scale-out`.
            NotFoundError: The server is older than vLLM 0.15.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no list of rendered prompts.
        """
        return self._run(render_completion_request(prompt, params), model)

    async def arender_completion(
        self,
        prompt: Prompt | None = None,
        *,
        model: str | None = None,
        **params: Unpack[VLLMCompletionParams],
    ) -> list[RenderedPrompt]:
        """Turns the prompts of a completion into tokens, awaiting. See `render_completion`."""
        return await self._arun(render_completion_request(prompt, params), model)

    def generate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> Generation:
        """Generates from tokens, and gives tokens; with `output_mode="text"` their text, too.

        Args:
            prompt: The ids of the prompt's tokens, or what `render` gave.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `GenerateParams`. They go over what was rendered into a prompt.

        Raises:
            InvalidRequestError: The prompt or a parameter is wrong; nothing was sent.
            PermissionDeniedError: The server was started without `--enable-scale-out`.
            NotFoundError: The server is older than vLLM 0.11.1.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no generation.
        """
        return self._run(generate_request(prompt, params, stream=False), model)

    async def agenerate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> Generation:
        """Generates from tokens, and gives tokens, awaiting. See `generate`."""
        return await self._arun(generate_request(prompt, params, stream=False), model)

    def stream_generate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> GenerationStream:
        """Generates from tokens, and gives tokens as they come.

        Up to vLLM 0.19 a server does not stream here: all tokens come in one chunk, at the end.

        Nothing is sent before the stream is iterated over or entered. The stream tells the usage at its end, unless
        `stream_options` says otherwise.

        Args:
            prompt: The ids of the prompt's tokens, or what `render` gave.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `GenerateParams`. They go over what was rendered into a prompt.

        Raises:
            InvalidRequestError: The prompt or a parameter is wrong. What else can go wrong is raised by the stream.
        """
        request = generate_request(prompt, params, stream=True)
        return GenerationStream(GenerationReader(request), partial(self._open, request, model))

    def astream_generate(
        self, prompt: TokenPrompt, *, model: str | None = None, **params: Unpack[GenerateParams]
    ) -> AsyncGenerationStream:
        """Generates from tokens, and gives tokens as they come, awaiting. See `stream_generate`."""
        request = generate_request(prompt, params, stream=True)
        return AsyncGenerationStream(GenerationReader(request), partial(self._aopen, request, model))
