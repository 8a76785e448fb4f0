"""The provider for any OpenAI-compatible server."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from typing_extensions import Unpack

    from vllmchat.chat.params import DefaultParams
    from vllmchat.client.hooks import OnRequest, OnResponse, OnRetry
    from vllmchat.http.connections import Verify
    from vllmchat.http.timeout import Timeout
    from vllmchat.http.transport.httpx_client import AsyncHTTPClient, SyncHTTPClient


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
        pickle_secrets: Whether a pickle of the provider holds `api_key`, and headers and defaults that are secret.
            Without them, the other process takes the key from its environment.
        **defaults: Defaults of parameters of calls, such as `temperature=0`; see `DefaultParams`. Each method that
            samples uses those that it has. A parameter of a call overrides its default, and None leaves it out.

    Raises:
        InvalidRequestError: An argument is unknown, or a default is invalid.
        ValueError: The URL, the key or a header is invalid.
        TypeError: An argument has the wrong type, such as an async client for `http_client`.
    """

    if TYPE_CHECKING:  # the same at run time, in `ProviderBase`

        def __init__(
            self,
            model: str | None = None,
            *,
            base_url: str | None = None,
            api_key: str | None = None,
            timeout: float | Timeout | None = None,
            max_retries: int = 2,
            max_retry_seconds: float | None = None,
            headers: Mapping[str, str] | None = None,
            http_client: SyncHTTPClient | None = None,
            async_http_client: AsyncHTTPClient | None = None,
            verify: Verify = True,
            max_connections: int | None = None,
            on_request: OnRequest | None = None,
            on_retry: OnRetry | None = None,
            on_response: OnResponse | None = None,
            pickle_secrets: bool = False,
            **defaults: Unpack[DefaultParams],
        ) -> None: ...

        def with_options(
            self,
            *,
            model: str | None = None,
            api_key: str | None = None,
            timeout: float | Timeout | None = None,
            max_retries: int | None = None,
            max_retry_seconds: float | None = None,
            headers: Mapping[str, str] | None = None,
            on_request: OnRequest | None = None,
            on_retry: OnRetry | None = None,
            on_response: OnResponse | None = None,
            pickle_secrets: bool | None = None,
            **defaults: Unpack[DefaultParams],
        ) -> Self:
            """Returns a copy with other settings that shares the connections. It is cheap.

            The original owns the connections: closing the copy does nothing.

            Args:
                model: The default model.
                api_key: The API key.
                timeout: The default timeout. A number sets `Timeout.total`, in seconds, and keeps the other limits.
                max_retries: How many times to retry.
                max_retry_seconds: For how many seconds to retry instead.
                headers: Headers for each request, in addition to those of the original.
                on_request: Called before each request. See `OnRequest`.
                on_retry: Called before each retry. See `OnRetry`.
                on_response: Called at the end of each call. See `OnResponse`.
                pickle_secrets: Whether pickles hold the key and what else is secret.
                **defaults: Defaults of parameters of calls, such as `temperature=0`, in addition to those of the
                    original. None removes one.

            Raises:
                InvalidRequestError: An argument is unknown, or a default is invalid.
            """
            ...
