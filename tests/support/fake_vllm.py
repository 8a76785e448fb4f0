"""A scripted vLLM server for the tests of the MassGen adapter, and a recorder in front of a real one."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import urllib.parse
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from support.scripted import Answer, Event, Gate, Request, ScriptedServer, reply, script, stream

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
    from pathlib import Path

    from massgen.backend.base import StreamChunk

    from support.scripted import Answerer, Connection

WORKFLOW: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": name,
            "parameters": {"type": "object", "properties": properties},
        },
    }
    for name, properties in (
        ("new_answer", {"content": {"type": "string"}}),
        ("vote", {"agent_id": {"type": "string", "enum": ["agent1"]}, "reason": {"type": "string"}}),
    )
]
"""The tools that MassGen's orchestrator hands to an agent."""

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is six times seven?"}]

Call = tuple[str, str]
"""A tool's name and its arguments as JSON text."""

_numbers = itertools.count(1)


def events(
    *,
    reasoning: str = "",
    text: str = "",
    calls: Iterable[Call] = (),
    finish: str | None = None,
    usage: dict[str, Any] | None = None,
) -> list[Event]:
    """A reply as vLLM streams it, without `[DONE]`.

    Args:
        reasoning: The model's reasoning.
        text: Its text.
        calls: Its tool calls.
        finish: The finish reason; by default the appropriate one. Empty for none.
        usage: The token counts; by default 10 of the prompt and 5 generated.
    """
    calls = list(calls)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning": piece} for piece in _halves(reasoning)]
    deltas += [{"content": piece} for piece in _halves(text)]
    for index, (name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        opened = {"index": index, "id": f"call-{next(_numbers)}", "type": "function", "function": function}
        deltas.append({"tool_calls": [opened]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in _halves(arguments)
        ]
    bodies: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish is None:
        finish = "tool_calls" if calls else "stop"
    if finish:
        bodies.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        counts = usage or {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        bodies.append({"choices": [], "usage": counts})
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return [{**head, **body} for body in bodies]


def says(**parts: Any) -> Answer:
    """The streamed reply of `events`."""
    return stream(events(**parts))


def refusal(status: int, message: str, **fields: Any) -> Answer:
    """An error as vLLM returns it."""
    return reply({"error": {"message": message, "type": "BadRequestError", "code": status, **fields}}, status)


def _halves(text: str) -> Iterator[str]:
    middle = len(text) // 2
    return filter(None, (text[:middle], text[middle:]))


class RunPython(Protocol):
    """Runs MassGen's Python to its end, and returns the output."""

    def __call__(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]: ...


class FakeVLLM:
    """A vLLM server that returns queued responses to chats, and always lists its models.

    Attributes:
        server: The server; `with fake.server:` starts it.
        max_model_len: The context size that it reports.
        models: The models that it lists, instead of one with that size.
    """

    def __init__(self, *, max_model_len: int = 40960) -> None:
        self.server = ScriptedServer()
        self.server.always(self._answer)
        self.max_model_len = max_model_len
        self.models: list[dict[str, Any]] | None = None
        self._answers: deque[Answerer] = deque()
        self._always: Answerer | None = None

    def next(self, *answers: Answerer) -> None:
        """Queues responses to chats."""
        self._answers.extend(answers)

    def always(self, answer: Answerer) -> None:
        """Sets the response to all chats that find the queue empty."""
        self._always = answer

    @property
    def base_url(self) -> str:
        """The `base_url` for clients."""
        return self.server.base_url

    @property
    def chats(self) -> list[Request]:
        """The chat requests so far."""
        return [request for request in self.server.requests if request.path == "/v1/chat/completions"]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Their bodies."""
        return [request.json() for request in self.chats]

    def _answer(self, request: Request) -> Answer:
        if request.path == "/v1/models":
            # This server serves whatever model a test requests.
            served = [{"id": "served", "max_model_len": self.max_model_len}]
            return reply({"object": "list", "data": self.models or served})
        answer = self._answers.popleft() if self._answers else self._always
        assert answer is not None, f"no answer was queued for {request.target}"
        return answer if isinstance(answer, Answer) else answer(request)


def recorder(base_url: str, *, first: Callable[[dict[str, Any]], bool] | None = None) -> ScriptedServer:
    """A server that forwards each request to another one and records it (`requests`).

    The other server's response is returned as it arrives; when the client closes, so does the recorder.

    Args:
        base_url: The other server.
        first: Decides by the body of a chat whether it must be answered before all others, which wait.
            The tiny model always votes for the agent whose name MassGen sorts first, so that one has to answer first
            for every vote to be valid.
    """
    target = urllib.parse.urlsplit(base_url)
    gate = Gate()
    if first is None:
        gate.release()

    def pass_on(request: Request) -> Answer:
        opens = first is not None and request.body != b"" and first(request.json())

        def step(connection: Connection) -> None:
            assert target.hostname is not None
            dropped = ("host", "connection", "content-length", "transfer-encoding")
            lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {target.netloc}"]
            lines += [
                f"{name}: {value}" for name, value in request.raw_headers if name.lower() not in dropped
            ]
            lines += [f"Content-Length: {len(request.body)}", "Connection: close"]
            try:
                with contextlib.closing(
                    socket.create_connection((target.hostname, target.port or 80))
                ) as upstream:
                    upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body)
                    connection.relay(upstream)
                connection.close()
            finally:
                if opens:  # A client may close as soon as it has read the end.
                    gate.release()

        return script(step) if opens or request.body == b"" else script(gate, step)

    server = ScriptedServer(patience=60)
    server.always(pass_on)
    return server


async def collected(chunks: AsyncGenerator[StreamChunk]) -> list[StreamChunk]:
    """All chunks of a stream."""
    return [chunk async for chunk in chunks]


def kinds(chunks: list[StreamChunk]) -> list[str]:
    """Their types, without repetitions."""
    return [kind for kind, _ in itertools.groupby(str(chunk.type) for chunk in chunks)]


def only(chunks: list[StreamChunk], kind: str) -> StreamChunk:
    """The one chunk of a type."""
    (found,) = [chunk for chunk in chunks if chunk.type == kind]
    return found


def plays_along(request: Request) -> Answer:
    """The responses of an OpenAI-compatible stand-in to a MassGen agent.

    It submits an answer while there is none, then votes for the first one, and presents the answer that won.
    """
    body: dict[str, Any] = request.json()
    tools: list[dict[str, Any]] = body.get("tools", [])
    names = [tool["function"]["name"] for tool in tools]
    asked = str([message for message in body["messages"] if message["role"] == "user"])
    if "vote" in names and "(no answers available yet)" not in asked:
        (vote,) = [tool["function"] for tool in tools if tool["function"]["name"] == "vote"]
        first = vote["parameters"]["properties"]["agent_id"]["enum"][0]
        return says(calls=[("vote", json.dumps({"agent_id": first, "reason": "It is right."}))])
    if "vote" in names:
        return says(calls=[("new_answer", json.dumps({"content": "Six times seven is 42."}))])
    return says(text="Six times seven is 42.")
