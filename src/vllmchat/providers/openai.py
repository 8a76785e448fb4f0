"""The provider for any OpenAI-compatible server."""

from __future__ import annotations

from vllmchat.audio.methods import OpenAIAudioMethods
from vllmchat.chat.methods import OpenAIChatMethods
from vllmchat.client.arguments import explain_arguments
from vllmchat.completions.methods import OpenAICompletionMethods
from vllmchat.jobs.methods import OpenAIMapMethods
from vllmchat.pooling.methods import OpenAIEmbeddingMethods
from vllmchat.responses.methods import OpenAIResponsesMethods
from vllmchat.server.methods import ModelMethods
from vllmchat.structured.methods import OpenAIStructuredMethods
from vllmchat.tools.methods import OpenAIToolMethods


@explain_arguments
class OpenAIProvider(
    OpenAIMapMethods,
    OpenAIChatMethods,
    OpenAIStructuredMethods,
    OpenAIToolMethods,
    OpenAICompletionMethods,
    OpenAIResponsesMethods,
    OpenAIEmbeddingMethods,
    OpenAIAudioMethods,
    ModelMethods,
):
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
