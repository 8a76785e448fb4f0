"""Every error this library raises.

    VLLMChatError
    ├── InvalidRequestError (also ValueError)    refused here, nothing was sent
    ├── APIConnectionError                       no connection; the URL, the cause and what to check
    │   └── APITimeoutError                      one of the four limits of `Timeout` passed
    ├── APIStatusError                           the server answered with an error
    │   ├── BadRequestError                      400
    │   │   └── ContextWindowExceededError       400: prompt (and reply) longer than the model's context
    │   ├── AuthenticationError                  401
    │   ├── PermissionDeniedError                403
    │   ├── NotFoundError                        404
    │   ├── ConflictError                        409
    │   ├── UnprocessableEntityError             422
    │   ├── RateLimitError                       429
    │   └── InternalServerError                  5xx
    │       └── ServiceUnavailableError          503
    ├── StreamError                              a stream ended wrongly; `.partial` holds what had arrived
    │   └── StreamInterruptedError               the bytes stopped before the end
    ├── ResponseError                            the answer is not this protocol
    ├── StructuredOutputError                    the reply is not of the type asked for; `.completion` holds it
    └── MaxTurnsError                            the model still calls tools; `.messages` holds the history

Every error pickles, keeps its cause and never holds an API key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.audio.transcription import Transcription
    from vllmchat.chat.completion import ChatCompletion, ChatMessage
    from vllmchat.chat.messages import Message
    from vllmchat.generate.generation import Generation
    from vllmchat.responses.response import ModelResponse
    from vllmchat.text.completion import TextCompletion

    Partial: TypeAlias = ChatCompletion | TextCompletion | Generation | ModelResponse | Transcription
    """What a stream adds up to. All of these have a `text`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request.

    Attributes:
        parameter: Name of the parameter, with its path when nested, such as `structured_outputs.json`.
        value: What was given, as its `repr`, shortened to about 200 characters.
        rule: What the parameter must be, as one sentence.
        suggestion: What to write instead, when that is known.
    """

    parameter: str
    value: str
    rule: str
    suggestion: str | None = None

    def __str__(self) -> str:
        text = (
            f"{self.parameter}={self.value}: {self.rule}" if self.value else f"{self.parameter}: {self.rule}"
        )
        return f"{text} {self.suggestion}" if self.suggestion else text


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The head of the answer an `APIStatusError` was made of.

    Attributes:
        status_code: HTTP status.
        headers: Response headers, names in lower case.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class VLLMChatError(Exception):
    """Base of all errors of this library.

    Attributes:
        message: What went wrong and, where known, what to do.
        partial: What had been generated when the error came, or None when nothing had.
    """

    def __init__(self, message: str, *, partial: Partial | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.partial = partial

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class with `args` alone, which breaks for keyword-only arguments, and would
        # forget the cause.
        return _rebuild, (type(self), self.args, self.__dict__.copy(), _packed(self.__cause__))


def _rebuild(
    cls: type[VLLMChatError], args: tuple[object, ...], state: dict[str, object], cause: bytes | None
) -> VLLMChatError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    if cause is not None:
        error.__cause__ = _unpacked(cause)
    return error


def _packed(cause: BaseException | None) -> bytes | None:
    """The cause's pickle, or None where there is none that can be read again.

    Causes come from other packages: some do not pickle, some only seem to. The error must pickle all the same.
    """
    if cause is None:
        return None
    import pickle  # needed by few, and its import takes time

    try:
        packed = pickle.dumps(cause)
        pickle.loads(packed)
    except Exception:
        return None
    return packed


def _unpacked(cause: bytes) -> BaseException | None:
    import pickle

    try:
        loaded: object = pickle.loads(cause)
    except Exception:
        # The package it comes from is not installed here.
        return None
    return loaded if isinstance(loaded, BaseException) else None


class InvalidRequestError(VLLMChatError, ValueError):
    """The request is wrong and was not sent: an unknown name, a bad value, a contradiction.

    Attributes:
        problems: All that is wrong, in the order of the parameters given.
    """

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            self.problems: tuple[Problem, ...] = ()
            message = problems
        else:
            self.problems = tuple(problems)
            if len(self.problems) == 1:
                message = str(self.problems[0])
            else:
                lines = "".join(f"\n  - {problem}" for problem in self.problems)
                message = f"{len(self.problems)} problems in this request:{lines}"
        super().__init__(message)


class APIConnectionError(VLLMChatError):
    """No answer came: no connection, or it broke.

    Attributes:
        url: Where the request went, without user info and query.
        request_id: The `X-Request-Id` that was sent, if any.
    """

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        request_id: str | None = None,
        partial: Partial | None = None,
    ) -> None:
        super().__init__(message, partial=partial)
        self.url = url
        self.request_id = request_id


class APITimeoutError(APIConnectionError):
    """One of the limits of `Timeout` passed.

    Attributes:
        limit: Which one: `"connect"`, `"first_token"`, `"idle"` or `"total"`.
        seconds: Its value, in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        seconds: float,
        url: str = "",
        request_id: str | None = None,
        partial: Partial | None = None,
    ) -> None:
        super().__init__(message, url=url, request_id=request_id, partial=partial)
        self.limit = limit
        self.seconds = seconds


class APIStatusError(VLLMChatError):
    """The server answered with an error, as an HTTP status or inside a stream.

    Attributes:
        status_code: HTTP status, or the code of the error inside the stream.
        code: The body's own `code`, when it has one.
        type: The body's `type`, such as `"BadRequestError"`. vLLM names the same error differently from
            place to place: decide by class or status, never by this.
        param: The parameter the server blames, when it says.
        body: The decoded JSON body, or the text when it is not JSON, or None when it is empty.
        request_id: The `X-Request-Id` of the answer, else the one that was sent.
        response: Status and headers of the answer.
    """

    status: ClassVar[int | None] = None

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: int | str | None = None,
        type: str | None = None,  # noqa: A002 - the wire's own name
        param: str | None = None,
        body: object = None,
        request_id: str | None = None,
        response: ErrorResponse | None = None,
        partial: Partial | None = None,
    ) -> None:
        super().__init__(message, partial=partial)
        self.status_code = status_code
        self.code = code
        self.type = type
        self.param = param
        self.body = body
        self.request_id = request_id
        self.response = response if response is not None else ErrorResponse(status_code)


class BadRequestError(APIStatusError):
    """400: the server refused the request."""

    status = 400


class ContextWindowExceededError(BadRequestError):
    """400: the prompt, or the prompt and the reply asked for, do not fit the model's context."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing or wrong."""

    status = 401


class PermissionDeniedError(APIStatusError):
    """403: not allowed, or a route that the server was started without."""

    status = 403


class NotFoundError(APIStatusError):
    """404: no such model or no such route."""

    status = 404


class ConflictError(APIStatusError):
    """409: another operation is under way that does not go together with this one."""

    status = 409


class UnprocessableEntityError(APIStatusError):
    """422: a media URL could not be fetched, or an upload could not be read."""

    status = 422


class RateLimitError(APIStatusError):
    """429: too many requests; from a proxy in front of the server."""

    status = 429


class InternalServerError(APIStatusError):
    """5xx: the server failed."""


class ServiceUnavailableError(InternalServerError):
    """503: the server is full, scaling or shutting down; a later try may work."""

    status = 503


class StreamError(VLLMChatError):
    """A stream did not end as it must; `partial` holds what had arrived.

    Attributes:
        request_id: The `X-Request-Id` of the answer, else the one that was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        partial: Partial | None = None,
    ) -> None:
        super().__init__(message, partial=partial)
        self.request_id = request_id


class StreamInterruptedError(StreamError):
    """The bytes stopped before the end of the answer was proven."""


class ResponseError(VLLMChatError):
    """The server answered with something that is not this protocol.

    Attributes:
        status_code: HTTP status of the answer.
        body: The first bytes of the body as text, at most 2,000 characters.
        request_id: The `X-Request-Id` of the answer, else the one that was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        body: str | None = None,
        request_id: str | None = None,
        partial: Partial | None = None,
    ) -> None:
        super().__init__(message, partial=partial)
        self.status_code = status_code
        self.body = body
        self.request_id = request_id


class StructuredOutputError(VLLMChatError):
    """The reply is not the value that was asked for, though the server answered well.

    Where it does not match, `__cause__` is pydantic's `ValidationError`.

    Attributes:
        reason: `"cut"` when generation ended too early, `"refused"` when the model declined, `"mismatch"` when
            the text does not make the value.
        completion: The reply.
    """

    def __init__(
        self, message: str, *, reason: Literal["cut", "refused", "mismatch"], completion: ChatCompletion
    ) -> None:
        super().__init__(message, partial=completion)
        self.reason = reason
        self.completion = completion


class MaxTurnsError(VLLMChatError):
    """A run with tools came to no answer: after the last turn that it may take, the model still calls tools.

    Attributes:
        max_turns: How many turns it may take.
        messages: The whole history. The calls of its last message have not been executed; a run that is given this
            history begins with them.
        completions: The replies, one a turn.
    """

    def __init__(
        self,
        message: str,
        *,
        max_turns: int,
        messages: Sequence[Message | ChatMessage],
        completions: Sequence[ChatCompletion],
    ) -> None:
        super().__init__(message, partial=completions[-1] if completions else None)
        self.max_turns = max_turns
        self.messages = list(messages)
        self.completions = tuple(completions)
