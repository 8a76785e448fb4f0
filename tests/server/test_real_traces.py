"""A real server continues the trace of a call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from support.scripted import ScriptedServer, in_thread, reply
from vllm_server import Options
from vllmchat import VLLMProvider
from vllmchat.adapters.otel import instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from support.vllm import LiveServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.since("0.32", "the packages that export traces come with the server"),
]

EXPORT_SECONDS = 30.0
"""The server exports its spans every five seconds."""


@pytest.fixture(scope="module")
def collector() -> Iterator[ScriptedServer]:
    """Where the server sends its spans."""
    with ScriptedServer() as server:
        server.always(reply(b"", headers={"content-type": "application/x-protobuf"}))
        yield server


@pytest.fixture(scope="module")
def traced_server(
    start_server: Callable[[str, Options], AbstractContextManager[LiveServer]], collector: ScriptedServer
) -> Iterator[LiveServer]:
    """A server that exports traces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        options = Options(extra_args=("--otlp-traces-endpoint", collector.url("/v1/traces")))
        with start_server("traced", options) as server:
            yield server


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_server_continues_the_trace(traced_server: LiveServer, collector: ScriptedServer) -> None:
    exporter, traces = InMemorySpanExporter(), TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    async with VLLMProvider(traced_server.model, base_url=traced_server.base_url) as llm:
        instrument(llm, tracer_provider=traces)
        llm.chat("Hello", max_tokens=4)
        llm.stream("Hello", max_tokens=4).until_done()
        await llm.achat("Hello", max_tokens=4)
        await llm.astream("Hello", max_tokens=4).until_done()
        llm.close()
    spans = exporter.get_finished_spans()
    assert [(span.attributes or {})["gen_ai.usage.output_tokens"] for span in spans] == [4] * 4
    for span in spans:
        assert span.context is not None
        trace, parent = span.context.trace_id.to_bytes(16, "big"), span.context.span_id.to_bytes(8, "big")

        def arrived(trace: bytes = trace, parent: bytes = parent) -> bool:
            # Both ids are in the exported span as they are.
            return any(trace in each.body and parent in each.body for each in collector.requests)

        assert await in_thread(partial(collector.wait_for, arrived, EXPORT_SECONDS))
