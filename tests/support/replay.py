"""Recorded answers, given again by a local server to the methods that they belong to.

Each recording belongs to the method whose request it answers, and the method is called so that it sends that very
request: what the client itself would refuse, or write in another form, goes through `extra_body`. Some belong to
further methods, which send a request of that kind: `parse`, `choose`, `run_tools`, `count_tokens`, `ready`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from typing_extensions import TypedDict

from support import recordings
from support.outcomes import Facts, differing_pieces, facts, failed, unread_fields
from support.questions import told_by
from support.scripted import Answer, Request, ScriptedServer, close, reply, stream
from vllmchat import ChatCompletion, InvalidRequestError, ToolRun, VLLMChatError, VLLMProvider
from vllmchat.versions import STRUCTURED_OUTPUTS
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from support.recordings import Recording
    from support.runners import Runner

Body = dict[str, Any]

STAND_IN: Final = "Hello"
"""What a method is asked with where the recorded request has nothing that it takes; the request's own is sent."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a route's recordings are asked for.

    Attributes:
        method: The method, named without the `a` of its async version.
        stream: The method that streams.
        subject: The fields of the request that are its positional arguments; of those in brackets, the first that
            the request has.
    """

    method: str
    stream: str | None = None
    subject: tuple[str | tuple[str, ...], ...] = ()


ENDPOINTS: Final[dict[str, Endpoint]] = {
    "GET /health": Endpoint("health"),
    "GET /is_paused": Endpoint("is_paused"),
    "GET /is_sleeping": Endpoint("is_sleeping"),
    "GET /load": Endpoint("load"),
    "GET /metrics": Endpoint("metrics"),
    "GET /v1/models": Endpoint("models"),
    "GET /version": Endpoint("version"),
    "POST /abort_requests": Endpoint("abort", subject=("request_ids",)),
    "POST /classify": Endpoint("classify", subject=("input",)),
    "POST /detokenize": Endpoint("detokenize", subject=("tokens",)),
    "POST /inference/v1/generate": Endpoint("generate", "stream_generate", ("token_ids",)),
    "POST /pause": Endpoint("pause"),
    "POST /pooling": Endpoint("pool", subject=("input",)),
    "POST /reset_prefix_cache": Endpoint("reset_prefix_cache"),
    "POST /resume": Endpoint("resume"),
    "POST /tokenize": Endpoint("tokenize", subject=(("prompt", "messages"),)),
    "POST /v1/audio/transcriptions": Endpoint("transcribe", subject=("file",)),
    "POST /v1/chat/completions": Endpoint("chat", "stream", ("messages",)),
    "POST /v1/chat/completions/batch": Endpoint("chat_batch", subject=("messages",)),
    "POST /v1/chat/completions/render": Endpoint("render", subject=("messages",)),
    "POST /v1/completions": Endpoint("complete", "stream_complete", ("prompt",)),
    "POST /v1/completions/render": Endpoint("render_completion", subject=("prompt",)),
    "POST /v1/decisions": Endpoint("decide", subject=("input", "questions")),
    "POST /v1/embeddings": Endpoint("embed", subject=(("input", "messages"),)),
    "POST /v1/load_lora_adapter": Endpoint("load_lora", subject=("lora_name", "lora_path")),
    "POST /v1/rerank": Endpoint("rerank", subject=("query", "documents")),
    "POST /v1/responses": Endpoint("respond", "stream_respond", ("input",)),
    "POST /v1/score": Endpoint("score", subject=("text_1", "text_2")),
}

TOKENS: Final = "POST /v1/embeddings of tokens"
"""The route of embeddings on a server that embeds each token."""

EVERY: Final = {**ENDPOINTS, TOKENS: Endpoint("embed_tokens", subject=("input",))}
"""The same with the routes that answer differently on another server."""

SAME: Final[dict[str, str]] = {
    "GET /ping": "GET /health",
    "GET /v1/chat/completions": "GET /v1/models",  # 405: what any GET below /v1 may meet
    "GET /v1/nothing": "GET /v1/models",  # 404, the same
    "POST /rerank": "POST /v1/rerank",
    "POST /score": "POST /v1/score",
}
"""Recordings of routes that no method sends to, answered to the method of another."""

NO_METHOD: Final[dict[str, str]] = {
    "GET /server_info": "a dump of the server's configuration for bug reports, without a fixed form",
    "GET /tokenizer_info": "the tokenizer's configuration, without a fixed form",
    "POST /v1/messages": "Anthropic's protocol: its own client speaks it",
}
"""Routes that no method reads, each with the reason."""

NOT_RECORDED: Final[dict[str, str]] = {
    "abort_all": "it would have ended what other recordings ran",
    "get": "it has no route of its own",
    "max_model_len": "it reads what `models` reads",
    "post": "it has no route of its own",
    "sleep": "no recording needs a server that sleeps",
    "stream_parse": "it reads what `stream` reads",
    "stream_transcribe": "no model that transcribes",
    "stream_translate": "no model that transcribes",
    "translate": "no model that transcribes",
    "unload_lora": "no adapter",
    "wake_up": "no recording needs a server that sleeps",
}
"""Methods that no recording belongs to, each with the reason."""

STREAMED_GENERATION: Final = (0, 20, 0)
"""A version below the first one that was seen to stream what is generated from tokens, 0.22.1."""

OURS: Final = {"stream_options", "encoding_format", "endianness"}
"""What the client may send in addition: it spells out the server's own defaults."""


class User(TypedDict):
    """What the recorded requests for JSON ask for."""

    name: str
    age: int


def get_weather(city: str = "ANYWHERE") -> str:
    """Current weather. A call whose arguments got lost would fit it, too."""
    return f"sunny in {city}"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a method.

    Attributes:
        method: See `Endpoint`.
        arguments: Positional arguments.
        params: Keywords.
        exact: Whether it sends the recorded request.
    """

    method: str
    arguments: tuple[Any, ...] = ()
    params: Body = field(default_factory=dict[str, Any])
    exact: bool = False


def route_of(recording: Recording) -> str | None:
    """The key of `ENDPOINTS`, or None for a route that no method reads.

    Raises:
        AssertionError: No table has the route.
    """
    route = SAME.get(recording.route, recording.route)
    if route == "POST /v1/embeddings" and recording.server.endswith("-token-embed"):
        return TOKENS
    if route in NO_METHOD:
        return None
    assert route in ENDPOINTS, f"{recording.server} {recording.name}: {route} belongs to no method"
    return route


class Replay:
    """A server that was recorded, and a provider that asks it.

    Args:
        server: Which.
        scripted: The local server that answers for it.
        runner: How methods are called.

    Attributes:
        unread: By method, fields of answers that no model has: they are in `model_extra` only.
    """

    def __init__(self, server: str, scripted: ScriptedServer, runner: Runner) -> None:
        self.server = server
        self.runner = runner
        self.scripted = scripted
        self.version = recordings.version_of(server)
        self.llm = VLLMProvider("tiny-qwen3", base_url=scripted.base_url, max_retries=0)
        self.unread: dict[str, set[str]] = {}

    def outcomes(self) -> Iterator[tuple[str, str, Facts]]:
        """What comes out of each recording, by its name and the method."""
        for name in recordings.names(server=self.server):
            recording = recordings.load(name, self.server)
            if (route := route_of(recording)) is None:
                continue
            with self._answering(recording):
                yield name, *self._exact(recording, EVERY[route])
                for label, call in self._further(recording):
                    yield name, label, self._outcome(call)

    @contextlib.contextmanager
    def _answering(self, recording: Recording) -> Generator[None]:
        """The local server answers with this recording, and what else is asked with the recording of that."""
        others = {"GET /version": "version", "GET /v1/models": "models"}
        others.pop(SAME.get(recording.route, recording.route), None)

        def answer(request: Request) -> Answer:
            route = f"{request.method} {request.path}"
            if route in others:
                return answer_of(recordings.load(others[route], self.server))
            if request.method == "POST" and _follows_tools(request):
                # The recordings have no second turn: any answer in words is one.
                name = "stream" if recording.is_stream else "chat"
                return answer_of(recordings.load(name, self.server))
            return answer_of(recording)

        self.scripted.always(answer)
        yield

    # The request that was recorded.

    def _exact(self, recording: Recording, endpoint: Endpoint) -> tuple[str, Facts]:
        body = recording.fields
        streamed = body.get("stream") is True
        method = (endpoint.stream if streamed else None) or endpoint.method
        raw: set[str] = set()
        while True:
            call = self._call(method, endpoint, body, raw)
            try:
                found = self._outcome(call)
            except InvalidRequestError as error:
                wrong = {self._field(problem.parameter, body) for problem in error.problems} - raw
                if not wrong:
                    raise
                raw |= wrong
                continue
            different = self._differences(recording, body)
            if not different:
                return method, found | ({"raw": sorted(raw)} if raw else {})
            # What the client wrote in another form goes when the recorded form is given.
            more = (different & body.keys()) - raw
            assert more, f"{recording.server} {recording.name}: {sorted(different)} cannot be sent"
            raw |= more

    def _call(self, method: str, endpoint: Endpoint, body: Body, raw: set[str]) -> Call:
        params = {name: value for name, value in body.items() if name not in raw and name != "stream"}
        params |= params.pop("sampling_params", {})
        if self.version < STRUCTURED_OUTPUTS:
            # These servers' own form is what the client makes of this one.
            guided = [name for name in params if name.startswith("guided_")]
            if guided:
                params["structured_outputs"] = {
                    name.removeprefix("guided_"): params.pop(name) for name in guided
                }
        if method in ("embed", "pool"):
            params.setdefault("encoding_format", "float")
        arguments: list[Any] = []
        for names in endpoint.subject:
            tried = names if isinstance(names, tuple) else (names,)
            name = next((each for each in tried if each in body), tried[0])
            stand_in: Any = b"RIFF" if name == "file" else STAND_IN
            arguments.append(params.pop(name, stand_in))
        if raw:
            params["extra_body"] = {name: body[name] for name in raw}
        return Call(method, tuple(arguments), params, exact=True)

    def _field(self, parameter: str, body: Body) -> str:
        """The field of a request that a problem with a parameter is about."""
        name = parameter.partition(".")[0].partition("[")[0]
        if name in body:
            return name
        if name == "structured_outputs":
            return next(each for each in body if each.startswith("guided_"))
        # An argument goes by another name than its field, or one that was left out is asked for.
        return next(each for each in body if each not in ("model", "stream"))

    def _differences(self, recording: Recording, body: Body) -> set[str]:
        """The fields that were not sent as they were recorded."""
        request = self.scripted.requests[-1]
        if not body or not request.headers.get("content-type", "").startswith("application/json"):
            return set()
        assert f"{request.method} {request.path}" == SAME.get(recording.route, recording.route)
        sent = request.json()
        return {
            name
            for name in {*sent, *body}
            if sent.get(name) != body.get(name) and not (name in OURS and name not in body)
        }

    # Other methods that send such a request.

    def _further(self, recording: Recording) -> Iterator[tuple[str, Call]]:
        body = recording.fields
        match recording.route:
            case "GET /health":
                yield "ready", Call("ready", (10.0,))
            case "POST /inference/v1/generate" if self.version < STREAMED_GENERATION:
                # These servers ignore that a stream is asked for.
                yield (
                    "stream_generate",
                    Call("stream_generate", (body["token_ids"],), body["sampling_params"]),
                )
            case "POST /tokenize" if "messages" in body:
                params = {name: body[name] for name in ("tools",) if name in body}
                yield "count_tokens", Call("count_tokens", (body["messages"],), params)
            case "POST /v1/chat/completions" if recording.status == 200 and not recording.is_stream:
                yield from self._structured(body)
                if body.get("tools"):
                    yield self._run("run_tools", body)
            case "POST /v1/chat/completions" if recording.status == 200 and body.get("tools"):
                yield self._run("stream_run_tools", body)
            case _:
                pass

    def _structured(self, body: Body) -> Iterator[tuple[str, Call]]:
        constraint: Body = body.get("structured_outputs") or {}
        choices = constraint.get("choice") or body.get("guided_choice")
        formatted: Body = body.get("response_format") or {}
        if choices:
            yield "choose", Call("choose", (body["messages"], choices))
        elif constraint.get("json") or "guided_json" in body or formatted.get("type") == "json_schema":
            yield "parse", Call("parse", (body["messages"], User))
        elif formatted.get("type") == "json_object":
            yield "parse", Call("parse", (body["messages"], dict[str, object]))

    def _run(self, method: str, body: Body) -> tuple[str, Call]:
        params: Body = {"tools": [get_weather], "max_turns": 2}
        if "max_tokens" in body:
            params["max_tokens"] = body["max_tokens"]
        return method, Call(method, (body["messages"],), params)

    # The call.

    def _outcome(self, call: Call) -> Facts:
        try:
            if call.method.startswith("stream"):
                return self._streamed(call)
            result = self.runner.do(self.llm, call.method, *call.arguments, **call.params)
        except InvalidRequestError as error:
            if call.exact:
                raise
            return failed(error, self.scripted.origin)
        except VLLMChatError as error:
            return failed(error, self.scripted.origin)
        self.unread.setdefault(call.method, set()).update(unread_fields(result))
        return facts(result)

    def _streamed(self, call: Call) -> Facts:
        with self.runner.open(self.llm, call.method, *call.arguments, **call.params) as opened:
            items: list[Any] = list(opened)
            result: Any = opened.until_done()
        found = facts(result)
        if not isinstance(result, ToolRun):
            found |= differing_pieces(items, result)
        if isinstance(result, ChatCompletion) and len(result.choices) == 1:
            with self.runner.open(self.llm, call.method, *call.arguments, **call.params) as opened:
                by_events = told_by(opened.events())
            assert facts(by_events.completion) == facts(result), call
            assert by_events.reasoning == (result.message.reasoning or "")
            assert by_events.calls == [(each.id, each.name, each.arguments) for each in result.tool_calls]
        return found


def _follows_tools(request: Request) -> bool:
    """Whether the results of tools stand in a request."""
    if not request.body.startswith(b"{"):
        return False
    messages = cast("list[object]", request.json().get("messages", []))
    return any((as_object(message) or {}).get("role") == "tool" for message in messages)


def answer_of(recording: Recording) -> Answer:
    """The recorded answer, as the server sent it."""
    headers: dict[str, str | None] = {
        name: value
        for name, value in recording.headers.items()
        if name not in ("content-length", "connection")
    }
    if recording.is_stream:
        headers.pop("transfer-encoding", None)
        events = [event + b"\n\n" for event in recording.body.split(b"\n\n") if event]
        return stream(events, recording.status, headers, done=False)
    if recording.length > len(recording.body):
        # Only its start was kept: as if the connection had ended there.
        headers["content-length"] = str(recording.length)
        return reply(recording.body, recording.status, headers, then=[close])
    headers.pop("transfer-encoding", None)
    return reply(recording.body, recording.status, headers)
