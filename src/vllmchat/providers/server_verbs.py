"""The verbs about the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.checking.limits import checked_seconds
from vllmchat.later import later
from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from vllmchat.http.timeout import Timeout
    from vllmchat.metrics import Metrics, metrics_request
    from vllmchat.models import ModelList
    from vllmchat.server import ModelsRequest, Readiness, health_request, load_request, version_request
else:
    metrics_request = later("vllmchat.metrics", "metrics_request")
    ModelsRequest = later("vllmchat.server", "ModelsRequest")
    Readiness = later("vllmchat.server", "Readiness")
    health_request = later("vllmchat.server", "health_request")
    load_request = later("vllmchat.server", "load_request")
    version_request = later("vllmchat.server", "version_request")


class ModelVerbs(ProviderBase):
    """What any server answers."""

    def models(self, *, timeout: float | Timeout | None = None) -> ModelList:
        """Asks which models the server serves, LoRA adapters among them.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            InvalidRequestError: `timeout` is wrong.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no list of models.
        """
        return self._run(ModelsRequest(timeout))

    async def amodels(self, *, timeout: float | Timeout | None = None) -> ModelList:
        """Asks which models the server serves, awaiting. See `models`."""
        return await self._arun(ModelsRequest(timeout))


class ServerVerbs(ModelVerbs):
    """What a vLLM server says of itself."""

    def version(self, *, timeout: float | Timeout | None = None) -> str:
        """Asks for the server's version, such as `0.32.0`. No key is needed.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no version.
        """
        return self._run(version_request(timeout))

    async def aversion(self, *, timeout: float | Timeout | None = None) -> str:
        """Asks for the server's version, awaiting. See `version`."""
        return await self._arun(version_request(timeout))

    def health(self, *, timeout: float | Timeout | None = None) -> bool:
        """Asks whether the server's engine runs. No key is needed, and nothing is generated.

        False is the server's own answer, 503 (500 before vLLM 0.11): its engine has died. An answer that does not
        come is an error. A server that sleeps or is paused is healthy.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            APIConnectionError: No answer came.
            APIStatusError: The server answered with another error.
        """
        return self._run(health_request(timeout))

    async def ahealth(self, *, timeout: float | Timeout | None = None) -> bool:
        """Asks whether the server's engine runs, awaiting. See `health`."""
        return await self._arun(health_request(timeout))

    def ready(self, timeout: float = 300.0, *, model: str | None = None) -> None:
        """Waits until the server is healthy and serves the model, for the start of a server or of a program.

        It asks `/health` and `/v1/models`, at first ten times a second, later every two seconds. A server that does
        not answer, or that answers 429 or 5xx, is asked again. Other errors, such as a wrong key, are raised at once:
        waiting does not cure them.

        Args:
            timeout: How long to wait, in seconds.
            model: The model that must be there, in place of the provider's own. Without either, any will do.

        Raises:
            APITimeoutError: The server was not ready in time. The message tells what it said last.
            APIStatusError: The server answered with an error that waiting does not cure.
            ResponseError: What answers is no server of this kind.
            InvalidRequestError: `timeout` is no positive number.
        """
        wait = Readiness(model or self.model, checked_seconds(timeout), self._blocking_timeout)
        self._follow(wait.flow, wait.timeout)

    async def aready(self, timeout: float = 300.0, *, model: str | None = None) -> None:
        """Waits until the server is healthy and serves the model, awaiting. See `ready`."""
        wait = Readiness(model or self.model, checked_seconds(timeout), self._awaiting_timeout)
        await self._afollow(wait.flow, wait.timeout)

    def load(self, *, timeout: float | Timeout | None = None) -> int:
        """Asks how many requests the server works on: those that occupy a model.

        It stays 0 unless the server was started with `--enable-server-load-tracking`; `metrics` always knows.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no load.
        """
        return self._run(load_request(timeout))

    async def aload(self, *, timeout: float | Timeout | None = None) -> int:
        """Asks how many requests the server works on, awaiting. See `load`."""
        return await self._arun(load_request(timeout))

    def metrics(self, *, timeout: float | Timeout | None = None) -> Metrics:
        """Asks for all that the server counts and measures. It needs `pip install 'vllmchat[metrics]'`.

        Args:
            timeout: Limits for this call; a number of seconds sets `Timeout.total`.

        Raises:
            ImportError: The package prometheus-client is missing; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is not in Prometheus' text format.
        """
        return self._run(metrics_request(timeout))

    async def ametrics(self, *, timeout: float | Timeout | None = None) -> Metrics:
        """Asks for all that the server counts and measures, awaiting. See `metrics`."""
        return await self._arun(metrics_request(timeout))
