"""`vllmchat top`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat.cli.load import Load, load_of
from vllmchat.cli.top import drawn
from vllmchat.server.metrics import read_metrics
from vllmchat.testing import FakeServer, error

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import CommandLine
    from vllmchat.server.metrics import Metrics


def metrics(prompt: int, generated: int, *, queries: int = 0, hits: int = 0) -> Metrics:
    counters = {
        "prompt_tokens": prompt,
        "generation_tokens": generated,
        "prefix_cache_queries": queries,
        "prefix_cache_hits": hits,
    }
    lines = [f"# TYPE vllm:{name} counter\nvllm:{name}_total {value}" for name, value in counters.items()]
    return read_metrics("\n".join([*lines, ""]).encode())


def test_rates_are_those_since_the_last_look() -> None:
    before = metrics(100, 1_000, queries=100, hits=0)
    load = load_of("u", (12.0, metrics(300, 1_500, queries=200, hits=50)), (10.0, before))
    assert (load.prompt_tokens_per_second, load.tokens_per_second) == (100, 250)
    assert load.prefix_cache_hit_rate == 0.5


def test_without_an_earlier_look_there_is_no_rate() -> None:
    load = load_of("u", (12.0, metrics(300, 1_500, queries=200, hits=50)), None)
    assert (load.prompt_tokens_per_second, load.tokens_per_second) == (None, None)
    assert load.prefix_cache_hit_rate == 0.25, "the one since the start"


def test_a_server_that_was_restarted_has_no_negative_rate() -> None:
    load = load_of("u", (12.0, metrics(3, 15)), (10.0, metrics(100, 1_000)))
    assert (load.prompt_tokens_per_second, load.tokens_per_second) == (None, None)


def test_once(vllmchat: CommandLine, server: FakeServer) -> None:
    code, out, err = vllmchat("top", "--once", "--interval", "0.05")
    assert (code, err) == (0, "")
    head, row = out.splitlines()
    assert head.split() == ["SERVER", "RUNNING", "WAITING", "KV", "HITS", "PROMPT/S", "OUTPUT/S", "PREEMPTED"]
    assert row.split() == [server.url.removeprefix("http://"), "1", "0", "0%", "-", "0", "0", "-"]
    assert len(row) == len(head)


def test_several_servers_and_one_that_is_down(vllmchat: CommandLine, server: FakeServer) -> None:
    asked = ("top", "--once", "--interval", "0.05", "--url", server.base_url, "--url", "http://127.0.0.1:9")
    code, out, err = vllmchat(*asked)
    assert (code, err) == (1, "")
    assert out.splitlines()[2] == f"{'127.0.0.1:9':<{len(server.url) - 7}}  down: connection refused"
    code, out, _ = vllmchat(*asked, "--json")
    assert code == 1
    row: dict[str, Any] = json.loads(out)
    assert [each["down"] for each in row["servers"]] == [None, "connection refused"]
    assert row["servers"][0]["tokens_per_second"] == 0


def test_a_server_without_metrics(vllmchat: CommandLine, server: FakeServer) -> None:
    server.on("/metrics", error(404, "Not Found"))
    code, out, _ = vllmchat("top", "--once", "--interval", "0.05")
    assert code == 1
    assert "down: it has no /metrics" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--interval", "0"), "--interval 0: must be greater than 0."),
        (("--url", "gpu-1:8000"), "--url 'gpu-1:8000' has no scheme: write 'http://gpu-1:8000'"),
    ],
)
def test_what_is_wrong_is_said(vllmchat: CommandLine, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = vllmchat("top", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err


def test_what_needs_a_look_is_colored() -> None:
    busy = Load("http://a:1/v1", running=1, waiting=3, kv_cache_usage=0.95, preemptions=0)
    text = drawn([busy, Load("http://b:1/v1", down="[bold]gone\x1b[2J")])
    assert "[bold]gone␛[2J" in text.plain, "neither markup nor control characters have an effect"
    marked = {text.plain[span.start : span.end].strip() for span in text.spans if "yellow" in str(span.style)}
    assert marked == {"3", "95%"}


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of another kind")
def test_a_server_that_goes_down_and_comes_back_in_a_terminal(tmp_path: Path) -> None:
    from support.terminal import rest, terminal

    server = FakeServer("Hi").start()
    port = int(server.url.rpartition(":")[2])
    try:
        with terminal(
            "top", "--url", server.base_url, "--interval", "0.1", home=tmp_path, columns=80
        ) as child:
            child.expect("PREEMPTED")
            child.expect("  0%  ")
            server.close()
            child.expect_exact("down: connection refused")
            server = FakeServer("Hi", port=port).start()
            child.expect("  0%  ")
            child.sendintr()
            assert "Traceback" not in rest(child)
            assert child.exitstatus == 130
    finally:
        server.close()
