"""Any OpenAI-compatible server."""

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
    """Chats with any OpenAI-compatible server.

    One provider serves both colours, many threads, and one event loop after another (asyncio or trio). Connections
    are opened when they are needed. A key, a URL or a limit given here goes before the environment.

    Args:
        model: The model that calls go to. Without one, each call must name its own.
        base_url: Where the server's routes begin, mostly with `/v1` at the end. Else `$OPENAI_BASE_URL`, else
            `https://api.openai.com/v1`.
        api_key: Sent as `Authorization: Bearer ...`. Else `$OPENAI_API_KEY`; without both, no such header is sent.
        timeout: Limits on waiting; a number of seconds sets `Timeout.total` and keeps the other defaults.
        max_retries: How often a call is tried again where nothing can have been generated.
        headers: Sent with each request.
        http_client: An `httpx.Client` or `httpx2.Client` to send blocking calls with. Its settings hold, and it is
            yours to close. Without it, a pool of our own is used.
        async_http_client: The same for asynchronous calls: an `httpx.AsyncClient` or `httpx2.AsyncClient`.
        verify: Whom to trust on `https://`: True for the usual certificates (or `$SSL_CERT_FILE`), a path to those of
            a private CA, an `ssl.SSLContext` (also for a client certificate), or False for anybody.
        max_connections: How many connections may be open at once, for each colour and event loop; more calls wait
            their turn. None for no limit.

    Raises:
        ValueError: The URL, the key or a header cannot be used.
        TypeError: An argument has the wrong type, such as an asynchronous client for `http_client`.
    """

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and gives the whole reply. It blocks, also when an event loop runs in the thread.

        Args:
            messages: A text, or the conversation so far.
            model: The model, for this call.
            **params: See `ChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no chat completion.
        """
        return self._run(_request(messages, params, stream=False), model)

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and gives the whole reply, awaiting. See `chat`."""
        return await self._arun(_request(messages, params, stream=False), model)

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> ChatStream:
        """Sends a conversation and gives the reply in pieces, as they are generated.

        Nothing is sent before the stream is iterated over or entered. Whether a stream tells the usage is the
        server's choice unless `stream_options={"include_usage": True}` is given. Give it with `tools` and
        `max_tokens`: some servers say only there that a tool call was cut.

        Args:
            messages: A text, or the conversation so far.
            model: The model, for this call.
            **params: See `ChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong. What else can go wrong is raised by the stream.
        """
        return self._stream_chat(_request(messages, params, stream=True), model)

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[ChatParams]
    ) -> AsyncChatStream:
        """Sends a conversation and gives the reply in pieces, awaiting. See `stream`."""
        return self._astream_chat(_request(messages, params, stream=True), model)


def _request(messages: Messages, params: ChatParams, *, stream: bool) -> ChatRequest:
    return ChatRequest.make(messages, OPENAI_CHAT, params, stream=stream, ask_usage=False)
