"""The server's counters and measurements: `/metrics`, in the Prometheus text format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from vllmchat.checking.call_params import checked_timeout
from vllmchat.client.discovery import OUTSIDE_V1
from vllmchat.client.request import ServerRequest
from vllmchat.wire import html
from vllmchat.wire.decode import unexpected_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

    from vllmchat.http.call import Response
    from vllmchat.http.timeout import Timeout

MetricType: TypeAlias = Literal["counter", "gauge", "histogram", "summary", "untyped"]
"""The metric types of the Prometheus text format."""


@dataclass(frozen=True, slots=True)
class MetricSample:
    """A single value.

    Attributes:
        name: Its full name, such as `vllm:prompt_tokens_total`.
        labels: Its labels, such as `{"engine": "0", "model_name": "m"}`.
        value: Its value.
    """

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """All values of one metric.

    Attributes:
        name: Its name, without the `_total` of counters.
        type: Its type.
        help: The server's description of it.
        samples: The values, in the server's order.
    """

    name: str
    type: MetricType
    help: str
    samples: tuple[MetricSample, ...]


@dataclass(frozen=True, slots=True)
class MetricHistogram:
    """A distribution of values.

    Attributes:
        count: The number of values.
        sum: Their sum.
        buckets: For each upper bound, in ascending order, how many values do not exceed it. The last bound is
            infinity.
    """

    count: int
    sum: float
    buckets: tuple[tuple[float, int], ...]

    @property
    def mean(self) -> float | None:
        """The mean value, or None if there are no values."""
        return self.sum / self.count if self.count else None


class Metrics(Mapping[str, MetricFamily]):
    """All metrics of a server at one moment, by name.

    Counters start with the server. A server with several engines has a sample for each; the properties below combine
    them. They are None if the server does not report them, for example when it was started with
    `--disable-log-stats`.

        metrics = llm.metrics()
        print(metrics.requests_running, metrics.kv_cache_usage)
        print(metrics.value("vllm:request_success", finished_reason="length"))
    """

    def __init__(self, families: Iterable[MetricFamily]) -> None:
        self._families = {family.name: family for family in families}

    def __getitem__(self, name: str) -> MetricFamily:
        return self._families[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._families)

    def __len__(self) -> int:
        return len(self._families)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} names>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a table. The buckets of histograms are left out."""
        return html.table(
            ("sample", "labels", "value"),
            (
                (
                    sample.name,
                    ", ".join(f"{name}={value}" for name, value in sample.labels.items()),
                    sample.value,
                )
                for family in self._families.values()
                for sample in family.samples
                if not sample.name.endswith("_bucket")
            ),
        )

    def samples(self, name: str, /, **labels: str) -> list[MetricSample]:
        """The samples with a given name and labels.

        Args:
            name: The metric's or the sample's name: `vllm:prompt_tokens` and `vllm:prompt_tokens_total` are equivalent.
            **labels: Labels that a sample must have. It may have others.
        """
        for owner in (name, f"{name}_total", name.removesuffix("_total"), *_owners(name)):
            family = self._families.get(owner)
            found = family.samples if family is not None else ()
            exact = [each for each in found if each.name in (name, f"{name}_total")]
            if exact:
                return [each for each in exact if labels.items() <= each.labels.items()]
        return []

    def value(self, name: str, /, **labels: str) -> float | None:
        """The sum of what `samples` returns; None if there are none."""
        found = self.samples(name, **labels)
        return sum(each.value for each in found) if found else None

    def histogram(self, name: str, /, **labels: str) -> MetricHistogram | None:
        """The distribution over all samples with a given name and labels; None if there are none.

        Args:
            name: The metric's, such as `vllm:time_to_first_token_seconds`.
            **labels: Labels that a sample must have.
        """
        count = self.value(f"{name}_count", **labels)
        if count is None:
            return None
        buckets: dict[float, float] = {}
        for each in self.samples(f"{name}_bucket", **labels):
            with suppress(KeyError, ValueError):
                bound = float(each.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + each.value
        return MetricHistogram(
            _whole(count),
            self.value(f"{name}_sum", **labels) or 0.0,
            tuple((bound, _whole(buckets[bound])) for bound in sorted(buckets)),
        )

    # The most common metrics. A second name is the one used by older servers.

    @property
    def requests_running(self) -> int | None:
        """Requests that are running now."""
        return self._count("vllm:num_requests_running")

    @property
    def requests_waiting(self) -> int | None:
        """Requests that are waiting in the queue now."""
        return self._count("vllm:num_requests_waiting")

    @property
    def requests_finished(self) -> dict[str, int]:
        """How many requests have finished, by finish reason. Empty if the server does not report it."""
        ended: dict[str, int] = {}
        for each in self.samples("vllm:request_success"):
            reason = each.labels.get("finished_reason", "")
            ended[reason] = ended.get(reason, 0) + _whole(each.value)
        return ended

    @property
    def kv_cache_usage(self) -> float | None:
        """The share of the KV cache in use now, from 0 to 1; the mean over all engines."""
        found = self.samples("vllm:kv_cache_usage_perc") or self.samples("vllm:gpu_cache_usage_perc")
        return sum(each.value for each in found) / len(found) if found else None

    @property
    def prefix_cache_queries(self) -> int | None:
        """Prompt tokens looked up in the prefix cache."""
        return self._count("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries")

    @property
    def prefix_cache_hits(self) -> int | None:
        """Prompt tokens found in the prefix cache."""
        return self._count("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")

    @property
    def prefix_cache_hit_rate(self) -> float | None:
        """The share of looked-up tokens that were found, from 0 to 1; None also if none were looked up."""
        queries, hits = self.prefix_cache_queries, self.prefix_cache_hits
        return hits / queries if queries and hits is not None else None

    @property
    def prompt_tokens(self) -> int | None:
        """Prompt tokens processed."""
        return self._count("vllm:prompt_tokens")

    @property
    def generation_tokens(self) -> int | None:
        """Tokens generated."""
        return self._count("vllm:generation_tokens")

    @property
    def preemptions(self) -> int | None:
        """How often a running request had to give up its place in the KV cache."""
        return self._count("vllm:num_preemptions")

    @property
    def time_to_first_token(self) -> MetricHistogram | None:
        """Seconds from a request's arrival to its first token."""
        return self.histogram("vllm:time_to_first_token_seconds")

    @property
    def inter_token_latency(self) -> MetricHistogram | None:
        """Seconds between consecutive tokens of a request."""
        name = "vllm:inter_token_latency_seconds"
        return self.histogram(name) or self.histogram("vllm:time_per_output_token_seconds")

    @property
    def queue_time(self) -> MetricHistogram | None:
        """Seconds that requests spent in the queue."""
        return self.histogram("vllm:request_queue_time_seconds")

    @property
    def request_latency(self) -> MetricHistogram | None:
        """Seconds from a request's arrival to its end."""
        return self.histogram("vllm:e2e_request_latency_seconds")

    def _count(self, *names: str) -> int | None:
        for name in names:
            value = self.value(name)
            if value is not None:
                return _whole(value)
        return None


def _whole(value: float) -> int:
    """A count. NaN and infinity, which the format allows, count as 0."""
    return int(value) if math.isfinite(value) else 0


def _owners(name: str) -> Iterator[str]:
    """The metrics that a sample of a histogram or summary may belong to."""
    for end in ("_bucket", "_count", "_sum"):
        if name.endswith(end):
            yield name.removesuffix(end)


def metrics_request(timeout: float | Timeout | None = None) -> ServerRequest[Metrics]:
    """The request for a server's metrics.

    Raises:
        ImportError: The parser is not installed.
    """
    parse = _parser()

    def read(reply: Response) -> Metrics:
        return read_metrics(reply.body, parse)

    return ServerRequest("/metrics", read, checked_timeout(timeout), route_hint=OUTSIDE_V1)


def read_metrics(body: bytes, parse: Callable[[str], Iterable[Metric]] | None = None) -> Metrics:
    """Parses the Prometheus text format.

    Args:
        body: The text.
        parse: The parser; by default the one of the prometheus-client package.

    Raises:
        ResponseError: The body is something else.
        ImportError: The parser is not installed.
    """
    parse = parse or _parser()
    types: dict[str, tuple[str, str]] = {}
    samples: dict[str, list[MetricSample]] = {}
    try:
        for metric in parse(body.decode("utf-8")):
            # Each sample without a description arrives as a family of its own.
            types.setdefault(metric.name, (metric.type, metric.documentation))
            samples.setdefault(metric.name, []).extend(
                MetricSample(each.name, each.labels, float(each.value)) for each in metric.samples
            )
    except (ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise unexpected_body("metrics in the Prometheus text format", body, reason) from error
    return Metrics(
        MetricFamily(name, _TYPES.get(kind, "untyped"), about, tuple(samples[name]))
        for name, (kind, about) in types.items()
    )


_TYPES: Final[dict[str, MetricType]] = {kind: kind for kind in get_args(MetricType)}


def _parser() -> Callable[[str], Iterable[Metric]]:
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError as error:
        raise ImportError(
            "metrics() needs the prometheus-client package: pip install 'vllmchat[metrics]'"
        ) from error
    return text_string_to_metric_families
