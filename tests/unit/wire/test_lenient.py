"""What a reply does not need never loses it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.chats import chunk, completion
from vllmchat import RateLimitError, ResponseError, VLLMProvider
from vllmchat.chat.chunk import decode_chunk
from vllmchat.chat.completion import decode_completion
from vllmchat.wire.lenient import TornCharacters, drop, without_halves

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

Object = dict[str, Any]

TOKEN = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}


@pytest.fixture
def llm(scripted: ScriptedServer) -> VLLMProvider:
    return VLLMProvider("m", base_url=scripted.base_url, max_retries=0)


@pytest.mark.parametrize(
    "extra",
    [{"id": 1}, {"id": None}, {"__class__": "x"}, {"__dict__": 1}, {"top_logprobs": [{**TOKEN, "id": 5}]}],
)
def test_unknown_keys_in_log_probabilities(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, extra: Object
) -> None:
    logprobs = {"content": [{**TOKEN, **extra}]}
    body = completion("Hi")
    body["choices"][0]["logprobs"] = logprobs
    piece = chunk("Hi", "stop")
    piece["choices"][0]["logprobs"] = logprobs
    scripted.reply(body)
    scripted.stream([piece])
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        (token,) = (reply.choices[0].logprobs and reply.choices[0].logprobs.content) or []
        assert (token.token, token.logprob) == ("Hi", -0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("usage", "none"),
        ("usage", {"prompt_tokens": "many"}),
        ("created", "2026-11-26"),
        ("id", 5),
        ("model", {"name": "m"}),
        ("system_fingerprint", ["fp"]),
        ("service_tier", 1),
        ("metrics", [1]),
        ("prompt_token_ids", "ids"),
    ],
)
def test_another_type_where_nothing_depends_on_it(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, name: str, value: object
) -> None:
    scripted.reply({**completion("Hi"), name: value})
    scripted.stream([{**chunk("Hi", "stop"), name: value}])
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        assert (reply.text, reply.finish_reason) == ("Hi", "stop")


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": "none"},
        {"logprobs": {"content": "none"}},
        {"logprobs": {"content": [5]}},
        {"logprobs": {"content": [{**TOKEN, "bytes": "Hi"}]}},
        {"stop_reason": {"a": 1}},
        {"token_ids": "ids"},
    ],
)
def test_another_type_in_a_choice(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, fields: Object
) -> None:
    body, piece = completion("Hi"), chunk("Hi", "stop")
    body["choices"][0] |= fields
    piece["choices"][0] |= fields
    scripted.reply(body)
    scripted.stream([piece])
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        assert (reply.text, reply.finish_reason) == ("Hi", "stop")


def test_only_what_does_not_fit_is_left_out() -> None:
    body = completion("Hi", created="now", usage={"prompt_tokens": "x", "completion_tokens": 3})
    body["choices"][0]["logprobs"] = {"content": [{**TOKEN, "bytes": "Hi"}, TOKEN]}
    reply = decode_completion(json.dumps(body).encode())
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 3
    first, second = (reply.choices[0].logprobs and reply.choices[0].logprobs.content) or []
    assert (first.bytes, second.bytes) == (None, [72, 105])


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": 5}},
        {"message": "text"},
        {"message": {"tool_calls": [{"function": {"arguments": [1]}}]}},
        {"index": "first", "message": {"content": "Hi"}},
    ],
)
def test_what_a_reply_consists_of_must_fit(choice: Object) -> None:
    with pytest.raises(ResponseError, match="not a chat completion"):
        decode_completion(json.dumps({"choices": [choice]}).encode())


@pytest.mark.parametrize(
    "message",
    [
        {"content": "Hi", "tool_calls": [None]},
        {"content": [None, {"type": "text", "text": "Hi"}]},
        {"content": {"type": "text", "text": "Hi"}},
        {"content": "Hi", "reasoning": {"summary": []}},
        {"content": "Hi", "role": None, "refusal": None, "tool_calls": None},
    ],
)
def test_nulls_and_other_forms_in_a_message(message: Object) -> None:
    reply = decode_completion(json.dumps({"choices": [{"message": message}, None]}).encode())
    assert (reply.text, reply.tool_calls, len(reply.choices)) == ("Hi", [], 1)
    chunk = decode_chunk(json.dumps({"choices": [None, {"delta": message}]}).encode())
    assert chunk.text == "Hi"


def test_an_error_next_to_results(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    error = {"message": "busy", "code": 429}
    asked: dict[str, tuple[tuple[Any, ...], Object]] = {
        "rerank": (("q", ["d"]), {"results": []}),
        "embed": (("x",), {"data": []}),
        "classify": (("x",), {"data": None}),
        "transcribe": ((b"RIFF",), {"text": ""}),
    }
    for method, (arguments, body) in asked.items():
        scripted.reply({**body, "error": error})
        with pytest.raises(RateLimitError, match="busy"):
            runner.do(llm, method, *arguments)
    scripted.reply({"results": []})
    with pytest.raises(ResponseError, match="no results"):
        runner.do(llm, "rerank", "q", ["d"])


def test_null_counts_as_absent(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    logprobs = {"tokens": ["H"], "token_logprobs": [-1.0], "top_logprobs": [{"H": -1.0, "x": None}]}
    choice = {"text": "H", "finish_reason": "stop", "logprobs": {**logprobs, "text_offset": [None]}}
    scripted.reply({"choices": [choice]})
    reply = runner.do(llm, "complete", "x")
    assert reply.choices[0].logprobs.top_logprobs == [{"H": -1.0}]
    assert reply.choices[0].logprobs.tokens == ["H"]
    scripted.reply({"results": [{"index": 0, "relevance_score": 0.5, "document": None}]})
    assert runner.do(llm, "rerank", "q", ["d"]).order == [0]


def test_a_ranking_is_sorted(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply({"results": [{"index": n, "relevance_score": n / 10} for n in range(3)]})
    assert runner.do(llm, "rerank", "q", ["a", "b", "c"]).order == [2, 1, 0]
    scripted.reply({"results": [{"index": 3, "relevance_score": 1}]})
    with pytest.raises(ResponseError, match="document 3, of 3"):
        runner.do(llm, "rerank", "q", ["a", "b", "c"])


@pytest.mark.parametrize(
    "event",
    [
        b"data: null\n\n",
        b"data: {}\n\n",
        b"event: ping\ndata: {}\n\n",
        b"event: ping\ndata: pong\n\n",
        b'data: {"type": "ping"}\n\n',
        b'event: keepalive\ndata: {"type": "keepalive", "sequence_number": 3}\n\n',
    ],
)
def test_events_that_only_keep_alive_are_passed_over(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, event: bytes
) -> None:
    scripted.stream([chunk("H"), event, chunk("i", "stop")])
    assert runner.stream(llm).until_done().text == "Hi"
    done: Object = {"type": "response.completed", "response": {"status": "completed", "output": []}}
    scripted.stream([event, done], done=False)
    response: Any = runner.open(llm, "stream_respond", "x").until_done()
    assert response.status == "completed"


@pytest.mark.parametrize("method", ["stream", "stream_complete", "stream_generate"])
def test_fields_that_only_the_whole_reply_has(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, method: str
) -> None:
    odd: Object = dict.fromkeys(("service_tier", "prompt_logprobs", "ec_transfer_params", "metadata"), 5)
    choice: Object = {"index": 0, "text": "Hi", "token_ids": [1], "delta": {"content": "Hi", "refusal": 5}}
    scripted.stream([{"choices": [{**choice, "finish_reason": "stop", "prompt_logprobs": 5}], **odd}])
    reply: Any = runner.open(llm, method, [1] if method == "stream_generate" else "x").until_done()
    assert reply.text == "Hi"
    assert reply.finish_reason == "stop"


# Torn characters


def torn(*halves: str) -> list[bytes]:
    """Chunks whose texts have halves of surrogate pairs, as escapes."""
    return [b"data: " + json.dumps(chunk(half)).encode() + b"\n\n" for half in halves]


def test_an_emoji_split_over_two_chunks(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.stream([*torn("a\ud83d", "\ude00b", "\ud83d", "\ude00"), chunk(finish="stop")])
    assert runner.stream(llm).texts() == ["a", "\U0001f600b", "\U0001f600"]


def test_halves_of_two_choices() -> None:
    waiting = TornCharacters()
    for index in (0, 1):
        mended = waiting.mend({"choices": [{"index": index, "delta": {"content": "\ud83d"}}]})
        assert mended == {"choices": [{"index": index, "delta": {"content": ""}}]}
    for index, half in ((1, "\ude01"), (0, "\ude00")):
        mended = waiting.mend({"choices": [{"index": index, "delta": {"content": half}}]})
        assert mended == {
            "choices": [
                {
                    "index": index,
                    "delta": {"content": f"\ud83d{half}".encode("utf-16", "surrogatepass").decode("utf-16")},
                }
            ]
        }


def test_a_half_that_stays_alone(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.stream([*torn("a\ude00b"), chunk("c", "stop")])
    assert runner.stream(llm).until_done().text == "a\ufffdbc"
    scripted.reply(json.dumps(completion("x\ud83dy")))
    assert runner.chat(llm).text == "x\ufffdy"
    assert without_halves("\ud83d\ude00 \ude00") == "\U0001f600 \ufffd"


def test_bytes_that_are_no_utf8(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(json.dumps(completion("x?y")).encode().replace(b"?", b"\xf0\x9f"))
    assert runner.chat(llm).text == "x\ufffdy"


# Bounds


def test_indexes_of_choices_are_bounded() -> None:
    with pytest.raises(ResponseError, match="index"):
        decode_chunk(b'{"choices":[{"index":65536,"delta":{}}]}')


def test_drop_reports_whether_anything_was_removed() -> None:
    value = {"choices": [{"index": "x", "logprobs": {"content": [1]}}]}
    assert not drop(value, [("choices", 0, "index", "int")], frozenset({"choices", "index"}))
    assert drop(value, [("choices", 0, "logprobs", "content", 0)], frozenset({"choices", "content"}))
    assert value == {"choices": [{"index": "x", "logprobs": {}}]}
