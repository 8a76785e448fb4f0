"""Traces and metrics of a provider's calls, by OpenTelemetry. Needs `pip install 'vllmchat[otel]'`."""

from __future__ import annotations

from vllmchat.adapters.otel.instrument import instrument as instrument

__all__ = ["instrument"]
