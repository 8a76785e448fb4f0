"""Spans and metrics of calls, as an SDK exports them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from support.chats import chunks, completion
from support.scripted import close, never
from vllmchat import BadRequestError, StreamInterruptedError, VLLMProvider
from vllmchat.adapters.otel import instrument
from vllmchat.http import flow as flows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def short_pause(_: int) -> float:
    """In place of `backoff`."""
    return 0.001


class Telemetry:
    """What is exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    @property
    def span(self) -> ReadableSpan:
        [span] = self.exporter.get_finished_spans()
        return span

    def attributes(self) -> dict[str, Any]:
        return dict(self.span.attributes or {})

    def metrics(self) -> dict[str, list[tuple[float, dict[str, Any]]]]:
        """The sum of each series and its attributes, by metric."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points: Any = metric.data.data_points
                    found[metric.name] = [(point.sum, dict(point.attributes)) for point in points]
        return found


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.traces.shutdown()
    made.meters.shutdown()


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner, telemetry: Telemetry) -> Iterator[VLLMProvider]:
    provider = VLLMProvider("m", base_url=scripted.base_url, api_key="the-key-of-traces-1")
    instrumented = instrument(provider, tracer_provider=telemetry.traces, meter_provider=telemetry.meters)
    assert instrumented is provider
    yield provider
    runner.close(provider)


def test_a_chat(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, telemetry: Telemetry) -> None:
    scripted.reply(completion("secret answer", usage=USAGE), headers={"x-request-id": "r"})
    runner.do(
        llm,
        "chat",
        "secret question",
        temperature=0.5,
        top_k=3,
        max_tokens=9,
        stop="x",
        n=1,
        seed=4,
        request_id="r",
    )
    span = telemetry.span
    assert (span.name, span.kind) == ("chat m", trace.SpanKind.CLIENT)
    assert span.status.is_ok
    host, _, port = scripted.base_url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    assert telemetry.attributes() == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 3,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 4,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.response.id": "c",
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "server.address": host,
        "server.port": int(port),
        "http.response.status_code": 200,
        "vllmchat.request_id": "r",
    }
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "server.address": host,
        "server.port": int(port),
    }
    metrics = telemetry.metrics()
    [(seconds, attributes)] = metrics["gen_ai.client.operation.duration"]
    assert seconds > 0
    assert attributes == common
    assert metrics["gen_ai.client.token.usage"] == [
        (7, {**common, "gen_ai.token.type": "input"}),
        (5, {**common, "gen_ai.token.type": "output"}),
    ]
    assert "secret" not in span.to_json()


def test_the_server_receives_the_trace(
    llm: VLLMProvider, scripted: ScriptedServer, telemetry: Telemetry
) -> None:
    scripted.busy(1, retry_after="0")
    scripted.reply(completion())
    tracer = telemetry.traces.get_tracer("test")
    with tracer.start_as_current_span("caller") as caller:
        llm.chat("Hi")
    llm.close()
    span, outer = telemetry.exporter.get_finished_spans()
    assert outer.name == "caller"
    assert span.parent == caller.get_span_context()
    assert span.context is not None
    expected = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
    assert [each.headers["traceparent"] for each in scripted.requests] == [expected] * 2
    [event] = span.events
    assert event.name == "retry"
    assert (event.attributes or {})["error.type"] == "ServiceUnavailableError"
    assert (span.attributes or {})["http.request.resend_count"] == 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_async_call_belongs_to_the_span_around_it(
    scripted: ScriptedServer, telemetry: Telemetry
) -> None:
    scripted.reply(completion())
    scripted.stream(chunks("a"))
    async with VLLMProvider("m", base_url=scripted.base_url) as llm:
        instrument(llm, tracer_provider=telemetry.traces, meter_provider=telemetry.meters)
        with telemetry.traces.get_tracer("test").start_as_current_span("caller") as caller:
            await llm.achat("Hi")
            await llm.astream("Hi").until_done()
    whole, stream, _ = telemetry.exporter.get_finished_spans()
    assert whole.parent == stream.parent == caller.get_span_context()


def test_a_stream(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, telemetry: Telemetry) -> None:
    usage: dict[str, Any] = {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    scripted.stream([*chunks("a"), usage])
    with runner.stream(llm) as stream:
        next(stream)
        assert telemetry.exporter.get_finished_spans() == ()
        first = stream.until_done().timings.first_token
    attributes = telemetry.attributes()
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"] == first
    assert attributes["gen_ai.usage.output_tokens"] == 5
    [(seconds, _)] = telemetry.metrics()["gen_ai.client.operation.time_to_first_chunk"]
    assert seconds == first


def test_a_stream_that_is_left_is_no_error(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, telemetry: Telemetry
) -> None:
    scripted.stream([*chunks("a")[:1], never])
    with runner.stream(llm) as stream:
        next(stream)
    assert "error.type" not in telemetry.attributes()


def test_errors(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, telemetry: Telemetry) -> None:
    scripted.reply({"error": {"message": "no way the-key-of-traces-1", "code": 400}}, 400)
    with pytest.raises(BadRequestError):
        runner.chat(llm)
    span = telemetry.span
    assert not span.status.is_ok
    assert span.status.description == "400: no way ***"
    attributes = telemetry.attributes()
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("BadRequestError", 400)
    [(_, measured)] = telemetry.metrics()["gen_ai.client.operation.duration"]
    assert measured["error.type"] == "BadRequestError"


def test_a_stream_that_breaks(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, telemetry: Telemetry
) -> None:
    scripted.stream([*chunks("a")[:1], close])
    with pytest.raises(StreamInterruptedError):
        runner.stream(llm).until_done()
    assert telemetry.attributes()["error.type"] == "StreamInterruptedError"


def test_requests_to_the_server_itself_are_not_traced(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, telemetry: Telemetry
) -> None:
    scripted.reply({"version": "0.32.0"})
    runner.do(llm, "version")
    assert telemetry.exporter.get_finished_spans() == ()
    assert "traceparent" not in scripted.requests[0].headers


def test_other_operations(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, telemetry: Telemetry
) -> None:
    scripted.reply({"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 3}})
    scripted.reply({"tokens": [1], "count": 1, "max_model_len": 8})
    runner.do(llm, "embed", "Hi")
    runner.do(llm, "tokenize", "Hi")
    embed, tokenize = telemetry.exporter.get_finished_spans()
    assert (embed.name, tokenize.name) == ("embeddings m", "tokenize m")
    assert (embed.attributes or {})["gen_ai.usage.input_tokens"] == 3


def test_content_only_on_request(runner: Runner, scripted: ScriptedServer, telemetry: Telemetry) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]}
    scripted.reply({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    llm = VLLMProvider("m", base_url=scripted.base_url)
    instrument(llm, tracer_provider=telemetry.traces, meter_provider=telemetry.meters, capture_content=True)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    history: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "See:"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
    ]
    runner.chat(llm, history)
    runner.close(llm)
    attributes = telemetry.attributes()
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "See:"}, {"type": "image_url"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "5"}]},
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "tool_call", "id": "c1", "name": "f", "arguments": "{}"},
            ],
            "finish_reason": "tool_calls",
        }
    ]


def test_hooks_and_copies_work_with_it(
    runner: Runner, scripted: ScriptedServer, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "backoff", short_pause)
    ended: list[object] = []
    llm = VLLMProvider("m", base_url=scripted.base_url, on_request=lambda _: {"x-a": "b"})
    instrument(llm, tracer_provider=telemetry.traces, meter_provider=telemetry.meters)
    scripted.reply(completion())
    runner.chat(llm.with_options(on_response=ended.append))
    runner.close(llm)
    assert scripted.requests[0].headers["x-a"] == "b"
    assert "traceparent" in scripted.requests[0].headers
    assert len(ended) == 1
    assert telemetry.span.name == "chat m"


def test_without_the_package_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
try:
    import vllmchat.adapters.otel
except ImportError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == (
        "vllmchat.adapters.otel needs the opentelemetry-api package: pip install 'vllmchat[otel]'\n"
    )
