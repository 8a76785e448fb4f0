"""The provider for any OpenAI-compatible server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.chat.check import OPENAI_CHAT
from vllmchat.chat.request import ChatRequest
from vllmchat.providers.server_verbs import ModelVerbs
from vllmchat.providers.structured_verbs import OpenAIStructuredVerbs
from vllmchat.providers.text_verbs import OpenAITextVerbs
from vllmchat.providers.tool_verbs import OpenAIToolVerbs

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import ChatParams
    from vllmchat.chat.stream import AsyncChatStream, ChatStream


class OpenAIProvider(OpenAIStructuredVerbs, OpenAIToolVerbs, OpenAITextVerbs, ModelVerbs):
    """Client of any OpenAI-compatible server.

    One provider works sync and async, in many threads, and on one event loop after another (asyncio or trio). It opens
    connections when they are needed. A key, URL or timeout given here takes precedence over the environment.

    Args:
        model: The default model. Without one, each call must name its own.
        base_url: The prefix of the server's routes, usually ending with `/v1`. Default: `$OPENAI_BASE_URL`, else
            `https://api.openai.com/v1`.
        api_key: Sent as `Authorization: Bearer ...`. Default: `$OPENAI_API_KEY`; without either, the header is not
            sent.
        timeout: The timeouts; a number of seconds sets `Timeout.total` and keeps the other defaults.
        max_retries: The number of retries, for calls for which nothing can have been generated.
        headers: Sent with each request.
        http_client: An `httpx.Client` or `httpx2.Client` for sync calls. Its settings apply, and closing it is up to
            you. Without it, a built-in connection pool is used.
        async_http_client: The same for async calls: an `httpx.AsyncClient` or `httpx2.AsyncClient`.
        verify: TLS verification: True for the usual certificates (or `$SSL_CERT_FILE`), the path of a private CA's
            certificates, an `ssl.SSLContext` (also for a client certificate), or False to accept any certificate.
        max_connections: The maximum number of open connections, separately for sync calls and for each event loop;
            further calls wait. None for no limit.

    Raises:
        ValueError: The URL, the key or a header is invalid.
        TypeError: An argument has the wrong type, such as an async client for `http_client`.
    """

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
        return self._run(_request(messages, params, stream=False), model)

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatCompletion:
        """Async version of `chat`."""
        return await self._arun(_request(messages, params, stream=False), model)

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatStream:
        """Sends a conversation and streams the reply as it is generated.

        Nothing is sent before the stream is iterated over or entered. The server decides whether the stream has a
        usage, unless `stream_options={"include_usage": True}` is given. Set it together with `tools` and `max_tokens`:
        with some servers, only the usage shows that a tool call was cut.

        Args:
            messages: A string, or the conversation so far.
            model: The model, for this call.
            **params: See `ChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong. All other errors are raised by the stream.
        """
        return self._stream_chat(_request(messages, params, stream=True), model)

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> AsyncChatStream:
        """Async version of `stream`."""
        return self._astream_chat(_request(messages, params, stream=True), model)


def _request(messages: Messages, params: ChatParams, *, stream: bool) -> ChatRequest:
    return ChatRequest.make(messages, OPENAI_CHAT, params, stream=stream, ask_usage=False)
