"""The methods about the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from vllmchat.client.base import ProviderBase
from vllmchat.client.options import checked_model
from vllmchat.http.clock import Clock
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from vllmchat.checking import call_params
    from vllmchat.client import discovery, routes
    from vllmchat.client.discovery import ModelList
    from vllmchat.http.timeout import Timeout
    from vllmchat.server import metrics, status
    from vllmchat.server.metrics import Metrics
else:
    call_params = LazyModule("vllmchat.checking.call_params")
    discovery = LazyModule("vllmchat.client.discovery")
    metrics = LazyModule("vllmchat.server.metrics")
    routes = LazyModule("vllmchat.client.routes")
    status = LazyModule("vllmchat.server.status")


T = TypeVar("T")


class ModelMethods(ProviderBase):
    """The methods of every server."""

    def models(self, *, timeout: float | Timeout | None = None) -> ModelList:
        """Lists the models that the server serves, including LoRA adapters.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: `timeout` is invalid.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list of models.
        """
        return self._run(discovery.models_request(timeout))

    async def amodels(self, *, timeout: float | Timeout | None = None) -> ModelList:
        """Async version of `models`."""
        return await self._arun(discovery.models_request(timeout))

    @overload
    def get(
        self,
        path: str,
        *,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> JsonValue: ...
    @overload
    def get(
        self,
        path: str,
        *,
        cast_to: type[T],
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T: ...
    def get(
        self,
        path: str,
        *,
        cast_to: type[T] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T | JsonValue:
        """Sends a GET request to any route and returns the response, for routes that have no method here.

        It goes the way of all calls: key, headers, timeouts, retries and errors are the same.

        Args:
            path: The route below the root of the server, such as `"/v1/models"` or `"/tokenize"`. If `base_url` has a
                path before `/v1`, that path is added in front.
            cast_to: What to make of the response: a pydantic model, or any type that pydantic knows. Without it, the
                result is plain JSON; None for an empty response.
            extra_headers: Headers for this request. They override the provider's.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not JSON, or does not match `cast_to`.
        """
        return self._run(routes.route_request("GET", path, None, cast_to, extra_headers, timeout))

    @overload
    async def aget(
        self,
        path: str,
        *,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> JsonValue: ...
    @overload
    async def aget(
        self,
        path: str,
        *,
        cast_to: type[T],
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T: ...
    async def aget(
        self,
        path: str,
        *,
        cast_to: type[T] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T | JsonValue:
        """Async version of `get`."""
        return await self._arun(routes.route_request("GET", path, None, cast_to, extra_headers, timeout))

    @overload
    def post(
        self,
        path: str,
        body: object = None,
        *,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> JsonValue: ...
    @overload
    def post(
        self,
        path: str,
        body: object = None,
        *,
        cast_to: type[T],
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T: ...
    def post(
        self,
        path: str,
        body: object = None,
        *,
        cast_to: type[T] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T | JsonValue:
        """Sends a request to any route and returns the response, for routes that have no method here.

        It goes the way of all calls: key, headers, timeouts, retries and errors are the same.

        Args:
            path: The route below the root of the server, such as `"/v1/models"` or `"/tokenize"`. If `base_url` has a
                path before `/v1`, that path is added in front.
            body: The body: any JSON value, or a pydantic model without its None. Nothing is added, not even `model`.
            cast_to: What to make of the response: a pydantic model, or any type that pydantic knows. Without it, the
                result is plain JSON; None for an empty response.
            extra_headers: Headers for this request. They override the provider's.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not JSON, or does not match `cast_to`.
        """
        return self._run(routes.route_request("POST", path, body, cast_to, extra_headers, timeout))

    @overload
    async def apost(
        self,
        path: str,
        body: object = None,
        *,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> JsonValue: ...
    @overload
    async def apost(
        self,
        path: str,
        body: object = None,
        *,
        cast_to: type[T],
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T: ...
    async def apost(
        self,
        path: str,
        body: object = None,
        *,
        cast_to: type[T] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
    ) -> T | JsonValue:
        """Async version of `post`."""
        return await self._arun(routes.route_request("POST", path, body, cast_to, extra_headers, timeout))


class ServerMethods(ModelMethods):
    """The methods about a vLLM server itself."""

    def version(self, *, timeout: float | Timeout | None = None) -> str:
        """Returns the server's version, such as `0.32.0`. No key is needed.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a version.
        """
        return self._run(discovery.version_request(timeout))

    async def aversion(self, *, timeout: float | Timeout | None = None) -> str:
        """Async version of `version`."""
        return await self._arun(discovery.version_request(timeout))

    def max_model_len(self, model: str | None = None, *, timeout: float | Timeout | None = None) -> int:
        """Returns the maximum context length of a model, prompt plus reply, in tokens.

        The server is asked once for each model. A LoRA adapter has the length of its base model.

        Args:
            model: The model instead of the provider's own. Without either, the only one that the server serves.
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: The server does not serve the model, or serves several and none is named.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response has no such length.
        """
        name = checked_model(model) or self.model
        known = self._found.lengths.get(name or "")
        return known if known is not None else self._run(discovery.length_request(self._found, name, timeout))

    async def amax_model_len(
        self, model: str | None = None, *, timeout: float | Timeout | None = None
    ) -> int:
        """Async version of `max_model_len`."""
        name = checked_model(model) or self.model
        known = self._found.lengths.get(name or "")
        if known is not None:
            return known
        return await self._arun(discovery.length_request(self._found, name, timeout))

    def health(self, *, timeout: float | Timeout | None = None) -> bool:
        """Checks whether the server's engine is running. No key is needed, and nothing is generated.

        False means that the server itself returned 503 (500 before vLLM 0.11): its engine has died. It is an error if
        no response arrives. A server that sleeps or is paused is healthy. Behind a gateway that responds itself, it is
        the gateway's health; False if the gateway lists its healthy servers, and there are none.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            APIConnectionError: No response arrived.
            APIStatusError: The server returned another error.
            ResponseError: The response is a web page: `base_url` is not that of a vLLM server.
        """
        return self._run(status.health_request(timeout))

    async def ahealth(self, *, timeout: float | Timeout | None = None) -> bool:
        """Async version of `health`."""
        return await self._arun(status.health_request(timeout))

    def ready(self, timeout: float = 300.0, *, model: str | None = None) -> bool:
        """Waits until the server is healthy and serves the model, for example after starting it. Returns True.

        It polls `/health` and `/v1/models`, first ten times a second, later every two seconds. Behind a gateway that
        does not forward `/health`, the models are enough. It goes on if the server does not respond, or responds with
        429 or 5xx. Other errors, such as a wrong key, are raised at once: waiting will not fix them. So is a healthy
        server that serves only other models.

        Args:
            timeout: How long to wait, in seconds.
            model: The model to wait for instead of the provider's own. Without either, any model will do.

        Raises:
            APITimeoutError: The server was not ready in time. The message gives its last state.
            APIStatusError: The server returned an error that waiting will not fix.
            ResponseError: The response is not from a server of this kind.
            InvalidRequestError: The server is healthy and serves other models, or `timeout` is not a positive number.
        """
        self._check_open()
        wait = status.Readiness(model or self.model, call_params.checked_seconds(timeout), self._sync_timeout)
        self._follow(wait.flow, Clock(wait.timeout))
        return True

    async def aready(self, timeout: float = 300.0, *, model: str | None = None) -> bool:
        """Async version of `ready`."""
        self._check_open()
        wait = status.Readiness(
            model or self.model, call_params.checked_seconds(timeout), self._async_timeout
        )
        await self._afollow(wait.flow, Clock(wait.timeout))
        return True

    def load(self, *, timeout: float | Timeout | None = None) -> int:
        """Returns how many requests the server is processing.

        It is always 0 unless the server was started with `--enable-server-load-tracking`; `metrics` works without it.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response has no load.
        """
        return self._run(status.load_request(timeout))

    async def aload(self, *, timeout: float | Timeout | None = None) -> int:
        """Async version of `load`."""
        return await self._arun(status.load_request(timeout))

    def metrics(self, *, timeout: float | Timeout | None = None) -> Metrics:
        """Returns the server's metrics. Needs `pip install 'vllmchat[metrics]'`.

        Args:
            timeout: The timeouts of this call; a number of seconds sets `Timeout.total`.

        Raises:
            ImportError: The prometheus-client package is missing; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not in the Prometheus text format.
        """
        return self._run(metrics.metrics_request(timeout))

    async def ametrics(self, *, timeout: float | Timeout | None = None) -> Metrics:
        """Async version of `metrics`."""
        return await self._arun(metrics.metrics_request(timeout))
