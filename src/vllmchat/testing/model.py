"""A model that is not there: answers requests by a script, with the routes and the bodies of a vLLM server.

It does no IO. `FakeServer` puts it on a socket, `ScriptedProvider` behind a provider.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from pydantic_core import to_json

from vllmchat.chat.completion import ChatCompletion
from vllmchat.checking.secrets import hide
from vllmchat.testing.call import Call, call_of
from vllmchat.testing.chat import chat_response, prompt_of
from vllmchat.testing.completion import completion_response
from vllmchat.testing.delivery import Delivery
from vllmchat.testing.errors import ErrorReply, context_error, error
from vllmchat.testing.exchange import Request, Response
from vllmchat.testing.generated import Origin
from vllmchat.testing.replies import Reply, replies_of
from vllmchat.testing.script import Answer, Script, ScriptError, choices_of
from vllmchat.testing.tokens import Vocabulary, split

if TYPE_CHECKING:
    from vllmchat.testing.generated import Count

RouteAnswer: TypeAlias = (
    "Response | ErrorReply | Delivery | Mapping[str, object] | Sequence[object] | str | bytes | RouteFunction"
)
"""What answers a route: a mapping or list is sent as JSON, a `str` as text, bytes unchanged."""

RouteFunction: TypeAlias = Callable[[Request], "RouteAnswer"]
"""A function that answers the requests of a route."""

NEWEST: Final = "0.33.0"
"""The version of vLLM that doubles report by default."""

CHATS: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"

_TEXT: Final = "text/plain; version=1.0.0; charset=utf-8"


class FakeModel:
    """A vLLM server without a network.

    Args:
        script: What it answers to chats and completions.
        model: The names under which it serves its one model, the first one first.
        any_model: Whether it accepts any name of a model.
        version: The version that it reports.
        api_key: The key that it requires below `/v1`, or None.
        max_model_len: The length of its context, in tokens.
        dimensions: The length of its embeddings.
        chunk: Characters per streamed piece; None for a word or a punctuation mark.

    Attributes:
        calls: The calls for generated text so far.
        running: How many responses are being sent.
    """

    def __init__(
        self,
        script: Script,
        *,
        model: Sequence[str],
        any_model: bool,
        version: str,
        api_key: str | None = None,
        max_model_len: int = 32_768,
        dimensions: int = 16,
        chunk: int | None = None,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        if not model:
            raise ValueError("model must name at least one model")
        self.script = script
        self.names = list(model)
        self.version = version
        self.calls: list[Call] = []
        self.running = 0
        self._any_model = any_model
        self._api_key = hide(api_key)
        self._max_model_len = max_model_len
        self._dimensions = dimensions
        self._chunk = chunk
        self._vocabulary = Vocabulary()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._tokens: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._own: dict[str, RouteAnswer] = {}
        self._routes: dict[str, dict[str, Callable[[Request], Response]]] = {
            CHATS: {"POST": self._generate},
            COMPLETIONS: {"POST": self._generate},
            "/v1/embeddings": {"POST": self._embeddings},
            "/v1/models": {"GET": self._models},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/health": {"GET": lambda _: Response()},
            "/ping": {"GET": lambda _: Response(), "POST": lambda _: Response()},
            "/version": {"GET": lambda _: Response(to_json({"version": self.version}))},
            "/load": {"GET": lambda _: Response(to_json({"server_load": self.running}))},
            "/metrics": {"GET": self._metrics},
        }

    def on(self, path: str, answer: RouteAnswer) -> None:
        """Answers all requests of a path so, whatever their method."""
        if not path.startswith("/"):
            raise ValueError(f"path must begin with a slash, not {path!r}")
        self._own[path] = answer

    def handle(self, request: Request) -> Response:
        """The response to a request.

        Raises:
            Exception: One that the script has for this call, or a `ScriptError`.
        """
        path = request.path
        if path in self._own:
            return self._answered(request, self._own[path])
        if self._api_key is not None and path.startswith("/v1") and not self._is_allowed(request):
            return Response(to_json({"error": "Unauthorized"}), 401)
        methods = self._routes.get(path)
        if methods is None:
            return Response(to_json({"detail": "Not Found"}), 404)
        route = methods.get(request.method)
        if route is None:
            headers = {"allow": ", ".join(methods)}
            return Response(to_json({"detail": "Method Not Allowed"}), 405, headers)
        try:
            return route(request)
        except _WrongError as wrong:
            return wrong.reply.response()

    def _is_allowed(self, request: Request) -> bool:
        return request.headers.get("authorization", "") == f"Bearer {self._api_key}"

    def _answered(self, request: Request, answer: RouteAnswer) -> Response:
        """The response for what `on` was given."""
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, ErrorReply):
            return answer.response()
        if isinstance(answer, Delivery):
            return answer.change(self._answered(request, cast("RouteAnswer", answer.answer)))
        if isinstance(answer, str):
            return Response(answer.encode(), headers={"content-type": "text/plain; charset=utf-8"})
        if isinstance(answer, bytes):
            return Response(answer, headers={"content-type": "application/octet-stream"})
        if callable(answer):
            return self._answered(request, answer(request))
        return Response(to_json(answer))

    # Generated text

    def _generate(self, request: Request) -> Response:
        call = call_of(_body(request))
        self._check(request, call)
        self.calls.append(call)
        number = next(self._numbers)
        return self._response(request, call, self.script.take(call), number)

    def _response(self, request: Request, call: Call, answer: Answer, number: int) -> Response:
        if isinstance(answer, Delivery):
            return answer.change(self._response(request, call, cast("Answer", answer.answer), number))
        if isinstance(answer, ErrorReply):
            return answer.response()
        if isinstance(answer, Exception):
            raise answer
        given = replies_of(answer) if isinstance(answer, ChatCompletion) else choices_of(answer)
        wanted = call.n
        if isinstance(call.prompt, list) and call.prompt and not isinstance(call.prompt[0], int):
            wanted *= len(call.prompt)
        choices = given * wanted if len(given) == 1 else given
        if len(choices) != wanted:
            raise ScriptError(f"the call asks for {wanted} choices, and its answer has {len(choices)}")
        chat = request.path == CHATS
        prompt = prompt_of(call.messages) if chat else _prompt_text(call.prompt)
        name = request.headers.get("x-request-id") or f"{number:016x}"
        origin = Origin(
            f"{'chatcmpl' if chat else 'cmpl'}-{name}",
            call.model or self.names[0],
            int(time.time()),
            prompt,
            self._vocabulary,
            self._chunk,
        )
        respond = chat_response if chat else completion_response
        response, counts = respond(call, origin, choices)
        self._note(choices, counts)
        return response

    def _note(self, choices: Sequence[Reply], counts: Sequence[Count]) -> None:
        with self._lock:
            self._tokens["prompt"] += counts[0].prompt
            for choice, each in zip(choices, counts, strict=True):
                self._tokens["generation"] += each.generated
                reason = choice.finish_reason or "stop"
                self._finished["stop" if reason == "tool_calls" else reason] += 1

    def _check(self, request: Request, call: Call) -> None:
        """What a server rejects whatever its model is.

        Raises:
            _WrongError: Something is wrong.
        """
        self._check_model(call.model)
        params = call.params
        temperature = params.get("temperature")
        if isinstance(temperature, int | float) and temperature < 0:
            shown = float(temperature)
            raise _WrongError(
                error(
                    400,
                    f"temperature must be non-negative, got {shown}. (parameter=temperature, value={shown})",
                    param="temperature",
                )
            )
        most = self._max_model_len
        limit = params.get("max_completion_tokens", params.get("max_tokens"))
        if isinstance(limit, int) and limit > most:
            raise _WrongError(
                error(
                    400,
                    f"max_tokens={limit} cannot be greater than max_model_len={most}. Please request fewer output "
                    f"tokens. (parameter=max_tokens, value={limit})",
                    param="max_tokens",
                )
            )
        if request.path == CHATS and not call.messages:
            raise _WrongError(
                error(
                    400, "Cannot apply chat template to an empty conversation. Provide at least one message."
                )
            )
        prompt = prompt_of(call.messages) if request.path == CHATS else _prompt_text(call.prompt)
        if len(prompt) > most and (tokens := len(split(prompt))) > most:
            raise _WrongError(context_error(most, tokens))

    def _check_model(self, name: object) -> None:
        if name and name not in self.names and not self._any_model:
            raise _WrongError(
                error(
                    404,
                    f"The model `{name}` does not exist. Valid aliases: {', '.join(self.names)}.",
                    param="model",
                )
            )

    # Everything else

    def _models(self, request: Request) -> Response:
        created = int(time.time())
        permission = {
            "id": "modelperm-fake",
            "object": "model_permission",
            "created": created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        cards = [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "vllm",
                "root": self.names[0],
                "parent": None,
                "max_model_len": self._max_model_len,
                "permission": [permission],
            }
            for name in self.names
        ]
        return Response(to_json({"object": "list", "data": cards}))

    def _tokenize(self, request: Request) -> Response:
        body = _body(request)
        self._check_model(body.get("model"))
        messages = body.get("messages")
        if isinstance(messages, list):
            text = prompt_of(cast("list[object]", messages))
        else:
            text = _prompt_text(body.get("prompt"))
        tokens = self._vocabulary.encode(text)
        return Response(
            to_json(
                {
                    "count": len(tokens),
                    "max_model_len": self._max_model_len,
                    "tokens": tokens,
                    "token_strs": split(text) if body.get("return_token_strs") else None,
                }
            )
        )

    def _detokenize(self, request: Request) -> Response:
        body = _body(request)
        self._check_model(body.get("model"))
        tokens = cast("list[int]", body.get("tokens") or [])
        return Response(to_json({"prompt": self._vocabulary.decode(tokens)}))

    def _embeddings(self, request: Request) -> Response:
        body = _body(request)
        self._check_model(body.get("model"))
        length = body.get("dimensions")
        dimensions = length if isinstance(length, int) else self._dimensions
        given = body.get("input")
        several = cast("list[object]", given) if isinstance(given, list) else []
        if several and not isinstance(several[0], int):
            texts = [_prompt_text(each) for each in several]
        elif given is None:
            texts = [prompt_of(cast("list[object]", body.get("messages") or []))]
        else:
            texts = [_prompt_text(body.get("input"))]
        packed = body.get("encoding_format") == "base64"
        if body.get("encoding_format") not in (None, "float", "base64"):
            raise _WrongError(error(400, "the fake server sends embeddings as float or base64 only"))
        vectors = [embedding_of(text, dimensions) for text in texts]
        tokens = sum(len(split(text)) for text in texts)
        return Response(
            to_json(
                {
                    "id": f"embd-{next(self._numbers):016x}",
                    "object": "list",
                    "created": int(time.time()),
                    "model": str(body.get("model") or self.names[0]),
                    "data": [
                        {
                            "index": index,
                            "object": "embedding",
                            "embedding": _packed(vector) if packed else vector,
                        }
                        for index, vector in enumerate(vectors)
                    ],
                    "usage": {
                        "prompt_tokens": tokens,
                        "total_tokens": tokens,
                        "completion_tokens": 0,
                        "prompt_tokens_details": None,
                        "completion_tokens_details": None,
                    },
                }
            )
        )

    def _metrics(self, request: Request) -> Response:
        model = f'model_name="{self.names[0]}"'
        labels = f'engine="0",{model}'
        finished = [
            f'vllm:request_success_total{{engine="0",finished_reason="{reason}",{model}}} {number}.0'
            for reason, number in sorted(self._finished.items())
        ]
        families = [
            ("num_requests_running", "gauge", "Number of requests in model execution batches."),
            ("num_requests_waiting", "gauge", "Number of requests waiting to be processed."),
            ("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage."),
            ("prompt_tokens_total", "counter", "Number of prefill tokens processed."),
            ("generation_tokens_total", "counter", "Number of generation tokens processed."),
            ("request_success_total", "counter", "Count of successfully processed requests."),
        ]
        values = {
            "num_requests_running": float(self.running),
            "num_requests_waiting": 0.0,
            "kv_cache_usage_perc": 0.0,
            "prompt_tokens_total": float(self._tokens["prompt"]),
            "generation_tokens_total": float(self._tokens["generation"]),
        }
        lines: list[str] = []
        for name, kind, text in families:
            lines += [f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}"]
            lines += [f"vllm:{name}{{{labels}}} {values[name]}"] if name in values else finished
        return Response("\n".join([*lines, ""]).encode(), headers={"content-type": _TEXT})


def _body(request: Request) -> dict[str, object]:
    """The body of a request.

    Raises:
        _WrongError: It is not a JSON object.
    """
    try:
        return request.json
    except json.JSONDecodeError as wrong:
        where, kind = f"body.{wrong.pos}", "json_invalid"
        found = f"'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {{'error': '{wrong.msg}'}}"
    except ValueError:
        where, kind, found = "body", "model_attributes_type", "'msg': 'Input should be a valid dictionary'"
    message = f"1 validation error:\n  {{'type': '{kind}', 'loc': '{where}', {found}}}"
    raise _WrongError(error(400, message, type="Bad Request", param=where))


class _WrongError(Exception):
    """The server rejects the request."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message)
        self.reply = reply


def _prompt_text(prompt: object) -> str:
    if isinstance(prompt, str):
        return prompt
    return to_json(prompt).decode() if prompt is not None else ""


def embedding_of(text: str, dimensions: int) -> list[float]:
    """A vector of length 1 that depends only on the text."""
    numbers = random.Random(text)
    raw = [numbers.gauss(0, 1) for _ in range(dimensions)]
    length = math.sqrt(sum(each * each for each in raw)) or 1.0
    return [each / length for each in raw]


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
