"""The routes of a batch: which method sends a body, and how a reply is written."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from vllmchat.checking.describe import format_value
from vllmchat.client.base import ProviderBase
from vllmchat.client.defaults import merge
from vllmchat.errors import APIStatusError, InvalidRequestError, StructuredOutputError, VLLMChatError
from vllmchat.jobs.map import in_threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from vllmchat.structured.output_type import Parsed

CHAT: Final = "/v1/chat/completions"

_Arguments: TypeAlias = "tuple[tuple[str, ...], ...]"

_ROUTES: Final[Mapping[str, tuple[str, _Arguments]]] = {
    CHAT: ("achat", (("messages",),)),
    "/v1/completions": ("acomplete", (("prompt",),)),
    "/v1/responses": ("arespond", (("input",),)),
    "/v1/embeddings": ("aembed", (("input", "messages"),)),
    "/score": ("ascore", (("data_1", "text_1", "queries"), ("data_2", "text_2", "documents"))),
    "/rerank": ("arerank", (("query",), ("documents",))),
}
"""By route, the method and its arguments, each with the names that it has in bodies of different versions."""

_ALIASES: Final = {"/v1/score": "/score", "/v1/rerank": "/rerank", "/v2/rerank": "/rerank"}

SUBJECTS: Final[Mapping[str, str | None]] = {
    CHAT: "messages",
    "/v1/completions": "prompt",
    "/v1/responses": "input",
    "/v1/embeddings": "input",
    "/score": None,
    "/rerank": None,
    **dict.fromkeys(_ALIASES),
}
"""By route, the field that a text goes to; None if it needs more than one."""


class Sender:
    """Sends bodies with the methods of a provider. Each route is looked up once.

    Args:
        provider: The provider.
        defaults: The model and the parameters that a body need not have.
        kind: The type that the replies of chats must be of, or None.
    """

    def __init__(self, provider: object, defaults: Mapping[str, object], kind: object = None) -> None:
        self._provider = provider
        self._defaults = defaults
        self._kind = kind
        self._routes: dict[str, tuple[Callable[..., Awaitable[object]], _Arguments]] = {}

    def send(self, url: str, body: Mapping[str, object]) -> Awaitable[object]:
        """Sends a body.

        Args:
            url: The route.
            body: The body.

        Raises:
            InvalidRequestError: The route is unknown, or the body lacks something.
        """
        found = self._routes.get(url)
        if found is None:
            found = self._routes[url] = self._find(url)
        method, arguments = found
        params = merge(self._defaults, body)
        if params.pop("stream", None):
            raise InvalidRequestError("stream=True: a batch has no streams. Leave it out.")
        subjects: list[object] = []
        for names in arguments:
            for given in names:
                if given in params:
                    subjects.append(params.pop(given))
                    break
            else:
                raise InvalidRequestError(f"{names[0]}: is required for {url}.")
        return method(*subjects, **params)

    def _find(self, url: str) -> tuple[Callable[..., Awaitable[object]], _Arguments]:
        """Returns the method of a route, and the names of its arguments."""
        route = _ROUTES.get(_ALIASES.get(url, url))
        if route is None:
            raise InvalidRequestError(
                f"url={format_value(url)}: must be one of {', '.join((*_ROUTES, *_ALIASES))}."
            )
        name, arguments = route
        kind, provider = self._kind, self._provider
        if kind is not None:
            if name != "achat":
                raise InvalidRequestError(f"url={format_value(url)}: with kind, it must be {CHAT}.")
            name = "aparse"
        method = cast("Callable[..., Awaitable[object]] | None", getattr(provider, name, None))
        if method is None and (sync := getattr(provider, name[1:], None)) is not None:
            method = in_threads(cast("Callable[..., object]", sync))
        if method is None:
            raise InvalidRequestError(f"url={format_value(url)}: a {type(provider).__name__} has no {name}.")
        if kind is None:
            return method, arguments
        parse = method

        async def completion(messages: object, **params: object) -> object:
            parsed = cast("Parsed[object]", await parse(messages, kind, **params))
            return parsed.completion

        return completion, arguments


def _not_sent(_request: object, _model: object) -> None:
    """Takes the place of what sends a request."""


def check_params(provider: object, url: str, params: Mapping[str, object], kind: object = None) -> None:
    """Checks the parameters of a job before anything is read.

    Args:
        provider: The provider. One that is not of this library is not asked.
        url: The route.
        params: The parameters.
        kind: The type that the replies of chats must be of, or None.

    Raises:
        InvalidRequestError: A parameter is wrong.
    """
    if kind is not None and url != CHAT:
        raise InvalidRequestError(f"kind: replies of {url} have no type. Leave it out.")
    if kind is not None and not hasattr(provider, "aparse") and not hasattr(provider, "parse"):
        raise InvalidRequestError(f"kind: a {type(provider).__name__} has no parse.")
    if not isinstance(provider, ProviderBase):
        return
    if url == CHAT:
        given = params if kind is None else {"kind": kind, **params}
        cast("Any", provider).map((), **given)
        return
    name, arguments = _ROUTES[_ALIASES.get(url, url)]
    # A copy of the provider that makes the request and does not send it.
    copy: Any = provider.with_options()
    copy._run = _not_sent
    subjects = [["Hello"] if names == ("documents",) else "Hello" for names in arguments]
    method = getattr(copy, name.removeprefix("a"), None)
    if method is None:
        raise InvalidRequestError(f"url={format_value(url)}: a {type(provider).__name__} has no {name}.")
    method(*subjects, **params)


# What is written. The format is that of `vllm run-batch`.


def line_of(custom_id: str, value: object) -> bytes:
    """Returns the line for a reply."""
    reply: Any = value
    body: str = reply.model_dump_json(exclude_unset=True)
    # What `json.dumps` calls in the end, at a tenth of its cost.
    request_id = encode_basestring_ascii(str(getattr(reply, "id", "") or ""))
    key = encode_basestring_ascii(custom_id)
    return (
        f'{{"id":{request_id},"custom_id":{key},"response":{{"status_code":200,"request_id":{request_id},'
        f'"body":{body}}},"error":null}}\n'
    ).encode()


def error_line_of(custom_id: str, error: Exception) -> bytes:
    """Returns the line for an error."""
    response: dict[str, object] | None = None
    code: object = 400 if isinstance(error, InvalidRequestError) else None
    request_id = str(getattr(error, "request_id", None) or "")
    if isinstance(error, StructuredOutputError):
        # There is a reply, and what is wrong with it can be seen there.
        code, request_id = 200, error.completion.id
        body: object = json.loads(error.completion.model_dump_json(exclude_unset=True))
        response = {"status_code": code, "request_id": request_id, "body": body}
    if isinstance(error, APIStatusError):
        code = error.status_code
        response = {"status_code": code, "request_id": request_id, "body": None}
    message = error.message if isinstance(error, VLLMChatError) else str(error)
    entry = {
        "id": request_id,
        "custom_id": custom_id,
        "response": response,
        "error": {
            "error": {
                "message": message,
                "type": type(error).__name__,
                "param": getattr(error, "param", None),
                "code": code,
            }
        },
    }
    return (json.dumps(entry, separators=(",", ":")) + "\n").encode("utf-8", "backslashreplace")
