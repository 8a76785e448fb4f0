"""Observes the calls of a provider with OpenTelemetry, by its semantic conventions for generative AI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from vllmchat.adapters.otel.attributes import (
    content_of,
    operation_of,
    request_attributes,
    response_attributes,
)
from vllmchat.http.observe import token_counts
from vllmchat.version import __version__

try:
    from opentelemetry import metrics, propagate, trace
except ImportError as error:
    raise ImportError(
        "vllmchat.adapters.otel needs the opentelemetry-api package: pip install 'vllmchat[otel]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from vllmchat.client.base import ProviderBase
    from vllmchat.http.observe import ObservedCall

P = TypeVar("P", bound="ProviderBase")

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.38.0"

_SECONDS: Final = [0.01 * 2**power for power in range(14)]
_TOKENS: Final = [4**power for power in range(14)]
"""Boundaries of histograms, as the conventions have them."""


def instrument(
    llm: P,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_content: bool = False,
) -> P:
    """Traces and measures the calls of a provider from now on, and those of copies made from it later.

    Each call to a model is a span, from its first attempt to its end, which for a stream is when it was read or closed.
    The server receives the trace in the `traceparent` header. Requests to the server itself, such as `health`, are not
    traced.

    Args:
        llm: The provider.
        tracer_provider: Makes the spans. Default: the global one.
        meter_provider: Makes the metrics. Default: the global one.
        capture_content: Whether spans have the messages of chats and their replies. They are what users write, and may
            be long.

    Returns:
        The provider itself.
    """
    tracer = trace.get_tracer("vllmchat", __version__, tracer_provider, schema_url=_SCHEMA)
    meter = metrics.get_meter("vllmchat", __version__, meter_provider, schema_url=_SCHEMA)
    llm._observe(_Telemetry(llm.name, tracer, meter, capture_content))  # pyright: ignore[reportPrivateUsage]
    return llm


class _Telemetry:
    """The spans and metrics of one provider's calls."""

    def __init__(
        self, provider: str, tracer: trace.Tracer, meter: metrics.Meter, capture_content: bool
    ) -> None:
        self._provider = provider
        self._tracer = tracer
        self._capture_content = capture_content
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Duration of a call",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="Time to the first chunk of a stream",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of prompts and replies",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    def sending(self, call: ObservedCall) -> Mapping[str, str] | None:
        """Begins the span of a call, and passes it on to the server."""
        if call.call.fields is None:
            return None
        span = self._span(call)
        if span is None:
            common = self._common(call)
            operation = operation_of(call.call.path)
            attributes = {**common, **request_attributes(call.call.fields)}
            if self._capture_content:
                attributes.update(content_of("input", call.call.fields.get("messages")))
            span = self._tracer.start_span(
                f"{operation} {call.call.fields.get('model', '')}",
                kind=trace.SpanKind.CLIENT,
                attributes=attributes,
            )
            call.state[_KEY] = span
        headers: dict[str, str] = {}
        propagate.inject(headers, trace.set_span_in_context(span))
        return headers

    def connected(self, call: ObservedCall, *, reused: bool) -> None:
        """Does nothing."""

    def retrying(self, call: ObservedCall, error: Exception, seconds: float) -> None:
        """Notes a retry."""
        span = self._span(call)
        if span is not None:
            span.add_event("retry", {"error.type": type(error).__name__, "vllmchat.pause": seconds})

    def ended(self, call: ObservedCall) -> None:
        """Ends the span of a call, and measures it."""
        span = self._span(call)
        if span is None:
            return
        common = self._common(call)
        outcome = {} if call.error is None else {"error.type": type(call.error).__qualname__}
        try:
            span.set_attributes({**response_attributes(call), **outcome})
            if self._capture_content:
                span.set_attributes(content_of("output", getattr(call.reply, "choices", None)))
            if call.error is not None:
                span.set_status(trace.StatusCode.ERROR, " ".join(str(call.error).split())[:_LONGEST])
        finally:
            span.end()
        context = trace.set_span_in_context(span)
        answered = str(getattr(call.reply, "model", None) or "")
        measured = {**common, **({"gen_ai.response.model": answered} if answered else {})}
        timings = call.record.timings()
        if timings.total is not None:
            self._duration.record(timings.total, {**measured, **outcome}, context)
        if timings.first_token is not None:
            self._first_chunk.record(timings.first_token, measured, context)
        for kind, count in zip(("input", "output"), token_counts(call.reply), strict=True):
            if count is not None:
                self._tokens.record(count, {**measured, "gen_ai.token.type": kind}, context)

    def _common(self, call: ObservedCall) -> dict[str, AttributeValue]:
        send = call.request
        assert send is not None
        return {
            "gen_ai.operation.name": operation_of(call.call.path),
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": str((call.call.fields or {}).get("model", "")),
            "server.address": send.base.host,
            "server.port": send.base.port,
        }

    def _span(self, call: ObservedCall) -> Span | None:
        span = call.state.get(_KEY)
        return span if isinstance(span, trace.Span) else None


_KEY: Final = "vllmchat.otel.span"

_LONGEST: Final = 500
"""Characters of an error in a span."""
