"""The verbs for responses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.later import later
from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.responses.params import ResponseParams
    from vllmchat.responses.request import ResponseInput, respond_request
    from vllmchat.responses.response import ModelResponse
    from vllmchat.responses.stream import AsyncResponseStream, ResponseReader, ResponseStream
else:
    respond_request = later("vllmchat.responses.request", "respond_request")
    AsyncResponseStream = later("vllmchat.responses.stream", "AsyncResponseStream")
    ResponseReader = later("vllmchat.responses.stream", "ResponseReader")
    ResponseStream = later("vllmchat.responses.stream", "ResponseStream")


class ResponsesVerbs(ProviderBase):
    """Responses by a vLLM server."""

    def respond(
        self,
        input: ResponseInput,  # noqa: A002 - so it is called everywhere
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> ModelResponse:
        """Sends input in the form of OpenAI's responses, and gives the whole response.

        Args:
            input: A text, or the items so far: messages, answers of tools, `output` of earlier responses.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `ResponseParams`.

        Raises:
            InvalidRequestError: The input or a parameter is wrong; nothing was sent.
            NotFoundError: The server is older than vLLM 0.10.
            APIStatusError: The server answered with another error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no response.
        """
        return self._run(respond_request(input, params, stream=False), model)

    async def arespond(
        self,
        input: ResponseInput,  # noqa: A002 - so it is called everywhere
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> ModelResponse:
        """Sends input in the form of OpenAI's responses, and gives the whole response, awaiting. See `respond`."""
        return await self._arun(respond_request(input, params, stream=False), model)

    def stream_respond(
        self,
        input: ResponseInput,  # noqa: A002 - so it is called everywhere
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> ResponseStream:
        """Sends input in the form of OpenAI's responses, and gives the response in events, as it is generated.

        Nothing is sent before the stream is iterated over or entered.

        Args:
            input: A text, or the items so far: messages, answers of tools, `output` of earlier responses.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `ResponseParams`.

        Raises:
            InvalidRequestError: The input or a parameter is wrong. What else can go wrong is raised by the stream.
        """
        request = respond_request(input, params, stream=True)
        return ResponseStream(ResponseReader(), partial(self._open, request, model))

    def astream_respond(
        self,
        input: ResponseInput,  # noqa: A002 - so it is called everywhere
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> AsyncResponseStream:
        """Sends input in the form of OpenAI's responses, and gives events, awaiting. See `stream_respond`."""
        request = respond_request(input, params, stream=True)
        return AsyncResponseStream(ResponseReader(), partial(self._aopen, request, model))
