"""The provider for vLLM servers."""

from __future__ import annotations

from vllmchat.audio.methods import AudioMethods
from vllmchat.chat.methods import ChatMethods
from vllmchat.client.arguments import explain_arguments
from vllmchat.completions.methods import CompletionMethods
from vllmchat.decisions.methods import DecisionMethods
from vllmchat.generate.methods import GenerateMethods
from vllmchat.jobs.methods import MapMethods
from vllmchat.pooling.methods import PoolingMethods
from vllmchat.responses.methods import ResponsesMethods
from vllmchat.server.admin_methods import AdminMethods
from vllmchat.server.methods import ServerMethods
from vllmchat.structured.methods import StructuredMethods
from vllmchat.tokens.methods import TokenMethods
from vllmchat.tools.methods import ToolMethods


@explain_arguments
class VLLMProvider(
    MapMethods,
    ChatMethods,
    StructuredMethods,
    ToolMethods,
    CompletionMethods,
    GenerateMethods,
    ResponsesMethods,
    TokenMethods,
    DecisionMethods,
    PoolingMethods,
    AudioMethods,
    ServerMethods,
    AdminMethods,
):
    """Client of a vLLM server.

    One provider works sync and async, in many threads, and on one event loop after another (asyncio or trio). It opens
    connections when they are needed. A key, URL or timeout given here takes precedence over the environment:

        llm = VLLMProvider("Qwen/Qwen3-4B")
        reply = llm.chat("Why is the sky blue?", top_k=50, enable_thinking=True)
        print(reply.reasoning, reply.text)

    Args:
        model: The default model. Without one, the server is asked once which model it serves.
        base_url: The server, such as `http://localhost:8000/v1`; `/v1` is added if it is missing. Default:
            `$VLLM_BASE_URL`, else `http://localhost:8000/v1`.
        api_key: The server's `--api-key`, sent as `Authorization: Bearer ...`. Default: `$VLLM_API_KEY`, else `EMPTY`,
            which servers without a key accept.
        timeout: The timeouts; a number of seconds sets `Timeout.total` and keeps the other defaults.
        max_retries: The number of retries, for calls for which nothing can have been generated.
        max_retry_seconds: For how many seconds to retry instead, however often. To wait for a server that is paused or
            restarts, this is enough.
        headers: Sent with each request.
        http_client: An `httpx.Client` or `httpx2.Client` for sync calls. Its settings apply, and closing it is up to
            you. Without it, a built-in connection pool is used.
        async_http_client: The same for async calls: an `httpx.AsyncClient` or `httpx2.AsyncClient`.
        verify: TLS verification: True for the usual certificates (or `$SSL_CERT_FILE`), the path of a private CA's
            certificates, an `ssl.SSLContext` (also for a client certificate), or False to accept any certificate.
        max_connections: The maximum number of open connections, separately for sync calls and for each event loop;
            further calls wait. None for no limit.
        on_request: Called before each request, such as to add headers to it. See `OnRequest`.
        on_retry: Called before each retry, with its reason. See `OnRetry`.
        on_response: Called at the end of each call, with what came of it. See `OnResponse`.

    Raises:
        ValueError: The URL, the key or a header is invalid.
        TypeError: An argument has the wrong type, such as an async client for `http_client`.
    """

    _name = "vllm"
    _base_url_variable = "VLLM_BASE_URL"
    _base_url_default = "http://localhost:8000/v1"
    _api_key_variable = "VLLM_API_KEY"
    _api_key_default = "EMPTY"
    _routes_below_v1 = True
    _asks_for_model = True
    _has_version = True
