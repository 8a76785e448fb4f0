"""Metrics: the Prometheus text format as typed numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from support import recordings
from vllmchat import Metrics, MetricSample, ResponseError
from vllmchat.server.metrics import read_metrics


@pytest.fixture(scope="module")
def recorded() -> Metrics:
    return read_metrics(recordings.load("metrics").body)


def test_it_is_a_mapping_by_name(recorded: Metrics) -> None:
    family = recorded["vllm:num_requests_running"]
    assert (family.name, family.type) == ("vllm:num_requests_running", "gauge")
    assert family.help == "Number of requests in model execution batches."
    labels = {"engine": "0", "model_name": "tiny-qwen3"}
    assert family.samples == (MetricSample("vllm:num_requests_running", labels, 0.0),)
    assert len(recorded) == len(list(recorded)) == 94
    assert "vllm:prompt_tokens" in recorded
    assert repr(recorded) == "<Metrics of 94 names>"
    with pytest.raises(KeyError):
        recorded["vllm:nothing"]


def test_types(recorded: Metrics) -> None:
    types = {
        name: recorded[name].type
        for name in ("vllm:prompt_tokens", "vllm:time_to_first_token_seconds", "http_request_size_bytes")
    }
    assert list(types.values()) == ["counter", "histogram", "summary"]
    assert read_metrics(b"a 1\n")["a"].type == "untyped"


def test_a_counter_has_both_names(recorded: Metrics) -> None:
    assert recorded.value("vllm:prompt_tokens") == recorded.value("vllm:prompt_tokens_total") == 72
    # A histogram's name may end like a counter's.
    assert recorded["vllm:iteration_tokens_total"].type == "histogram"
    assert recorded.value("vllm:iteration_tokens_total_count") == 72


def test_labels_filter(recorded: Metrics) -> None:
    name = "vllm:request_success"
    assert recorded.value(name) == recorded.value(name, finished_reason="stop") == 2
    assert recorded.value(name, finished_reason="length", engine="0") == 0
    assert recorded.value(name, engine="7") is None
    assert recorded.samples(name, engine="7") == []
    assert recorded.value("vllm:nothing") is None
    assert {each.labels["finished_reason"] for each in recorded.samples(name)} >= {"stop", "length", "abort"}


def test_common_metrics(recorded: Metrics) -> None:
    assert (recorded.requests_running, recorded.requests_waiting) == (0, 0)
    assert recorded.requests_finished == {"stop": 2, "length": 0, "abort": 0, "error": 0, "repetition": 0}
    assert recorded.kv_cache_usage == 0.0
    assert (recorded.prefix_cache_queries, recorded.prefix_cache_hits) == (72, 0)
    assert recorded.prefix_cache_hit_rate == 0.0
    assert (recorded.prompt_tokens, recorded.generation_tokens, recorded.preemptions) == (72, 72, 0)
    for histogram in (recorded.time_to_first_token, recorded.queue_time, recorded.request_latency):
        assert histogram is not None
        assert histogram.count == 2
        assert histogram.mean == histogram.sum / 2
        bounds = [bound for bound, _ in histogram.buckets]
        assert bounds == sorted(bounds)
        assert histogram.buckets[-1] == (math.inf, 2)
    assert recorded.inter_token_latency is not None
    assert recorded.inter_token_latency.count == 70


def test_a_server_that_reports_nothing() -> None:
    metrics = read_metrics(b"")
    assert len(metrics) == 0
    names = [name for name, value in vars(Metrics).items() if isinstance(value, property)]
    assert len(names) == 14
    values = {name: getattr(metrics, name) for name in names}
    assert values.pop("requests_finished") == {}
    assert set(values.values()) == {None}


def test_nothing_looked_up_has_no_rate() -> None:
    none = b"vllm:prefix_cache_queries_total 0\nvllm:prefix_cache_hits_total 0\n"
    assert read_metrics(none).prefix_cache_queries == 0
    assert read_metrics(none).prefix_cache_hit_rate is None
    only = b"# TYPE vllm:prefix_cache_queries_total counter\nvllm:prefix_cache_queries_total 5\n"
    assert read_metrics(only).prefix_cache_queries == 5
    assert read_metrics(only).prefix_cache_hit_rate is None


def test_names_of_older_servers() -> None:
    body = b"""\
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
# TYPE vllm:gpu_prefix_cache_queries_total counter
vllm:gpu_prefix_cache_queries_total 8
# TYPE vllm:gpu_prefix_cache_hits_total counter
vllm:gpu_prefix_cache_hits_total 2
# TYPE vllm:time_per_output_token_seconds histogram
vllm:time_per_output_token_seconds_bucket{le="+Inf"} 4
vllm:time_per_output_token_seconds_count 4
vllm:time_per_output_token_seconds_sum 2
"""
    metrics = read_metrics(body)
    assert metrics.kv_cache_usage == 0.25
    assert metrics.prefix_cache_hit_rate == 0.25
    assert metrics.inter_token_latency is not None
    assert metrics.inter_token_latency.mean == 0.5


def test_several_engines_are_put_together() -> None:
    body = b"""\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 3
vllm:num_requests_running{engine="1"} 4
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 1
# TYPE t histogram
t_bucket{engine="0",le="1"} 1
t_bucket{engine="0",le="+Inf"} 2
t_bucket{engine="1",le="1"} 3
t_bucket{engine="1",le="+Inf"} 3
t_bucket{engine="1",le="wide"} 9
t_bucket{engine="1"} 9
t_count{engine="0"} 2
t_count{engine="1"} 3
t_sum{engine="0"} 5
t_sum{engine="1"} 1
"""
    metrics = read_metrics(body)
    assert metrics.requests_running == 7
    assert metrics.kv_cache_usage == 0.75
    both = metrics.histogram("t")
    assert both is not None
    assert (both.count, both.sum, both.buckets) == (5, 6.0, ((1.0, 4), (math.inf, 5)))
    one = metrics.histogram("t", engine="1")
    assert one is not None
    assert (one.count, one.buckets) == (3, ((1.0, 3), (math.inf, 3)))
    assert metrics.histogram("t", engine="2") is None
    assert metrics.histogram("vllm:num_requests_running") is None


def test_an_empty_histogram_has_no_mean() -> None:
    histogram = read_metrics(b"# TYPE t histogram\nt_count 0\nt_sum 0\n").histogram("t")
    assert histogram is not None
    assert histogram.mean is None


def test_nan_and_infinity_count_nothing() -> None:
    metrics = read_metrics(b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running NaN\n")
    assert metrics.requests_running == 0


def test_numbers_without_a_description_stay_together() -> None:
    metrics = read_metrics(b'a{x="1"} 1\na{x="2"} 2\nb 3\n')
    assert [sample.value for sample in metrics["a"].samples] == [1, 2]
    assert metrics.value("b") == 3


@pytest.mark.parametrize(
    "body", [b"<html>Welcome!</html>", b'{"error": "x"}', b"\xff\xfe", b"# TYPE a b c", b"{} 1", b"a{b} 1"]
)
def test_something_else_is_not_metrics(body: bytes) -> None:
    with pytest.raises(ResponseError, match="not metrics in the Prometheus text format"):
        read_metrics(body)


@given(st.one_of(st.binary(), st.text(alphabet='ab_:# {}=",\\\n1.eNaTYPEHL+').map(str.encode)))
def test_any_bytes_are_metrics_or_an_error(body: bytes) -> None:
    try:
        metrics = read_metrics(body)
    except ResponseError:
        return
    for name in metrics:
        metrics.value(name)
        metrics.histogram(name)
