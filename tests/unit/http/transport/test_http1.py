"""HTTP/1.1 without I/O: requests, responses split anywhere, and what is rejected."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import h11
import pytest
from hypothesis import assume, example, given, strategies as st

from vllmchat.http.transport.http1 import MAX_HEAD_BYTES, ResponseParser, encode_request
from vllmchat.http.transport.network_errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


class Answer(NamedTuple):
    """The result of reading some bytes."""

    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool


def read(pieces: Sequence[bytes]) -> Answer:
    """A response that arrives in these pieces, and then the end of the connection if it has not ended before."""
    reader = ResponseParser()
    body = b""
    for piece in pieces:
        body += reader.feed(piece)
    if not reader.ended:
        body += reader.feed(b"")
    assert reader.ended
    return Answer(reader.status, reader.headers, body, reader.reusable)


def read_by_h11(data: bytes) -> Answer | None:
    """What h11 makes of the same bytes; None if it rejects them."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    ended, status, headers, body = False, 0, dict[str, str](), b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if ended:
                    return None
                ended = True
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reusable = connection.their_state is h11.DONE and connection.trailing_data[0] == b""
                return Answer(status, headers, body, reusable and not ended)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None


def split(data: bytes, at: Sequence[int]) -> list[bytes]:
    """The bytes in pieces that end at these places."""
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


def chunked(pieces: Sequence[bytes], extension: bytes = b"") -> bytes:
    """Pieces as chunks."""
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces if piece)


# ------------------------------------------------------------------------------------------------
# Responses
# ------------------------------------------------------------------------------------------------


BODIES = st.binary(max_size=60) | st.sampled_from([b"data: {}\n\n", b"\r\n", b"0\r\n\r\n", b"a" * 300])
PLACES = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(BODIES, max_size=8), PLACES, st.sampled_from([b"", b";x=1", b"  ", b"; a "]))
@example([b"ab", b"c"], list(range(200)), b"")
def test_chunks_in_any_pieces(bodies: list[bytes], at: list[int], extension: bytes) -> None:
    data = CHUNKED + chunked(bodies, extension) + b"0\r\n\r\n"
    answer = read(split(data, at))
    assert answer.status == 200
    assert answer.body == b"".join(bodies)
    assert answer.reusable


@given(BODIES, PLACES)
def test_a_body_of_known_length_in_any_pieces(body: bytes, at: list[int]) -> None:
    data = HEAD + b"Content-Length: %d\r\nX-Request-Id: abc\r\n\r\n%s" % (len(body), body)
    headers = {"content-length": str(len(body)), "x-request-id": "abc"}
    assert read(split(data, at)) == Answer(200, headers, body, reusable=True)


@given(BODIES, PLACES)
def test_a_body_until_the_connection_ends(body: bytes, at: list[int]) -> None:
    assert read(split(HEAD + b"\r\n" + body, at)) == Answer(200, {}, body, reusable=False)


LINES = st.sampled_from(
    [
        b"content-type: text/event-stream",
        b"Content-Length: 4",
        b"content-length: 4, 4",
        b"content-length: 4, 5",
        b"content-length: +4",
        b"content-length: -1",
        b"content-length:",
        b"transfer-encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: identity",
        b"connection: close",
        b"connection: keep-alive, Close",
        b"x: \t y \t",
        b"x:",
        b"x:a\x00b",
        b"x: a\rb",
        b"x: a\x0bb",
        b"x: \x0c",
        b"x : a",
        b"x y: a",
        b": a",
        b"no colon",
        b" folded",
        b"\tfolded",
        b"x: \xe9\xff",
    ]
)
STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 ",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 500 \xe9",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 101 Switching",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/2 200 OK",
        b"ICY 200 OK",
        b"",
    ]
)
REST = st.sampled_from(
    [
        b"",
        b"abcd",
        b"abc",
        b"abcdefg",
        b"\r\n",
        b"4\r\nabcd\r\n0\r\n\r\n",
        b"4\r\nabcd\r\n0\r\nt: 1\r\nu: 2\r\n\r\n",
        b"4\r\nabcde\r\n0\r\n\r\n",
        b"4\r\nabcd",
        b"g\r\n",
        b"-4\r\nabcd\r\n",
        b"0x4\r\nabcd\r\n0\r\n\r\n",
        b"4_0\r\nabcd\r\n",
        b"4 ;x\r\nabcd\r\n0\r\n\r\n",
        b"00004\r\nabcd\r\n000\r\n\r\n",
        b"0\r\n\r\nmore",
    ]
)


@given(STATUS_LINES, st.lists(LINES, max_size=4), REST, st.sampled_from([b"\r\n", b"\n"]), PLACES)
@example(b"HTTP/1.1 200 OK", [b"content-length: 4", b"transfer-encoding: chunked"], b"0\r\n\r\n", b"\r\n", [])
def test_the_same_as_h11(status: bytes, lines: list[bytes], rest: bytes, end: bytes, at: list[int]) -> None:
    """It accepts what the most common library accepts, with the same meaning, and rejects what that rejects."""
    data = end.join([status.replace(b"\r\n", end), *lines, b"", b""]) + rest
    # It takes a repeated encoding for one, as some proxies mean it; h11 rejects that.
    assume([line.lower() for line in lines].count(b"transfer-encoding: chunked") < 2)
    expected = read_by_h11(data)
    if expected is None:
        with pytest.raises(RemoteProtocolError):
            read(split(data, at))
        return
    answer = read(split(data, at))
    assert (answer.status, answer.body) == (expected.status, expected.body)
    # With a length and chunks both, the connection is not trusted with another request; h11 leaves that to others.
    both = {"content-length", "transfer-encoding"} <= set(answer.headers)
    assert answer.reusable == (expected.reusable and not both)
    # h11 leaves the length out of what it shows there, and joins equal lengths.
    skipped = {"content-length", "transfer-encoding"}
    for name in answer.headers.keys() - skipped:
        assert answer.headers[name] == expected.headers[name]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + b"content-length: 4\r\n\r\nabc",
        CHUNKED,
        CHUNKED + b"4\r\nab",
        CHUNKED + b"4\r\nabcd\r",
        CHUNKED + b"4\r\nabcd\r\n0\r\n",
    ],
)
def test_a_response_that_breaks_off(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="closed the connection"):
        read([data] if data else [])


def test_content_before_a_malformed_chunk_is_returned() -> None:
    reader = ResponseParser()
    assert reader.feed(CHUNKED + chunked([b"one", b"two"]) + b"zz\r\n") == b"onetwo"
    assert reader.failure is not None
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="zz"):
            reader.feed(b"more")
    assert not reader.ended


def test_interim_responses_before_the_response() -> None:
    data = b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + HEAD + b"content-length: 0\r\n\r\n"
    for pieces in ([data], [data[place : place + 1] for place in range(len(data))]):
        assert read(pieces) == Answer(200, {"content-length": "0"}, b"", reusable=True)


def test_bytes_after_the_end_make_the_connection_unusable() -> None:
    """A response that nobody requested must not become the response to the next request."""
    second = HEAD + b"content-length: 0\r\n\r\n"
    for first in (HEAD + b"content-length: 2\r\n\r\nok", CHUNKED + b"2\r\nok\r\n0\r\n\r\n"):
        assert read([first]).reusable
        assert read([first + second]) == read([first])._replace(reusable=False)
        reader = ResponseParser()
        assert reader.feed(first) == b"ok"
        assert reader.reusable
        assert reader.feed(second) == b""
        assert not reader.reusable


def test_the_end_of_the_connection_after_the_response() -> None:
    reader = ResponseParser()
    reader.feed(HEAD + b"content-length: 0\r\n\r\n")
    assert reader.feed(b"") == b""
    assert not reader.reusable


@pytest.mark.parametrize("size", [1, 64 * 1024])
def test_endless_headers(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match="too large"):
        read([b"x" * size] * (MAX_HEAD_BYTES + 1))


@pytest.mark.parametrize(
    ("before", "endless"),
    [(b"", b"1;" + b";" * 1000), (b"0\r\n", b"t" * 1000), (b"0\r\n", b"t: 1\r\n" * 1000)],
)
def test_endless_lines_between_chunks(before: bytes, endless: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        read([CHUNKED + before] + [endless] * 1000)


def test_a_repeated_header_counts_with_its_last_value() -> None:
    assert read([HEAD + b"A: 1\r\na: 2\r\ncontent-length: 0\r\n\r\n"]).headers["a"] == "2"


# ------------------------------------------------------------------------------------------------
# Requests
# ------------------------------------------------------------------------------------------------


def test_a_request() -> None:
    head = encode_request("POST", "/v1/x?y=1", "server:8000", {"accept": "*/*", "x-a": "é"}, b"{}")
    assert head == (
        b"POST /v1/x?y=1 HTTP/1.1\r\nHost: server:8000\r\nAccept: */*\r\nX-A: \xe9\r\nContent-Length: 2\r\n\r\n"
    )
    assert encode_request("GET", "/", "h", {}, None) == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    assert encode_request("GET", "/", "h", {"host": "other"}, b"") == (
        b"GET / HTTP/1.1\r\nHost: other\r\nContent-Length: 0\r\n\r\n"
    )


@given(
    st.dictionaries(st.text(max_size=8), st.text(st.characters(max_codepoint=255), max_size=8), max_size=3),
    st.text(max_size=8),
)
@example({"a": "b\r\nc: d"}, "/")
@example({"a\r\nb": "c"}, "/")
@example({}, "/ HTTP/1.1\r\nx: y\r\n\r\nGET /")
def test_nothing_smuggles_a_second_header_in(headers: dict[str, str], target: str) -> None:
    try:
        head = encode_request("GET", target, "h", headers, None)
    except LocalProtocolError:
        return
    others = [name for name in headers if name != "host"]
    assert head.count(b"\r\n") == head.count(b"\n") == len(others) + 3
    assert head.count(b"\r") == len(others) + 3
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert len(event.headers) == len(others) + 1
