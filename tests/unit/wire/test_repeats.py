"""Chunks that repeat an earlier one are what a full validation makes of them."""

from __future__ import annotations

import json
import pickle
import re
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel

from support import recordings
from support.mutations import mutated
from vllmchat.audio import transcription
from vllmchat.chat import chunk as chat
from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.stream import chat_reader
from vllmchat.completions import completion
from vllmchat.errors import ResponseError, VLLMChatError
from vllmchat.http.sse import ServerSentEvent, SSEDecoder
from vllmchat.wire.decode import ChunkDecoder, WireModel
from vllmchat.wire.repeats import PROBE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.recordings import Recording
    from vllmchat.wire.lenient import TornCharacters

    Decode = Callable[[bytes, TornCharacters], WireModel]

DECODERS: dict[str, Decode] = {
    "/v1/chat/completions": chat.decode_chunk,
    "/v1/completions": completion.decode_chunk,
}
STREAMS = [
    recording
    for server in recordings.servers()
    for name in recordings.names(server=server)
    if (recording := recordings.load(name, server)).is_stream and recording.path in DECODERS
]


def payload(text: str, index: object = 0, **fields: object) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return json.dumps({"id": "a", "model": "m", "choices": [choice], **fields}).encode()


def outcome(decode: Callable[[], object]) -> object:
    """What decoding comes to."""
    try:
        decoded = decode()
    except VLLMChatError as error:
        return type(error), str(error)
    return seen(decoded)


def seen(decoded: object) -> object:
    """All that can be seen of what was decoded."""
    if not isinstance(decoded, BaseModel):
        return repr(decoded)
    # As text, since NaN is not equal to itself.
    return repr(parts(decoded)), repr(decoded), decoded.model_dump_json(exclude_unset=True)


def parts(value: object) -> object:
    """The parts of a model, in order, down to the values."""
    if isinstance(value, BaseModel):
        fields = [(name, parts(each)) for name, each in vars(value).items()]
        return (
            type(value),
            fields,
            sorted(value.model_fields_set),
            value.model_extra,
            value.__pydantic_private__,
        )
    return (
        [parts(each) for each in cast("list[object]", value)]
        if isinstance(value, list)
        else (type(value), value)
    )


def both(decode: Decode, payloads: Iterable[bytes]) -> Iterator[tuple[object, object, bool]]:
    """Each payload decoded as a stream does, and always in full; and whether it was a repetition."""
    quick, full = ChunkDecoder(decode), ChunkDecoder(in_full(decode))
    for data in payloads:
        repeated = quick.repeat(data)
        found = outcome(partial(quick.decode, data)) if repeated is None else seen(repeated)
        yield found, outcome(partial(full.decode, data)), repeated is not None


def in_full(decode: Decode) -> Decode:
    """Decodes chunks, and rejects what would show that there may be repetitions."""

    def decode_in_full(data: bytes, torn: TornCharacters) -> WireModel:
        if PROBE.encode() in data:
            raise ResponseError("a probe")
        return decode(data, torn)

    return decode_in_full


def ids(recording: Recording) -> str:
    return f"{recording.server}-{recording.name}"


@pytest.mark.parametrize("recording", STREAMS, ids=ids)
def test_recorded_chunks_are_those_of_a_full_validation(recording: Recording) -> None:
    events = SSEDecoder().feed(recording.body)
    # Twice: in short streams, no kind of chunk occurs often enough.
    payloads = [event.data for event in events] * 2
    for found, expected, _ in both(DECODERS[recording.path], payloads):
        assert found == expected


def test_most_chunks_of_a_stream_are_repetitions() -> None:
    for server in ("0.8.5", "0.33.0"):
        recording = max(
            (each for each in STREAMS if each.server == server and each.path.endswith("chat/completions")),
            key=lambda each: len(each.body),
        )
        chunks = recording.chunks
        found = list(both(chat.decode_chunk, chunks))
        assert sum(repeated for *_, repeated in found) > len(chunks) * 0.7, server


@pytest.mark.parametrize("path", DECODERS)
@given(data=st.data())
def test_any_bytes_are_what_a_full_validation_makes_of_them(path: str, data: st.DataObject) -> None:
    recording = data.draw(st.sampled_from([each for each in STREAMS if each.path == path]))
    bodies = [recording.body, data.draw(mutated(recording))]
    events = [event.data for body in bodies for event in SSEDecoder().feed(body)]
    few = data.draw(st.lists(st.sampled_from(events), min_size=1, max_size=3))
    payloads = data.draw(st.lists(varied(few), min_size=3, max_size=12))
    for found, expected, _ in both(DECODERS[path], payloads):
        assert found == expected


def varied(events: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of a few payloads, with other bytes as its text."""
    texts = st.text().map(json.dumps) | st.text().map(lambda text: json.dumps(text, ensure_ascii=False))
    encoded = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    literals = encoded | st.sampled_from(LITERALS) | st.binary(max_size=6).map(lambda raw: b'"%s"' % raw)
    return st.builds(with_literal, st.sampled_from(events), literals)


LITERALS = (
    b'""', b'" a"', b'"\\n"', b'"\\ud83d"', b'"\\ude00"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\xff"', b'"a"b"', b'"',
    b"null", b"1", b"{}", b'["a"]', b'"a","content":"b"', b'"a","index":1', b'"a"},"delta":{"content":"b"', b' "a" ',
    b'"a","error":"b"', b'"a\n"', b"",
)  # fmt: skip
"""What may come instead of a text between the bytes before it and those after it."""


def with_literal(data: bytes, literal: bytes) -> bytes:
    place = re.search(rb'"(?:content|reasoning|reasoning_content|text)": ?("(?:[^"\\]|\\.)*")', data)
    return data if place is None else data[: place.start(1)] + literal + data[place.end(1) :]


@pytest.mark.parametrize("decode", [chat.decode_chunk, transcription.decode_chunk])
@pytest.mark.parametrize("literal", LITERALS)
def test_what_is_not_a_text_is_read_in_full(literal: bytes, decode: Decode) -> None:
    payloads = [
        payload(" a"),
        payload(" b"),
        payload(" c"),
        with_literal(payload("x"), literal),
        payload(" d"),
    ]
    for found, expected, _ in both(chat.decode_chunk, payloads):
        assert found == expected


@pytest.mark.parametrize("place", ["message", "text"])
def test_a_text_elsewhere_counts_if_the_usual_one_is_missing(place: str) -> None:
    other = {"content": "b"} if place == "message" else "b"
    texts = [" a", " a", " a", "", " a"]
    payloads = [
        json.dumps({"choices": [{"delta": {"content": text}, place: other}]}).encode() for text in texts
    ]
    for found, expected, _ in both(chat.decode_chunk, payloads):
        assert found == expected


OTHER_PARTS: list[dict[str, object]] = [
    {"usage": {"prompt_tokens": 1}},
    {"kv_transfer_params": {}},
    {"prompt_token_ids": [1]},
    {"unknown": []},
    {"unknown": "x"},
    {"choices": []},
    {"choices": [{"delta": {"content": " a", "unknown": "b"}}]},
    {"choices": [{"delta": {"content": " a"}, "unknown": "b"}]},
    {"choices": [{"delta": {"content": " a"}, "token_ids": [1]}]},
    {"choices": [{"delta": {"content": " a"}}, {"index": 1, "delta": {"content": " b"}}]},
    {"choices": [{"delta": {"content": " a", "tool_calls": []}}]},
]


@pytest.mark.parametrize("extra", OTHER_PARTS)
def test_chunks_with_more_than_values_are_not_repeated(extra: dict[str, object]) -> None:
    for found, expected, repeated in both(chat.decode_chunk, [payload(" a", **extra)] * 4):
        assert found == expected
        assert not repeated


def test_the_last_of_equal_keys_counts_whatever_it_is() -> None:
    decoder = ChunkDecoder(chat.decode_chunk)
    for text in ("a", "b", "c", "d"):
        data = json.dumps(
            {"choices": [{"index": 0, "delta": {"content": text}, "DELTA": {"content": PROBE}}]}
        )
        payload = data.replace("DELTA", "delta").encode()
        chunk = decoder.repeat(payload) or decoder.decode(payload)
        assert isinstance(chunk, chat.ChatCompletionChunk)
        assert chunk.text == PROBE


def test_repetitions_share_nothing_that_can_change() -> None:
    decoder = ChunkDecoder(chat.decode_chunk)
    chunks: list[Any] = [decoder.repeat(data) or decoder.decode(data) for data in [payload(" a")] * 5]
    expected = pickle.dumps(chat.decode_chunk(payload(" a")))
    for chunk in chunks:
        assert pickle.loads(pickle.dumps(chunk)) == pickle.loads(expected) == chunk
        chunk.service_tier = "x"
        chunk.unknown = "x"
        chunk.choices[0].stop_reason = 1
        chunk.choices[0].unknown = "x"
        chunk.choices[0].delta.content = "x"
        chunk.choices[0].delta.unknown = "x"
        chunk.choices.append(chat.ChunkChoice())


# What they add up to


def added(payloads: Iterable[bytes]) -> Accumulator:
    """Adds up chunks one by one."""
    decoder, accumulator = ChunkDecoder(in_full(chat.decode_chunk)), Accumulator()
    for data in payloads:
        chunk = decoder.decode(data)
        assert isinstance(chunk, chat.ChatCompletionChunk)
        accumulator.add(chunk)
    return accumulator


CHANGES: list[dict[str, object]] = [
    {}, {}, {}, {"index": 1}, {"id": "b"}, {"id": ""}, {"system_fingerprint": "f"}, {"unknown": "x"},
    {"usage": {"prompt_tokens": 3}}, {"choices": [{"delta": {"role": "x"}}]},
    {"choices": [{"delta": {"reasoning": "r"}}]}, {"choices": [{"delta": {"role": "y", "content": "r"}}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [{"delta": {"content": "c"}, "stop_reason": 3}]},
]  # fmt: skip


@given(
    st.lists(st.tuples(st.text(max_size=3), st.sampled_from(CHANGES), st.integers(1, 4)), max_size=20),
    st.sets(st.integers(0, 80)),
)
def test_repetitions_add_up_to_the_same(
    kinds: list[tuple[str, dict[str, object], int]], asked: set[int]
) -> None:
    payloads = [payload(text, **change) for text, change, times in kinds for _ in range(times)]
    reader = chat_reader()
    for place, data in enumerate(payloads):
        if reader.repeat(data) is None:
            chunk = reader.read_event(ServerSentEvent(data))
            assert chunk is not None
            reader.accept(chunk)
        if place in asked:
            assert reader.reply() == added(payloads[: place + 1]).reply()
    expected = added(payloads)
    assert reader.reply() == expected.reply()
    assert reader.is_complete() == expected.finished


def test_texts_of_repetitions_are_added_as_they_come() -> None:
    reader = chat_reader()
    for _ in range(2_000):
        for event in reader.feed(b"data: %s\n\n" % payload("a")):
            if reader.repeat(event.data) is None:
                chunk = reader.read_event(event)
                assert chunk is not None
                reader.accept(chunk)
    assert reader.reply().text == "a" * 2_000


CALL = {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "1"}}]}}


@pytest.mark.parametrize("other", [payload("a", unknown=[]), payload("a", choices=[CALL])])
def test_a_few_other_chunks_do_not_end_the_search_for_repetitions(other: bytes) -> None:
    decoder = ChunkDecoder(chat.decode_chunk)
    for _ in range(5):
        decoder.decode(other)
    repeated = [decoder.repeat(payload(text)) or not decoder.decode(payload(text)) for text in "abcd"]
    assert [bool(each) for each in repeated] == [False, False, True, True]


def test_long_runs_of_a_few_kinds_are_found_however_often_they_take_turns() -> None:
    reader = chat_reader()
    read = 0
    for run in range(100):
        for _ in range(20):
            data = payload("a", run % 3)
            if reader.repeat(data) is None:
                chunk = reader.read_event(ServerSentEvent(data))
                assert chunk is not None
                reader.accept(chunk)
                read += 1
    assert read == 100 + 3  # the first of each run, and the second of each kind
    assert [choice.message.content for choice in reader.reply().choices] == ["a" * 680, "a" * 660, "a" * 660]


@pytest.mark.parametrize("choices", [{}, {"choices": [CALL]}])
def test_where_every_chunk_is_different_the_search_for_repetitions_ends(choices: dict[str, object]) -> None:
    decoded: list[bytes] = []

    def decode(data: bytes, torn: TornCharacters) -> chat.ChatCompletionChunk:
        decoded.append(data)
        return chat.decode_chunk(data, torn)

    decoder = ChunkDecoder(decode)
    for number in range(1_000):
        decoder.decode(payload("a", created=number, **choices))
    decoded.clear()
    for _ in range(3):
        assert decoder.repeat(payload("a")) is None
        decoder.decode(payload("a"))
    assert decoded == [payload("a")] * 3


def test_few_kinds_of_chunks_are_kept() -> None:
    decoder = ChunkDecoder(chat.decode_chunk)
    tracemalloc.start()
    try:
        for round_ in range(200):
            for other in range(6):
                decoder.decode(payload("a", unknown="x" * 3_000 + f"{round_} {other}"))
            for _ in range(8):
                if decoder.repeat(payload("a")) is None:
                    decoder.decode(payload("a"))
            decoder.repeated()
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
