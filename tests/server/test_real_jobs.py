"""Jobs on a real server: replies, leaving early, files, widths."""

from __future__ import annotations

import itertools
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytest

from vllmchat import ContextWindowExceededError, VLLMProvider, read_results, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.vllm import LiveServer


@pytest.fixture
def llm(vllm_server: LiveServer) -> Iterator[VLLMProvider]:
    with VLLMProvider(vllm_server.model, base_url=vllm_server.base_url) as llm:
        yield llm


def wait_until_idle(llm: VLLMProvider, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while llm.metrics().requests_running or llm.metrics().requests_waiting:
        assert time.monotonic() < deadline, "the server still generates"
        time.sleep(0.05)


def test_replies_are_those_of_single_chats(llm: VLLMProvider) -> None:
    texts = [f"Hello {number}" for number in range(64)]
    single = {text: llm.chat(text, temperature=0, max_tokens=8).text for text in texts[:8]}
    results = list(llm.map(texts, temperature=0, max_tokens=8))
    assert [each.input for each in results] == texts
    assert {each.input: each.text for each in results[:8]} == single


def test_an_input_that_is_too_long_is_one_wrong_result(llm: VLLMProvider) -> None:
    results = list(llm.map(["Hello", "Hello " * 5000, "Hello"], max_tokens=4))
    assert [each.ok for each in results] == [True, False, True]
    assert isinstance(results[1].error, ContextWindowExceededError)


def test_leaving_the_loop_stops_the_server(llm: VLLMProvider) -> None:
    wait_until_idle(llm)
    endless = (f"Count {number}" for number in itertools.count())
    began = 0
    for result in llm.map(endless, max_tokens=1500, min_tokens=1500, in_flight=32):
        began = result.index + 1
        break
    assert began
    # 31 others were in flight, each with many seconds of work left.
    wait_until_idle(llm)


def test_other_calls(llm: VLLMProvider) -> None:
    results = list(llm.map(["Once upon a time"] * 3, call=partial(llm.acomplete, ignore_eos=True)))
    assert {each.value.finish_reason for each in results} == {"length"}
    parsed = list(llm.map(["Hello"], kind=bool, temperature=0))
    assert isinstance(parsed[0].value, bool)


def test_the_width_follows_the_queue(llm: VLLMProvider) -> None:
    results = llm.map([f"Hello {number}" for number in range(3000)], max_tokens=4, min_tokens=4)
    assert all(result.ok for result in results)
    assert results.progress.width > 32


def test_a_file_of_all_routes(llm: VLLMProvider, tmp_path: Path) -> None:
    bodies = {
        "chat": (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "ignore_eos": True},
        ),
        "completion": ("/v1/completions", {"prompt": "Hello", "max_tokens": 4, "ignore_eos": True}),
        "response": ("/v1/responses", {"input": "Hello", "max_output_tokens": 16}),
        "embedding": ("/v1/embeddings", {"input": "Hello"}),
    }
    lines = [
        json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body})
        for name, (url, body) in bodies.items()
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    summary = run_job(llm, tmp_path / "in.jsonl", out)
    found = {entry["custom_id"]: entry for entry in map(json.loads, out.read_text("utf-8").splitlines())}
    assert set(found) == set(bodies)
    assert found["chat"]["response"]["body"]["usage"]["completion_tokens"] == 4
    assert found["completion"]["response"]["body"]["usage"]["completion_tokens"] == 4
    # A server with a generating model has no embeddings.
    assert found["embedding"]["error"]["error"]["code"] == 404
    assert summary.failed == sum(entry["error"] is not None for entry in found.values())


def test_constraints_of_a_job(llm: VLLMProvider, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(
        "id,word\n" + "".join(f"{number},word {number}\n" for number in range(20)), encoding="utf-8"
    )
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    options: dict[str, Any] = {
        "prompt": "{word}?",
        "enable_thinking": False,
        "max_tokens": 40,
        "temperature": 0,
    }
    by_schema, by_regex, by_type = (tmp_path / f"{name}.jsonl" for name in ("schema", "regex", "type"))
    assert run_job(
        llm, source, by_schema, structured_outputs={"json": schema, "disable_any_whitespace": True}, **options
    ).ok
    assert all(json.loads(result.text) in ({"n": 1}, {"n": 2}) for result in read_results(by_schema))
    assert run_job(llm, source, by_regex, structured_outputs={"regex": "(cat|dog){2}"}, **options).ok
    assert {result.text for result in read_results(by_regex)} <= {"catcat", "catdog", "dogcat", "dogdog"}
    kind = Literal["cat", "dog"]
    assert run_job(llm, source, by_type, kind=kind, order="prefix", **options).ok
    found = list(read_results(by_type, kind, input=source))
    assert [(result.index, result.id) for result in found] == [(number, str(number)) for number in range(20)]
    assert {result.value for result in found} <= {"cat", "dog"}
