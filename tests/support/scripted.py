r"""A local HTTP server that does exactly what a test scripts, including the misbehavior of real servers.

    with ScriptedServer() as server:
        server.reply({"id": "x"})                             # first request: a JSON reply
        server.stream([{"n": 1}, gate := Gate(), {"n": 2}])   # second: an SSE stream, held in the middle
        ...                                                   # talk to server.base_url
        gate.wait_reached()
        gate.release()
        assert server.requests[0].json() == {...}

Each request gets the next queued response (`reply`, `stream`, `script`, `add`); if the queue is empty, the
response of `always`. A request without a response gets a 500 and fails the test.

A response is a list of steps. A step is `bytes`, sent unchanged, or a callable that takes the `Connection`.
The callables here: `Gate()` (wait for the test), `drip(data)` (byte by byte), `never` (wait until the client
closes), `forever(data)` (send until the client closes), `close`, `reset`, `half_close`. In `stream` they
go between the events, in `script` between raw bytes; `then=` adds them to a whole response. Steps after one
that closes are skipped. Recipes:

    server.script(reset)                                      # RST instead of a response
    server.reply(x); server.script(close)                     # a reused connection ends before any byte
    server.reply(x, then=[gate, close])                       # an idle connection is closed by the server
    server.script(never)                                      # no response at all
    server.stream([{"n": 1}, never])                          # a stream that stalls
    server.stream([{"n": 1}, reset])                          # a stream that breaks
    server.stream([{"n": 1}], done=False)                     # a stream that ends well, but without [DONE]
    server.stream([{"n": 1}], chunked=False)                  # a stream ended by closing
    server.stream([{"n": 1}, DONE, forever(KEEP_ALIVE)])      # endless bytes after the end
    server.reply(x, headers={"content-length": "999"}, then=[close])  # a length that is not reached
    server.reply(x, http="1.0", headers={"content-length": None})     # HTTP/1.0, ended by closing
    server.script(head(200, {"transfer-encoding": "chunked"}), b"zz\r\n", close)  # broken framing
    server.reply({}, 307, {"location": other.url("/v1/models")})      # a redirect
    server.busy(2, retry_after="0"); server.reply(x)          # 503 twice, then success
    server.at_connect(close)                                  # the connection ends as soon as it is open
    ScriptedServer(requests_per_connection=1)                 # closes without notice after each response
    await in_thread(gate.wait_reached)                        # a wait that leaves the event loop running

`tls=`, `place="ipv6"` and `place="unix"` listen elsewhere. `support.tls` has certificates, `support.proxy` a
forward proxy, `support.sockets` ports that refuse or never answer, and the waits of the server.
"""

from __future__ import annotations

import functools
import json
import threading
import time
import urllib.parse
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from support.sockets import (
    Connection,
    Listener,
    Place,
    in_thread,
    ipv6_available,
    refusing_origin,
    unanswering_origin,
)

if TYPE_CHECKING:
    import ssl

__all__ = [
    "DONE",
    "KEEP_ALIVE",
    "Answer",
    "Answerer",
    "Connection",
    "Event",
    "Gate",
    "Headers",
    "Request",
    "ScriptedServer",
    "Step",
    "body",
    "close",
    "drip",
    "forever",
    "half_close",
    "head",
    "in_thread",
    "ipv6_available",
    "never",
    "read_body",
    "read_head",
    "refusing_origin",
    "reply",
    "reset",
    "script",
    "sse",
    "stream",
    "unanswering_origin",
]

Step: TypeAlias = bytes | Callable[[Connection], None]
Event: TypeAlias = bytes | str | Mapping[str, object] | Callable[[Connection], None]
Headers: TypeAlias = Mapping[str, str | None]

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

_REASONS = {
    100: "Continue",
    200: "OK",
    302: "Found",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that arrived.

    Attributes:
        method: For example `POST`.
        target: What is between the method and the version, unchanged.
        version: For example `HTTP/1.1`.
        headers: By lower-case name; repeated ones joined by a comma.
        raw_headers: In order, as received.
        body: The bytes, without the framing. Empty if the response has `read_body=False`.
        connection: The number of its connection, from 0.
        index: How many requests preceded it on that connection.
        at: When its headers had arrived, in seconds of `time.monotonic()`.
    """

    method: str
    target: str
    version: str
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    index: int
    at: float

    @property
    def path(self) -> str:
        """The path of the target, as sent (percent-encoding kept)."""
        return urllib.parse.urlsplit(self.target).path

    @property
    def query(self) -> str:
        """The query after the question mark; `""` if there is none."""
        return urllib.parse.urlsplit(self.target).query

    def json(self) -> dict[str, object]:
        """The body as a JSON object."""
        decoded = json.loads(self.body)
        assert isinstance(decoded, dict)
        return cast("dict[str, object]", decoded)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to do with one request.

    Attributes:
        steps: Done in order. If the last one leaves the connection open, it waits for the next request.
        read_body: Whether to read the request's body first. If not, the connection is closed after the steps.
    """

    steps: tuple[Step, ...]
    read_body: bool = True


Answerer: TypeAlias = Answer | Callable[[Request], Answer]


class Gate:
    """A step that holds the connection until the test releases it; stays open after that.

    One gate may hold many connections. A client that closes while it is held is noticed at once. A gate that
    is never released is not a failure at the end of the test, but is one when the server's patience runs out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[Connection] = set()
        self._reached = threading.Event()
        self._released = False

    def __call__(self, connection: Connection) -> None:
        with self._lock:
            self._held.add(connection)
        self._reached.set()
        try:
            connection.watch(lambda: self._released, what="a gate to be released")
        finally:
            with self._lock:
                self._held.discard(connection)

    def release(self) -> None:
        """Releases all connections that wait here, now or later."""
        with self._lock:
            self._released = True
            for connection in self._held:
                connection.wake()

    def wait_reached(self, timeout: float = 5.0) -> None:
        """Waits until the server has done every step before this gate, on any connection.

        Args:
            timeout: In seconds.

        Raises:
            AssertionError: The server did not reach it in time.
        """
        assert self._reached.wait(timeout), f"the server did not reach the gate within {timeout:g} s"


def never(connection: Connection) -> None:
    """A step: sends nothing more and waits until the client closes."""
    connection.watch(lambda: False, what="the client to leave")


def close(connection: Connection) -> None:
    """A step: closes the connection properly (FIN)."""
    connection.close()


def reset(connection: Connection) -> None:
    """A step: drops the connection (RST); data that was sent but not read yet may be lost."""
    connection.close(reset=True)


def half_close(connection: Connection) -> None:
    """A step: closes the sending side (FIN), and waits until the client closes."""
    connection.half_close()
    never(connection)


def body(data: bytes) -> Step:
    """A step: sends a piece of a body, framed like the body that was begun: as a chunk, compressed, or plain."""
    return functools.partial(_send_body, data)


def drip(data: bytes, size: int = 1) -> Step:
    """A step: sends a piece of a body (or raw bytes, outside one) in writes of `size` bytes each.

    The kernel may still join some of them before the client reads. To be sure of a split, put a `Gate` there.
    """

    def step(connection: Connection) -> None:
        for start in range(0, len(data), size):
            connection.send_body(data[start : start + size])

    return step


def forever(data: bytes) -> Step:
    """A step: sends a piece of a body again and again until the client closes."""

    def step(connection: Connection) -> None:
        deadline = time.monotonic() + connection.patience
        while time.monotonic() < deadline:
            connection.send_body(data)
        raise AssertionError(f"waited {connection.patience:g} s for the client to leave an endless body")

    return step


def head(status: int = 200, headers: Headers | None = None, *, http: Literal["1.0", "1.1"] = "1.1") -> bytes:
    """The bytes of a status line, headers, and the blank line after them. A header of None is left out."""
    lines = [f"HTTP/{http} {status} {_REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def sse(event: Mapping[str, object] | str) -> bytes:
    """The bytes of one server-sent event, written as vLLM writes it: one line of compact JSON."""
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def reply(
    content: object = None,
    status: int = 200,
    headers: Headers | None = None,
    *,
    gzip: bool = False,
    http: Literal["1.0", "1.1"] = "1.1",
    then: Iterable[Step] = (),
) -> Answer:
    """A whole reply.

    Args:
        content: The body: bytes and str unchanged, anything else as JSON, None for an empty one.
        status: The HTTP status.
        headers: In addition to `content-type: application/json` and `content-length`, or replacing them; None
            removes one.
        gzip: Compress the body.
        http: The version in the status line.
        then: Further steps. Without any, the connection is closed where HTTP says so: after HTTP/1.0, after
            `connection: close`, and if nothing says where the body ends.
    """
    if content is None:
        data = b""
    elif isinstance(content, bytes):
        data = content
    else:
        data = (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).encode()
    fields: dict[str, str | None] = {"content-type": "application/json"}
    if gzip:
        compressor = zlib.compressobj(wbits=31)
        data = compressor.compress(data) + compressor.flush()
        fields["content-encoding"] = "gzip"
    fields["content-length"] = str(len(data))
    fields |= headers or {}
    steps: list[Step] = [head(status, fields, http=http) + data, *then]
    bounded = fields.get("content-length") is not None or fields.get("transfer-encoding") is not None
    if not then and (http == "1.0" or fields.get("connection") == "close" or not bounded):
        steps.append(close)
    return Answer(tuple(steps))


def stream(
    events: Iterable[Event] = (),
    status: int = 200,
    headers: Headers | None = None,
    *,
    chunked: bool = True,
    gzip: bool = False,
    done: bool = True,
    end: bool = True,
    then: Iterable[Step] = (),
) -> Answer:
    """A stream of server-sent events, each its own HTTP chunk.

    Args:
        events: A mapping is sent as JSON in a `data:` line, a str as the text of a `data:` line, bytes
            unchanged (with the blank line that they need); a step is done in its place.
        status: The HTTP status.
        headers: In addition to those of an event stream, or replacing them; None removes one.
        chunked: Frame the body in chunks. If not, the connection's end is the body's end.
        gzip: Compress the body, flushed after each event.
        done: Send `data: [DONE]` after the events.
        end: End the body after that, by the last chunk or by closing. If not, it stays unfinished.
        then: Further steps after that.
    """
    fields: dict[str, str | None] = {"content-type": "text/event-stream; charset=utf-8"}
    fields["transfer-encoding" if chunked else "connection"] = "chunked" if chunked else "close"
    if gzip:
        fields["content-encoding"] = "gzip"
    fields |= headers or {}
    steps: list[Step] = [head(status, fields), functools.partial(_begin_body, chunked, gzip)]
    for event in events:
        if isinstance(event, bytes):
            steps.append(body(event))
        elif callable(event):
            steps.append(event)
        else:
            steps.append(body(sse(event)))
    if done:
        steps.append(body(DONE))
    if end:
        steps.append(_end_body)
        if not chunked:
            steps.append(close)
    return Answer((*steps, *then))


def script(*steps: Step, read_body: bool = True) -> Answer:
    """A response of raw steps; see the module's docstring."""
    return Answer(steps, read_body)


def _begin_body(chunked: bool, gzip: bool, connection: Connection) -> None:
    connection.begin_body(chunked=chunked, gzip=gzip)


def _send_body(data: bytes, connection: Connection) -> None:
    connection.send_body(data)


def _end_body(connection: Connection) -> None:
    connection.end_body()


class ScriptedServer(Listener):
    """See the module's docstring.

    Attributes:
        requests: All requests in order of arrival.
        requests_per_connection: After so many responses the server closes a connection without notice.
        version: The response of `/version`. Such a request then takes no response from the queue and is not in
            `requests`.
    """

    def __init__(
        self,
        place: Place = "ipv4",
        *,
        tls: ssl.SSLContext | None = None,
        requests_per_connection: int | None = None,
        patience: float = 10.0,
    ) -> None:
        """Listens at once; accepts from the start of the `with` block.

        Args:
            place: 127.0.0.1, ::1 or a unix socket (`unix_path`), on a free port.
            tls: The server's context; see `support.tls`.
            requests_per_connection: See above; None for no limit.
            patience: How long, in seconds, a step waits for the test or the client before it fails.
        """
        super().__init__(place, tls=tls, patience=patience)
        self.requests: list[Request] = []
        self.requests_per_connection = requests_per_connection
        self.version: str | None = None
        self._answers: deque[Answerer] = deque()
        self._always: Answerer | None = None
        self._at_connect: deque[Step] = deque()

    @property
    def base_url(self) -> str:
        """The `base_url` for a provider: the origin and `/v1`."""
        return self.url("/v1")

    def url(self, path: str) -> str:
        """The URL of a path on this server."""
        return self.origin + path

    def add(self, *answers: Answerer) -> None:
        """Queues responses, each for one request. A callable makes its response from the request."""
        with self._changed:
            self._answers.extend(answers)

    def always(self, answer: Answerer) -> None:
        """Sets the response to all requests that find the queue empty."""
        with self._changed:
            self._always = answer

    def at_connect(self, *steps: Step) -> None:
        """Queues steps, each for one connection, done when it is accepted and before a TLS handshake."""
        with self._changed:
            self._at_connect.extend(steps)

    def script(self, *steps: Step, read_body: bool = True) -> None:
        """Queues `script(...)`."""
        self.add(script(*steps, read_body=read_body))

    def reply(
        self,
        content: object = None,
        status: int = 200,
        headers: Headers | None = None,
        *,
        gzip: bool = False,
        http: Literal["1.0", "1.1"] = "1.1",
        then: Iterable[Step] = (),
    ) -> None:
        """Queues `reply(...)`."""
        self.add(reply(content, status, headers, gzip=gzip, http=http, then=then))

    def stream(
        self,
        events: Iterable[Event] = (),
        status: int = 200,
        headers: Headers | None = None,
        *,
        chunked: bool = True,
        gzip: bool = False,
        done: bool = True,
        end: bool = True,
        then: Iterable[Step] = (),
    ) -> None:
        """Queues `stream(...)`."""
        self.add(stream(events, status, headers, chunked=chunked, gzip=gzip, done=done, end=end, then=then))

    def busy(self, times: int = 1, status: int = 503, *, retry_after: str | None = None) -> None:
        """Queues `times` rejections."""
        refusal = {"error": {"message": "busy", "type": "Service Unavailable", "param": None, "code": status}}
        for _ in range(times):
            self.reply(refusal, status, {"retry-after": retry_after})

    def wait_requests(self, count: int, timeout: float = 2.0) -> bool:
        """Waits until at least `count` requests have arrived. Returns whether they did in time."""
        return self.wait_for(lambda: len(self.requests) >= count, timeout)

    def prepare(self, connection: Connection) -> None:
        with self._changed:
            step = self._at_connect.popleft() if self._at_connect else None
        if step is not None:
            _do(step, connection)

    def serve(self, connection: Connection) -> None:
        index = 0
        while connection.closed_by is None:
            request, answer = self._take(connection, index)
            for step in answer.steps:
                if connection.closed_by is None:
                    _do(step, connection)
            index += 1
            last = not answer.read_body or request.headers.get("connection", "").lower() == "close"
            if last or index == self.requests_per_connection:
                connection.close()

    def _take(self, connection: Connection, index: int) -> tuple[Request, Answer]:
        """Reads a request and finds its response."""
        request = read_head(connection, index)
        if self.version is not None and request.path == "/version":
            return request, reply({"version": self.version})
        with self._changed:
            answerer = self._answers.popleft() if self._answers else self._always
        if not isinstance(answerer, Answer) or answerer.read_body:
            request = replace(request, body=read_body(connection, request.headers))
        with self._changed:
            self.requests.append(request)
            number = len(self.requests)
            self._changed.notify_all()
        if answerer is None:
            failure = f"no response was scripted for request {number}: {request.method} {request.target}"
            self.fail(AssertionError(failure))
            return request, reply(failure, 500, {"content-type": "text/plain"})
        return request, answerer if isinstance(answerer, Answer) else answerer(request)


def read_head(connection: Connection, index: int) -> Request:
    """Waits for the next request of a connection and takes its head; the body stays in the buffer."""
    end = _read_until(connection, b"\r\n\r\n", patient=True)
    lines = bytes(connection.buffer[: end - 4]).decode("latin-1").split("\r\n")
    del connection.buffer[:end]
    at = time.monotonic()
    method, target, version = lines[0].split(" ")
    pairs = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]))
    headers: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return Request(method, target, version, headers, pairs, b"", connection.number, index, at)


def read_body(connection: Connection, headers: Mapping[str, str]) -> bytes:
    """Takes the body that follows a head, without its framing."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return _read_exactly(connection, int(headers.get("content-length", "0")))
    content = bytearray()
    while True:
        line = _read_exactly(connection, _read_until(connection, b"\r\n"))
        size = int(line.partition(b";")[0], 16)
        content += _read_exactly(connection, size + 2)[:size]
        if size == 0:
            return bytes(content)


def _do(step: Step, connection: Connection) -> None:
    if isinstance(step, bytes):
        connection.send(step)
    else:
        step(connection)


def _read_until(connection: Connection, mark: bytes, *, patient: bool = False) -> int:
    """Receives until the buffer holds `mark`. Returns the position after it."""
    while (at := connection.buffer.find(mark)) < 0:
        connection.receive(patient=patient)
    return at + len(mark)


def _read_exactly(connection: Connection, count: int) -> bytes:
    """Takes `count` bytes off the front of the buffer, receiving what is missing."""
    while len(connection.buffer) < count:
        connection.receive()
    data = bytes(connection.buffer[:count])
    del connection.buffer[:count]
    return data
