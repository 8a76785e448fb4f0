"""Errors of the server for a script, in vLLM's form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

from vllmchat.testing.exchange import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.errors import APIStatusError

_TYPES: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
}

_MESSAGES: Final = {
    401: "Unauthorized",
    404: "Not Found",
    429: "Too many requests.",
    500: "The engine failed.",
    503: "The server is overloaded. Try again later.",
}


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error instead of a reply. `error` makes one.

    Attributes:
        status: HTTP status.
        message: The message.
        type: The `type` in the body.
        param: The parameter that the server blames.
        headers: Additional headers.
    """

    status: int
    message: str
    type: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def response(self) -> Response:
        """The error as the server sends it."""
        details = {"message": self.message, "type": self.type, "param": self.param, "code": self.status}
        return Response(to_json({"error": details}), self.status, self.headers)

    def event(self) -> bytes:
        """The error as the server sends it inside a stream."""
        details = {"message": self.message, "type": self.type, "param": self.param, "code": self.status}
        return b"data: " + to_json({"error": details}) + b"\n\n"


def error(
    status: int,
    message: str | None = None,
    *,
    type: str | None = None,  # noqa: A002 - the wire's own name
    param: str | None = None,
    retry_after: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> ErrorReply:
    """Makes an error of the server, in the form that vLLM sends. It arrives as the error class of its status.

    Args:
        status: HTTP status, 400 to 599.
        message: The message. By default one that fits the status.
        type: The `type` in the body, such as `"BadRequestError"`.
        param: The parameter that the server blames.
        retry_after: Seconds that the client should wait, as a `Retry-After` header.
        headers: Additional headers.

    Raises:
        ValueError: The status is not that of an error.
    """
    if not 400 <= status <= 599:
        raise ValueError(f"status must be 400 to 599, not {status}")
    pause = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    text = (
        message if message is not None else _MESSAGES.get(status, f"The request failed with status {status}.")
    )
    kind = type or _TYPES.get(status) or ("BadRequestError" if status < 500 else "InternalServerError")
    return ErrorReply(status, text, kind, param, {**pause, **(headers or {})})


def error_of(exception: APIStatusError) -> ErrorReply:
    """The error that arrives as this exception."""
    return error(exception.status_code, exception.message, type=exception.type, param=exception.param)


def context_error(limit: int, tokens: int) -> ErrorReply:
    """The error of vLLM for a prompt that does not fit into the context.

    Args:
        limit: The model's context length, in tokens.
        tokens: The length of the prompt, in tokens.
    """
    return error(
        400,
        f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {tokens} input "
        "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
        f"prompt. (parameter=input_tokens, value={tokens})",
        param="input_tokens",
    )
