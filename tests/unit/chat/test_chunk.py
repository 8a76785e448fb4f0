from __future__ import annotations

import copy
import json
import pickle

import pytest

from support import recordings
from support.null_or_absent import null_and_absent
from vllmchat.chat.chunk import (
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    decode_chunk,
)
from vllmchat.errors import ResponseError
from vllmchat.wire.decode import ChunkDecoder, find_error

STREAMS = recordings.names("stream*")
NOT_CHUNKS = [
    b'{"foo":1}',
    b"[]",
    b"",
    b"[DONE]",
    b"<html>502 Bad Gateway</html>",
    b'{"object":"text_completion"}',
    b'{"choices":5}',
    b'{"choices":[5]}',
    b'{"choices":[{"delta":"text"}]}',
    b'{"choices":[{"delta":{"content":5}}]}',
    b'{"choices":[{"index":0,"delta":{"content":"cut',
    b'{"choices":[{"index":1e999,"delta":{}}]}',
    b'{"choices":[{"index":-Infinity,"delta":{}}]}',
    b'{"choices":[{"index":NaN,"delta":{}}]}',
]


def delta(**fields: object) -> ChatCompletionChunk:
    return decode_chunk(json.dumps({"choices": [{"index": 0, "delta": fields}]}).encode())


@pytest.mark.parametrize("name", STREAMS)
def test_every_field_of_the_wire_is_kept(name: str) -> None:
    for data in recordings.load(name).chunks:
        assert json.loads(decode_chunk(data).model_dump_json(exclude_unset=True)) == json.loads(data)


@pytest.mark.parametrize("name", STREAMS)
def test_every_field_of_the_wire_is_known(name: str) -> None:
    for data in recordings.load(name).chunks:
        chunk = decode_chunk(data)
        assert chunk.model_extra == {}
        for choice in chunk.choices:
            assert choice.model_extra == choice.delta.model_extra == {}


def test_chunks_of_a_stream() -> None:
    chunks = [decode_chunk(data) for data in recordings.load("stream_reasoning").chunks]
    assert "".join(chunk.text for chunk in chunks) == "\n\n17 times 3 is 51."
    assert "".join(chunk.reasoning or "" for chunk in chunks).endswith("which is 51.\n")
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].reasoning is None
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 36


@pytest.mark.parametrize(
    "heading", ["chat first chunk", "chat delta", "reasoning delta", "tool first", "finish", "final usage"]
)
def test_samples_of_the_servers_own_models(heading: str) -> None:
    for data in recordings.samples(heading):
        assert json.loads(decode_chunk(data).model_dump_json(exclude_unset=True)) == json.loads(data)


def test_a_missing_logprob_has_a_default() -> None:
    (data,) = recordings.samples("logprobs chunk")
    logprobs = decode_chunk(data).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.logprob for token in logprobs.content] == [-0.1, -9999.0]
    assert logprobs.content[1].top_logprobs == []


def test_null_is_absent() -> None:
    streams = ("stream_tool_calls_parallel", "stream_logprobs_token_ids", "stream_unicode")
    for data in [
        recordings.load(name).chunks[position]
        for name in streams
        for position in (0, 1, 13, -2, -1)
        if position < len(recordings.load(name).chunks)
    ]:
        for null, absent in null_and_absent(json.loads(data)):
            assert decode_chunk(json.dumps(null).encode()) == decode_chunk(json.dumps(absent).encode())


def test_a_chunk_has_choices_or_the_object_field() -> None:
    assert decode_chunk(b'{"object":"chat.completion.chunk","usage":{"prompt_tokens":1}}').choices == []
    assert decode_chunk(b'{"choices":null}').choices == []
    assert decode_chunk(b'{"choices":[{}]}').choices == [ChunkChoice()]


def test_text_and_reasoning_come_from_the_first_choice() -> None:
    second = decode_chunk(b'{"choices":[{"index":1,"delta":{"content":"x","reasoning":"y"}}]}')
    assert second.text == ""
    assert second.reasoning is None
    both = decode_chunk(
        b'{"choices":[{"index":1,"delta":{"content":"x"}},{"index":0,"delta":{"content":"a","reasoning":"r"}},'
        b'{"index":0,"delta":{"content":"b","reasoning":"s"}}]}'
    )
    assert both.text == "ab"
    assert both.reasoning == "rs"
    assert decode_chunk(b'{"choices":[]}').text == ""
    assert decode_chunk(b'{"choices":[]}').reasoning is None


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({"reasoning": "new"}, "new"),
        ({"reasoning_content": "old"}, "old"),
        ({"reasoning": "same", "reasoning_content": "same"}, "same"),
        ({"reasoning": "new", "reasoning_content": "old"}, "new"),
        ({"reasoning": None, "reasoning_content": "old"}, "old"),
        ({"reasoning": "new", "reasoning_content": None}, "new"),
        ({"reasoning": "", "reasoning_content": "old"}, "old"),
        ({"reasoning_content": None}, None),
    ],
)
def test_the_old_name_of_reasoning_is_read(fields: dict[str, object], reasoning: str | None) -> None:
    chunk = delta(content="x", **fields)
    assert chunk.reasoning == reasoning
    assert chunk.choices[0].delta.model_extra == {}


def test_content_parts_are_joined() -> None:
    assert delta(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]).text == "ab"


@pytest.mark.parametrize(("arguments", "text"), [({"a": 1}, '{"a": 1}'), ("{", "{"), ("", "")])
def test_arguments_become_text(arguments: object, text: str) -> None:
    (piece,) = (
        delta(tool_calls=[{"index": 0, "function": {"arguments": arguments}}]).choices[0].delta.tool_calls
        or []
    )
    assert piece.function is not None
    assert piece.function.arguments == text


def test_unknown_fields_are_kept() -> None:
    chunk = decode_chunk(b'{"new":1,"choices":[{"newer":2,"delta":{"newest":3}}]}')
    assert chunk.model_extra == {"new": 1}
    assert chunk.choices[0].model_extra == {"newer": 2}
    assert chunk.choices[0].delta.model_extra == {"newest": 3}


@pytest.mark.parametrize("data", NOT_CHUNKS)
def test_invalid_data_is_rejected(data: bytes) -> None:
    for decode in (decode_chunk, ChunkDecoder(decode_chunk).decode):
        with pytest.raises(ResponseError, match="not a chat completion chunk") as caught:
            decode(data)
        assert caught.value.body == data.decode()


def test_a_recorded_error_is_recognized() -> None:
    (data, done) = recordings.load("error_bad_grammar_stream").data
    assert done == b"[DONE]"
    error = ChunkDecoder(decode_chunk).decode(data)
    assert isinstance(error, dict)
    assert error == find_error(data) == json.loads(data)
    with pytest.raises(ResponseError):
        decode_chunk(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":"Unauthorized"}',
        b'{"error":{"message":"m","code":400}}',
        b'{"error":{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}}',
        b'{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}',
        b'{"id":"x","object":"chat.completion.chunk","choices":[],"error":{"message":"m"}}',
        b'{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],"error":{"message":"m"}}',
    ],
)
def test_all_forms_of_errors_are_recognized(data: bytes) -> None:
    assert ChunkDecoder(decode_chunk).decode(data) == find_error(data) == json.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[],"error":null}',
        b'{"choices":[],"new":"error"}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}',
        b'{"choices":[{"index":0,"delta":{"content":"{\\"error\\": 1}"}}]}',
    ],
)
def test_chunks_that_look_like_errors(data: bytes) -> None:
    assert find_error(data) is None
    assert ChunkDecoder(decode_chunk).decode(data) == decode_chunk(data)


def test_a_truncated_error_is_invalid() -> None:
    assert find_error(b'{"error":{"mess') is None
    with pytest.raises(ResponseError):
        ChunkDecoder(decode_chunk).decode(b'{"error":{"mess')


@pytest.mark.parametrize("name", STREAMS)
def test_pickle_and_copy(name: str) -> None:
    for data in recordings.load(name).chunks[:20]:
        chunk = decode_chunk(data)
        assert pickle.loads(pickle.dumps(chunk)) == copy.deepcopy(chunk) == chunk


def test_chunks_can_be_constructed() -> None:
    chunk = ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="a", reasoning="r"))])
    assert (chunk.text, chunk.reasoning) == ("a", "r")


@pytest.mark.parametrize("empty", ["null", "false", '""', "{}", "[]"])
def test_an_empty_error_is_none(empty: str) -> None:
    data = f'{{"choices":[{{"index":0,"delta":{{"content":"a"}},"error":{empty}}}],"error":{empty}}}'.encode()

    chunk = ChunkDecoder(decode_chunk).decode(data)

    assert isinstance(chunk, ChatCompletionChunk)
    assert chunk.text == "a"
