"""Answer calls with mutated responses of real servers, and look for anything but a whole reply or a clear error.

    python scripts/fuzz.py                       # five minutes, another seed each time
    python scripts/fuzz.py --seconds 60 --seed 7
    python scripts/fuzz.py --seed 7 --case 1234  # one case again, with what the server sends

A local server sends recorded responses, mutated in one of four ways: bytes of the whole HTTP response, bytes of its
body, values of its JSON, or the order and framing of its events. Every call must end in time, with a reply that is
whole, or with an error of the library. Anything else is a finding: it is printed with the command that repeats it, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from support import recordings
from support.recordings import Recording
from vllmchat import ChatCompletion, Choice, TextCompletion, Timeout, VLLMChatError, VLLMProvider

Call: TypeAlias = Callable[[VLLMProvider], object]

LIMIT: Final = 10.0
"""Seconds after which a call counts as stuck. The server never waits."""

WAYS: Final = ("http", "body", "json", "events")


def _read_stream(open_stream: Callable[[VLLMProvider], Any]) -> Call:
    def call(llm: VLLMProvider) -> object:
        with open_stream(llm) as stream:
            for _ in stream:
                pass
            return stream.until_done()

    return call


def _read_events(llm: VLLMProvider) -> object:
    with llm.stream("Hi") as stream:
        for _ in stream.events():
            pass
        return stream.completion


def get_weather(city: str = "anywhere") -> str:
    """The weather in a city."""
    return f"sunny in {city}"


WHOLE: Final[dict[str, tuple[Call, ...]]] = {
    "/v1/chat/completions": (
        lambda llm: llm.chat("Hi"),
        lambda llm: llm.parse("Hi", dict[str, object]),
        lambda llm: llm.run_tools("Hi", tools=[get_weather], max_turns=1),
    ),
    "/v1/completions": (lambda llm: llm.complete("Hi"),),
    "/v1/responses": (lambda llm: llm.respond("Hi"),),
    "/v1/embeddings": (lambda llm: llm.embed("Hi", encoding_format="float"),),
    "/pooling": (lambda llm: llm.pool("Hi", encoding_format="float"),),
    "/classify": (lambda llm: llm.classify("Hi"),),
    "/v1/score": (lambda llm: llm.score("a", ["b", "c"]),),
    "/v1/rerank": (lambda llm: llm.rerank("a", ["b", "c"]),),
    "/tokenize": (lambda llm: llm.tokenize("Hi"),),
    "/detokenize": (lambda llm: llm.detokenize([1, 2]),),
    "/inference/v1/generate": (lambda llm: llm.generate([1, 2, 3]),),
    "/v1/models": (lambda llm: llm.models(),),
    "/version": (lambda llm: llm.version(),),
    "/load": (lambda llm: llm.load(),),
}

STREAMED: Final[dict[str, tuple[Call, ...]]] = {
    "/v1/chat/completions": (
        _read_stream(lambda llm: llm.stream("Hi")),
        _read_stream(lambda llm: llm.stream_parse("Hi", dict[str, object])),
        _read_events,
    ),
    "/v1/completions": (_read_stream(lambda llm: llm.stream_complete("Hi")),),
    "/v1/responses": (_read_stream(lambda llm: llm.stream_respond("Hi")),),
    "/inference/v1/generate": (_read_stream(lambda llm: llm.stream_generate([1, 2, 3])),),
}


# --------------------------------------------------------------------------------------------------
# Mutations
# --------------------------------------------------------------------------------------------------

TEXTS: Final = ("", " ", "null", "\ud83d", "a" * 5000, "length", "tool_calls", "error", "0", "\x00", "[DONE]")
NUMBERS: Final = (0, -1, 1, 2**31, 2**63, 10**400, 0.5, -1e308)
PIECES: Final = (
    b"\n",
    b"\r\n",
    b"\n\n",
    b"data:",
    b": ",
    b'"',
    b"{",
    b"}",
    b"null",
    b"\x00",
    b"\xff",
    b"\xed\xa0\xbd",
    b"[DONE]",
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changes one to four places."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content) + 1)
        end = min(len(content), place + rng.choice((1, 2, 8, 60, 400)))
        match rng.randrange(6):
            case 0:
                del content[place:end]
            case 1:
                content[place:place] = content[place:end]
            case 2:
                content[place:place] = rng.choice(PIECES)
            case 3:
                content[place:end] = rng.randbytes(end - place)
            case 4:
                del content[place:]
            case _:
                if place < len(content):
                    content[place] ^= 1 << rng.randrange(8)
    return bytes(content)


def mutate_value(value: object, rng: random.Random) -> object:
    """Changes one value somewhere in it, or a key."""
    places: list[Any] = []  # pairs of an object or array and a key or index

    def collect(node: object) -> None:
        if isinstance(node, dict):
            for key, each in cast("dict[str, object]", node).items():
                places.append((node, key))
                collect(each)
        elif isinstance(node, list):
            for index, each in enumerate(cast("list[object]", node)):
                places.append((node, index))
                collect(each)

    value = json.loads(json.dumps(value))
    collect(value)
    if not places:
        return _other(value, rng)
    holder, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("id", "index", "extra", "error", "message", "delta", "finish_reason"))] = (
                holder[key]
            )
        case 1:
            holder.insert(key, holder[key])
        case _:
            holder[key] = _other(holder[key], rng)
    return value


def _other(value: object, rng: random.Random) -> object:
    """Another value, often of another type."""
    deep: object = "bottom"
    for _ in range(rng.choice((3, 300))):
        deep = [deep]
    others: list[object] = [None, True, False, [], {}, [value], {"value": value}, deep]
    return rng.choice((*others, rng.choice(TEXTS), rng.choice(NUMBERS)))


def mutate_json(body: bytes, rng: random.Random) -> bytes:
    """Changes values of the body, or of one of its events."""
    if body[:1] in b"{[":
        return _dump(mutate_value(json.loads(body), rng))
    events = _events(body)
    for _ in range(rng.randint(1, 2)):
        index = rng.randrange(len(events))
        name, separator, data = events[index].rpartition(b"data: ")
        if data.startswith(b"{"):
            events[index] = name + separator + _dump(mutate_value(json.loads(data), rng))
    return b"".join(event + b"\n\n" for event in events)


def mutate_events(body: bytes, rng: random.Random) -> bytes:
    """Changes the order, number and framing of events."""
    events = _events(body)
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(len(events)) if events else 0
        match rng.randrange(8) if events else 7:
            case 0:
                del events[index]
            case 1:
                events.insert(index, events[index])
            case 2:
                other = rng.randrange(len(events))
                events[index], events[other] = events[other], events[index]
            case 3:
                events.insert(index, b"data: [DONE]")
            case 4:
                del events[index:]
            case 5:
                events[index] = events[index].replace(
                    b"data: ", rng.choice((b"data:", b"data", b"event: error\ndata: "))
                )
            case 6:
                events.insert(
                    index, b'data: {"error":{"message":"broke","type":"x","param":null,"code":500}}'
                )
            case _:
                events.insert(
                    index,
                    rng.choice(
                        (b": keep-alive", b"data:", b"data: {}", b"event: ping", b'data: {"choices":[]}')
                    ),
                )
    end = rng.choice((b"\n\n", b"\n\n", b"\r\n\r\n", b"\r\r"))
    return b"".join(event + end for event in events)


def _events(body: bytes) -> list[bytes]:
    return [event for event in body.split(b"\n\n") if event]


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True).replace("Infinity", "1e999").encode()


def respond(recording: Recording, way: str, rng: random.Random) -> bytes:
    """The bytes of a mutated response."""
    body = recording.body
    match way:
        case "body":
            body = mutate_bytes(body, rng)
        case "json":
            body = mutate_json(body, rng)
        case "events":
            body = mutate_events(body, rng)
        case _:
            pass
    kind = recording.headers.get("content-type", "application/json")
    head = f"HTTP/1.1 {recording.status} OK\r\ncontent-type: {kind}\r\n"
    if recording.is_stream and rng.random() < 0.7:
        pieces = [body[start : start + 300] for start in range(0, len(body), 300)]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        response = f"{head}transfer-encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n"
    else:
        response = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    return mutate_bytes(response, rng) if way == "http" else response


# --------------------------------------------------------------------------------------------------
# The server
# --------------------------------------------------------------------------------------------------


class Server:
    """Sends `response` to each request, in pieces of random sizes, and closes the connection.

    Attributes:
        response: What is sent.
        rng: Decides the sizes.
    """

    def __init__(self) -> None:
        self.response = b""
        self.rng = random.Random(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                try:
                    connection.settimeout(LIMIT)
                    self._answer(connection)
                except OSError:
                    pass  # the client had read enough

    def _answer(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (data := connection.recv(65536)):
                return
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        while len(body) < length:
            body += connection.recv(65536)
        rest = self.response
        while rest:
            size = self.rng.choice((1, 7, 100, 2000, 65536))
            connection.sendall(rest[:size])
            rest = rest[size:]
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


# --------------------------------------------------------------------------------------------------
# Cases
# --------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What came of the cases so far."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    findings: list[str] = field(default_factory=list[str])


def recorded() -> list[Recording]:
    """The recorded responses that a call can be answered with, of all servers."""
    return [
        recording
        for server in recordings.servers()
        for name in recordings.names(server=server)
        if (recording := recordings.load(name, server)).length == len(recording.body)
        and recording.body
        and recording.path in (STREAMED if recording.is_stream else WHOLE)
        and (recording.is_stream or recording.body[:1] in b"{[")
    ]


def run_case(seed: int, number: int, known: Sequence[Recording], server: Server, report: Report) -> bytes:
    """Run one case, and return what the server sent."""
    rng = random.Random(f"{seed}:{number}")
    recording = rng.choice(known)
    way = rng.choice(WAYS if recording.is_stream else WAYS[:3])
    call = rng.choice((STREAMED if recording.is_stream else WHOLE)[recording.path])
    server.rng = rng
    server.response = respond(recording, way, rng)
    sent = server.response
    case = f"{recording.server} {recording.name} by {way}"
    repeat = f"repeat: make fuzz SEED={seed} CASE={number}"
    begin = time.monotonic()
    report.cases += 1
    with VLLMProvider("m", base_url=server.base_url, max_retries=0, timeout=Timeout(total=LIMIT)) as llm:
        try:
            reply = call(llm)
        except VLLMChatError as error:
            report.outcomes[type(error).__name__] += 1
        except Exception:
            report.outcomes["escaped"] += 1
            report.findings.append(f"{case}: an exception escaped; {repeat}\n{traceback.format_exc()}")
        else:
            report.outcomes["replies"] += 1
            if problem := unfinished(reply):
                report.findings.append(f"{case}: {problem}; {repeat}")
    if time.monotonic() - begin >= LIMIT:
        report.findings.append(f"{case}: the call did not end within {LIMIT:g} s; {repeat}")
    return sent


def unfinished(reply: object) -> str | None:
    """Why a reply is not whole; None if it is."""
    if not isinstance(reply, ChatCompletion | TextCompletion):
        return None
    if not reply.choices:
        return "a reply has no choices"
    for choice in reply.choices:
        calls = choice.message.tool_calls if isinstance(choice, Choice) else []
        # A server that is not vLLM may lack the field in replies that are not streamed.
        lacks_field = "finish_reason" not in choice.model_fields_set
        if not (choice.finish_reason or lacks_field or (calls and all(call.complete for call in calls))):
            return f"choice {choice.index} of a reply has no finish reason"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fuzz.py", description="Answer calls with mutated responses.")
    parser.add_argument("--seconds", type=float, default=300, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a random one")
    parser.add_argument("--case", type=int, help="run only this case, and print what the server sends")
    options = parser.parse_args(argv)
    known = recorded()
    server = Server()
    report = Report()
    seed: int = options.seed
    print(f"seed {seed}, {len(known)} recorded responses", flush=True)
    if options.case is not None:
        print(run_case(seed, options.case, known, server, report))
    else:
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            before = len(report.findings)
            run_case(seed, report.cases, known, server, report)
            for finding in report.findings[before:]:
                print(finding, flush=True)
    for name, count in report.outcomes.most_common():
        print(f"{count:8,}  {name}")
    print(f"{report.cases:8,}  cases, {len(report.findings)} findings")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
