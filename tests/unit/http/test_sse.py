from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, strategies as st

from vllmchat.http import sse
from vllmchat.http.sse import EventTooLargeError, ServerSentEvent, SSEDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

# ------------------------------------------------------------------------------------------------
# A reference: the standard's algorithm read aloud, over the whole stream at once
# ------------------------------------------------------------------------------------------------


def reference(stream: bytes) -> list[ServerSentEvent]:
    text = stream.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = re.split("\r\n|\r|\n", text)
    last = lines.pop()
    events: list[ServerSentEvent] = []
    data: list[str] = []
    kind = ""
    for line in lines:
        if line == "":
            if data:
                events.append(ServerSentEvent(_bytes("\n".join(data)), kind))
            data, kind = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                data.append(value)
            case "event":
                kind = value
            case _:
                pass
    assert last == "", "the reference takes streams whose lines all end"
    return events


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decode(pieces: Iterable[bytes], limit: int = sse.MAX_EVENT_BYTES) -> list[ServerSentEvent]:
    decoder = SSEDecoder(limit)
    return [event for piece in pieces for event in decoder.feed(piece)]


def data_of(pieces: Iterable[bytes]) -> list[bytes]:
    return [event.data for event in decode(pieces)]


def split_at(stream: bytes, places: Iterable[int]) -> list[bytes]:
    cuts = [0, *sorted(place for place in places if place < len(stream)), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(cuts)]


# Characters that some decoders take for the end of a line or field, or that take several bytes.
text = st.text(st.sampled_from('ab :{"\\}\u2028\u2029\u0085\x0b\x0c\x1c\ufeff\0é€😀'), max_size=12)
names = st.sampled_from(
    ["data", "data", "data", "event", "id", "retry", "", "dat", "Data", "data ", "\ufeffdata"]
)
values = st.one_of(text, st.sampled_from(["", " ", "[DONE]", "3000", "12ab", "-1", "9" * 12]))


def field(name: str, separator: str, value: str) -> str:
    return name + separator + value if separator else name


def joined(bom: str, body: list[tuple[str, str]]) -> bytes:
    return (bom + "".join(line + end for line, end in body)).encode()


fields = st.builds(field, names, st.sampled_from([":", ": ", ""]), values)
lines = st.one_of(fields, st.just(""), st.just(""))
ends = st.sampled_from(["\n", "\r", "\r\n"])
streams = st.builds(joined, st.sampled_from(["", "\ufeff"]), st.lists(st.tuples(lines, ends), max_size=20))
cuts = st.lists(st.integers(0, 200), max_size=12)


@given(streams, cuts)
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 10])
@example(b"\xef\xbb\xbfdata: a\n\n", [1, 2])
@example(b"data: \xe2\x82\xac\n\n", [7, 8])
def test_any_stream_split_anywhere_yields_the_events_of_the_standard(
    stream: bytes, places: list[int]
) -> None:
    decoder = SSEDecoder()
    events = [event for piece in split_at(stream, places) for event in decoder.feed(piece)]
    assert events == reference(stream)


@given(streams)
def test_a_stream_in_single_bytes_yields_the_same(stream: bytes) -> None:
    assert decode(bytes([byte]) for byte in stream) == reference(stream)


@given(st.binary(max_size=60), cuts, st.integers(3, 20))
def test_arbitrary_bytes_yield_the_same_however_they_are_split(
    stream: bytes, places: list[int], limit: int
) -> None:
    assert outcome(split_at(stream, places), limit) == outcome([stream], limit)


@given(streams, cuts, st.integers(3, 40))
def test_the_limit_does_not_depend_on_the_splits(stream: bytes, places: list[int], limit: int) -> None:
    assert outcome(split_at(stream, places), limit) == outcome([stream], limit)


def outcome(pieces: Iterable[bytes], limit: int) -> tuple[list[ServerSentEvent], bool]:
    """All events, including those at the end, and whether the limit was exceeded."""
    decoder = SSEDecoder(limit)
    events: list[ServerSentEvent] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.flush()
    except EventTooLargeError as error:
        return events + error.before, True
    return events, False


# ------------------------------------------------------------------------------------------------
# Single rules
# ------------------------------------------------------------------------------------------------


def test_cr_and_lf_in_different_reads_are_one_line_end() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\ndata: b\r") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\r") == [ServerSentEvent(b"a\nb")]
    assert decoder.feed(b"\ndata: c\n\n") == [ServerSentEvent(b"c")]


def test_an_event_is_returned_as_soon_as_its_blank_line_may_have_come() -> None:
    # Waiting for the LF that may follow the CR would hold each event back until the next one.
    assert data_of([b"data: a\r\r"]) == [b"a"]


def test_a_bom_is_dropped_only_at_the_start() -> None:
    bom = b"\xef\xbb\xbf"
    assert data_of([bom + b"data: a\n\n" + bom + b"data: b\n\n"]) == [b"a"]
    assert data_of([bom[:1], bom[1:2], bom[2:], b"data: a\n\n"]) == [b"a"]
    assert data_of([b"", bom[:2], b"\xbf\xef\xbb\xbfdata: a\n\n"]) == []


def test_the_start_of_what_only_looks_like_a_bom() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"\xef") == []
    assert decoder.feed(b"\n\ndata: a\n\n") == [ServerSentEvent(b"a")]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_nothing_else_ends_a_line(character: str) -> None:
    payload = f'{{"a":"x{character}y"}}'.encode()
    assert data_of([b"data: " + payload + b"\n\n"]) == [payload]


def test_comments_are_ignored() -> None:
    assert data_of([b": keep-alive\n\n:\n\n:data: no\n\n"]) == []
    assert data_of([b"data: a\n: between\ndata: b\n\n"]) == [b"a\nb"]


def test_data_of_several_lines_and_empty_data() -> None:
    assert data_of([b"data: a\ndata:b\ndata\ndata:  c\n\n"]) == [b"a\nb\n\n c"]
    assert data_of([b"data\n\n"]) == [b""]
    assert data_of([b"event: x\n\nid: 1\n\n"]) == []


def test_type() -> None:
    assert decode([b"event: start\ndata: a\n\ndata: b\n\n"]) == [(b"a", "start"), (b"b", "")]


def test_id_and_retry_are_ignored() -> None:
    events = decode([b"id: 7\nretry: 2500\n\nid:\ndata: c\n\nid: x\0y\nretry: x\ndata: d\nretry: 9\n\n"])
    assert events == [(b"c", ""), (b"d", "")]


def test_bytes_that_are_not_utf8_are_kept_in_data() -> None:
    assert decode([b"event: \xff\ndata: \xff\xfe\n\n"]) == [ServerSentEvent(b"\xff\xfe", "\ufffd")]


def test_flush_returns_an_event_without_its_blank_line() -> None:
    for tail in (b"data: b", b"data: b\n", b"data: b\r", b"data: b\r\n"):
        decoder = SSEDecoder()
        assert decoder.feed(b"data: a\n\n" + tail) == [ServerSentEvent(b"a")]
        assert decoder.flush() == [ServerSentEvent(b"b")]
        assert decoder.flush() == []


def test_flush_returns_nothing_if_nothing_is_left() -> None:
    decoder = SSEDecoder()
    assert decoder.flush() == []
    decoder.feed(b"data: a\n\n: x\nevent: y\n")
    assert decoder.flush() == []


# ------------------------------------------------------------------------------------------------
# The size limit of an event
# ------------------------------------------------------------------------------------------------

LIMIT = 20


@pytest.mark.parametrize(
    "event",
    [
        b"data: " + b"x" * LIMIT + b"\n\n",
        b"data: " + b"x" * 10 + b"\ndata: y\n\n",
        b"data\n" * 5 + b"\n",
        b":" + b"x" * LIMIT + b"\n\n",
        b"x" * (LIMIT + 1),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_event_beyond_the_limit_raises(event: bytes, size: int) -> None:
    stream = b"data: fits\n\n" + event
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    events, too_large = outcome(pieces, LIMIT)
    assert too_large
    assert events == [ServerSentEvent(b"fits")]


def test_the_limit_applies_to_each_event() -> None:
    largest = b"data: " + b"x" * (LIMIT - 7) + b"\n\n"
    assert len(decode([largest * 5], LIMIT)) == 5
    assert len(decode([bytes([byte]) for byte in largest * 5], LIMIT)) == 5
    assert decode([b": comment\n" * 50, b"event: x\n" * 50], LIMIT) == []


def test_the_message_has_the_limit() -> None:
    with pytest.raises(EventTooLargeError, match=r"more than 1,000 bytes"):
        SSEDecoder(1000).feed(b"x" * 1001)


def test_the_cost_of_an_event_in_many_reads_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each piece may be measured a fixed number of times, however many precede it.
    measured = 0

    def counting_len(thing: object) -> int:
        nonlocal measured
        measured += 1
        return len(thing)  # type: ignore[arg-type] # whatever the module measures has a length

    monkeypatch.setattr(sse, "len", counting_len, raising=False)

    def cost(piece: bytes, count: int) -> int:
        nonlocal measured
        measured = 0
        decoder = SSEDecoder()
        for _ in range(count):
            assert decoder.feed(piece) == []
        assert len(decoder.feed(b"\n\n")) == 1
        return measured

    for piece in (b"data: x\n", b"data:", b"data\n"):
        assert cost(piece, 2000) < 2.2 * cost(piece, 1000)
