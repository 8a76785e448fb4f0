"""The load of a server, from its metrics and what they were before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vllmchat.errors import APIConnectionError, NotFoundError, VLLMChatError
from vllmchat.server.metrics import Metrics

if TYPE_CHECKING:
    from vllmchat.providers.vllm import VLLMProvider

_DOWN: Final = {
    "refused": "connection refused",
    "unreachable": "not reachable",
    "connect_timeout": "not reachable",
    "timeout": "no response",
    "broken": "the connection broke",
    "stale": "the connection broke",
    "tls": "no TLS connection",
    "proxy": "the proxy refused",
}


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one server at one moment. What is not known is None.

    Attributes:
        url: The server.
        down: Why there is nothing else; None if there is.
        running: Requests that are running.
        waiting: Requests that wait.
        kv_cache_usage: The share of the KV cache in use, from 0 to 1.
        prefix_cache_hit_rate: The share of the prompts that came from the cache lately, from 0 to 1.
        prompt_tokens_per_second: Prompt tokens per second lately.
        tokens_per_second: Generated tokens per second lately.
        preemptions: How often a request lost its place in the KV cache since the server was started.
    """

    url: str
    down: str | None = None
    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None
    prefix_cache_hit_rate: float | None = None
    prompt_tokens_per_second: float | None = None
    tokens_per_second: float | None = None
    preemptions: int | None = None


_NOTHING: Final = Metrics(())


class Watch:
    """Watches one server.

    Args:
        llm: Its provider.
    """

    def __init__(self, llm: VLLMProvider) -> None:
        self._llm = llm
        self._before: tuple[float, Metrics] | None = None

    async def look(self) -> Load:
        """Returns the load now. Rates are those since the last time."""
        try:
            metrics = await self._llm.ametrics()
        except VLLMChatError as error:
            self._before = None
            return Load(self._llm.base_url, down=_reason(error))
        before, self._before = self._before, (time.monotonic(), metrics)
        return load_of(self._llm.base_url, self._before, before)


def load_of(url: str, now: tuple[float, Metrics], before: tuple[float, Metrics] | None) -> Load:
    """Returns the load of a server.

    Args:
        url: The server.
        now: The time in seconds, and the metrics.
        before: The same of the last time; None if there was none.
    """
    seconds, metrics = now
    earlier = _NOTHING if before is None else before[1]
    span = None if before is None else seconds - before[0]
    queries = _more(metrics.prefix_cache_queries, earlier.prefix_cache_queries)
    hits = _more(metrics.prefix_cache_hits, earlier.prefix_cache_hits)
    return Load(
        url,
        running=metrics.requests_running,
        waiting=metrics.requests_waiting,
        kv_cache_usage=metrics.kv_cache_usage,
        prefix_cache_hit_rate=hits / queries
        if queries and hits is not None
        else metrics.prefix_cache_hit_rate,
        prompt_tokens_per_second=_rate(metrics.prompt_tokens, earlier.prompt_tokens, span),
        tokens_per_second=_rate(metrics.generation_tokens, earlier.generation_tokens, span),
        preemptions=metrics.preemptions,
    )


def _more(now: int | None, before: int | None) -> int | None:
    """How much a counter has grown; None if that is not known, as after a restart."""
    return now - before if now is not None and before is not None and now >= before else None


def _rate(now: int | None, before: int | None, span: float | None) -> float | None:
    more = _more(now, before)
    return more / span if more is not None and span else None


def _reason(error: VLLMChatError) -> str:
    if isinstance(error, APIConnectionError) and error.kind in _DOWN:
        return _DOWN[error.kind]
    if isinstance(error, NotFoundError):
        return "it has no /metrics"
    return error.message.partition(". ")[0]
