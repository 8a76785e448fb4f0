"""Methods for OpenAI's Responses API."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.responses import request as requests, stream as streams
    from vllmchat.responses.params import OpenAIResponseParams, ResponseParams
    from vllmchat.responses.request import ResponseInput
    from vllmchat.responses.response import ModelResponse
    from vllmchat.responses.stream import AsyncResponseStream, ResponseStream
else:
    requests = LazyModule("vllmchat.responses.request")
    streams = LazyModule("vllmchat.responses.stream")


class ResponsesMethods(ProviderBase):
    """Responses from a vLLM server."""

    def respond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> ModelResponse:
        """Sends input to the Responses API and returns the whole response.

        Args:
            input: A string, or the items so far: messages, tool results, `output` of earlier responses.
            model: The model or LoRA adapter for this call.
            **params: See `ResponseParams`.

        Raises:
            InvalidRequestError: The input or a parameter is invalid; nothing was sent.
            NotFoundError: The server is older than vLLM 0.10.
            APIStatusError: The server returned another error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a Responses API response.
        """
        return self._run(requests.respond_request(input, params, stream=False), model)

    async def arespond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> ModelResponse:
        """Async version of `respond`."""
        return await self._arun(requests.respond_request(input, params, stream=False), model)

    def stream_respond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> ResponseStream:
        """Sends input to the Responses API and streams the response as events while it is generated.

        Nothing is sent until you iterate over the stream or enter it.

        Args:
            input: A string, or the items so far: messages, tool results, `output` of earlier responses.
            model: The model or LoRA adapter for this call.
            **params: See `ResponseParams`.

        Raises:
            InvalidRequestError: The input or a parameter is invalid. Other errors are raised by the stream.
        """
        request = requests.respond_request(input, params, stream=True)
        return streams.ResponseStream(streams.ResponseReader(), partial(self._open, request, model))

    def astream_respond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[ResponseParams],
    ) -> AsyncResponseStream:
        """Async version of `stream_respond`."""
        request = requests.respond_request(input, params, stream=True)
        return streams.AsyncResponseStream(streams.ResponseReader(), partial(self._aopen, request, model))


class OpenAIResponsesMethods(ProviderBase):
    """Responses from any OpenAI-compatible server."""

    def respond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[OpenAIResponseParams],
    ) -> ModelResponse:
        """Sends input to the Responses API and returns the whole response.

        Args:
            input: A string, or the items so far: messages, tool results, `output` of earlier responses.
            model: The model for this call.
            **params: See `OpenAIResponseParams`.

        Raises:
            InvalidRequestError: The input or a parameter is invalid; nothing was sent.
            APIStatusError: The server returned an error, such as `NotFoundError` if it has no responses.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a Responses API response.
        """
        return self._run(requests.respond_request(input, params, stream=False, openai=True), model)

    async def arespond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[OpenAIResponseParams],
    ) -> ModelResponse:
        """Async version of `respond`."""
        return await self._arun(requests.respond_request(input, params, stream=False, openai=True), model)

    def stream_respond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[OpenAIResponseParams],
    ) -> ResponseStream:
        """Sends input to the Responses API and streams the response as events while it is generated.

        Nothing is sent until you iterate over the stream or enter it.

        Args:
            input: A string, or the items so far: messages, tool results, `output` of earlier responses.
            model: The model for this call.
            **params: See `OpenAIResponseParams`.

        Raises:
            InvalidRequestError: The input or a parameter is invalid. Other errors are raised by the stream.
        """
        request = requests.respond_request(input, params, stream=True, openai=True)
        return streams.ResponseStream(streams.ResponseReader(), partial(self._open, request, model))

    def astream_respond(
        self,
        input: ResponseInput,  # noqa: A002 - the API's name
        *,
        model: str | None = None,
        **params: Unpack[OpenAIResponseParams],
    ) -> AsyncResponseStream:
        """Async version of `stream_respond`."""
        request = requests.respond_request(input, params, stream=True, openai=True)
        return streams.AsyncResponseStream(streams.ResponseReader(), partial(self._aopen, request, model))
