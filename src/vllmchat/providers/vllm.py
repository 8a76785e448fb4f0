"""A vLLM server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.chat.check import VLLM_CHAT
from vllmchat.chat.request import ChatRequest
from vllmchat.providers.admin_verbs import AdminVerbs
from vllmchat.providers.audio_verbs import AudioVerbs
from vllmchat.providers.generate_verbs import GenerateVerbs
from vllmchat.providers.pooling_verbs import PoolingVerbs
from vllmchat.providers.responses_verbs import ResponsesVerbs
from vllmchat.providers.server_verbs import ServerVerbs
from vllmchat.providers.structured_verbs import StructuredVerbs
from vllmchat.providers.text_verbs import TextVerbs
from vllmchat.providers.token_verbs import TokenVerbs
from vllmchat.providers.tool_verbs import ToolVerbs

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import VLLMChatParams
    from vllmchat.chat.stream import AsyncChatStream, ChatStream


class VLLMProvider(
    StructuredVerbs,
    ToolVerbs,
    TextVerbs,
    GenerateVerbs,
    ResponsesVerbs,
    TokenVerbs,
    PoolingVerbs,
    AudioVerbs,
    ServerVerbs,
    AdminVerbs,
):
    """Chats with a vLLM server.

    One provider serves both colours, many threads, and one event loop after another (asyncio or trio). Connections
    are opened when they are needed. A key, a URL or a limit given here goes before the environment:

        llm = VLLMProvider("Qwen/Qwen3-4B")
        reply = llm.chat("Why is the sky blue?", top_k=50, enable_thinking=True)
        print(reply.reasoning, reply.text)

    Args:
        model: The model that calls go to. Without one, the server is asked once which model it serves.
        base_url: The server, such as `http://localhost:8000/v1`; `/v1` is added where it is missing. Else
            `$VLLM_BASE_URL`, else `http://localhost:8000/v1`.
        api_key: Sent as `Authorization: Bearer ...`; what the server was given as `--api-key`. Else `$VLLM_API_KEY`,
            else `EMPTY`, which any server without a key accepts.
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

    _name = "vllm"
    _base_url_variable = "VLLM_BASE_URL"
    _base_url_default = "http://localhost:8000/v1"
    _api_key_variable = "VLLM_API_KEY"
    _api_key_default = "EMPTY"
    _routes_below_v1 = True
    _asks_for_model = True
    _has_version = True

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and gives the whole reply. It blocks, also when an event loop runs in the thread.

        Args:
            messages: A text, or the conversation so far.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no chat completion.
        """
        return self._run(_request(messages, params, stream=False), model)

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and gives the whole reply, awaiting. See `chat`."""
        return await self._arun(_request(messages, params, stream=False), model)

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> ChatStream:
        """Sends a conversation and gives the reply in pieces, as they are generated.

        Nothing is sent before the stream is iterated over or entered. The stream tells the usage at its end, unless
        `stream_options` says otherwise.

        Args:
            messages: A text, or the conversation so far.
            model: The model, or the name of a LoRA adapter, for this call.
            **params: See `VLLMChatParams`.

        Raises:
            InvalidRequestError: A parameter is wrong. What else can go wrong is raised by the stream.
        """
        return self._stream_chat(_request(messages, params, stream=True), model)

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[VLLMChatParams]
    ) -> AsyncChatStream:
        """Sends a conversation and gives the reply in pieces, awaiting. See `stream`."""
        return self._astream_chat(_request(messages, params, stream=True), model)


def _request(messages: Messages, params: VLLMChatParams, *, stream: bool) -> ChatRequest:
    return ChatRequest.make(messages, VLLM_CHAT, params, stream=stream, ask_usage=True)
