"""Every error this library raises.

    VLLMChatError
    ├── InvalidRequestError (also ValueError)    rejected before anything was sent
    ├── APIConnectionError                       no connection; the URL, the cause and what to check
    │   └── APITimeoutError                      one of the four timeouts of `Timeout` expired
    ├── APIStatusError                           the server returned an error
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
    ├── StreamError                              a stream did not end properly; `.partial` holds what had arrived
    │   └── StreamInterruptedError               the bytes stopped before the end
    ├── ResponseError                            the response does not follow the protocol
    ├── StructuredOutputError                    the reply does not match the requested type; `.completion` holds it
    ├── MaxTurnsError                            `max_turns` was reached and the model still calls tools; `.messages`
    │                                            holds the history
    ├── JobStoppedError                          a job over many inputs stopped before its end; holds what is done
    └── RecordedError                            an error that read_results has read from a file

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
    from vllmchat.completions.completion import TextCompletion
    from vllmchat.generate.generation import Generation
    from vllmchat.jobs.result import Result
    from vllmchat.responses.response import ModelResponse

    Partial: TypeAlias = ChatCompletion | TextCompletion | Generation | ModelResponse | Transcription
    """What a stream adds up to. All of these have a `text`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with a request.

    Attributes:
        parameter: The parameter's name, or its path if nested, such as `structured_outputs.json`.
        value: The given value's `repr`, shortened to about 200 characters.
        rule: What the parameter must be, as one sentence.
        suggestion: What to write instead, if known.
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
    """Status and headers of the response behind an `APIStatusError`.

    Attributes:
        status_code: HTTP status.
        headers: Response headers, with lowercase names.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class VLLMChatError(Exception):
    """Base of all errors of this library.

    Attributes:
        message: What went wrong and, if known, what to do about it.
        partial: What had been generated before the error, or None.
        messages: If a run with tools failed, its history so far, to continue from; else empty.
    """

    def __init__(self, message: str, *, partial: Partial | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.partial = partial
        self.messages: list[Message | ChatMessage] = []

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with `args` alone, which breaks keyword-only arguments and loses the cause.
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
    """The pickled cause, or None if it cannot be pickled and read back.

    Causes come from other packages: some do not pickle, some only appear to. The error itself must always pickle.
    """
    if cause is None:
        return None
    import pickle  # slow to import and rarely needed

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
        # Its package is not installed here.
        return None
    return loaded if isinstance(loaded, BaseException) else None


class InvalidRequestError(VLLMChatError, ValueError):
    """The request is invalid and was not sent: an unknown name, a bad value, a contradiction.

    Attributes:
        problems: Every problem found, in the order of the given parameters.
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
    """No response arrived: the connection failed or broke.

    Attributes:
        url: The URL of the request, without credentials and query.
        request_id: The `X-Request-Id` that was sent, if any.
        kind: What failed: `"refused"`, `"unreachable"`, `"connect_timeout"` and `"stale"` if the request cannot have
            been read; `"broken"` or `"timeout"` if it may have been; `"tls"`, `"proxy"` or `"unusable"` if a setting
            is wrong. None if it is not known.
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
        self.kind: str | None = None


class APITimeoutError(APIConnectionError):
    """One of the timeouts of `Timeout` expired.

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
    """The server returned an error, as an HTTP status or inside a stream.

    Attributes:
        status_code: HTTP status, or the code of the error inside the stream.
        code: The `code` in the body, if it has one.
        type: The `type` in the body, such as `"BadRequestError"`. vLLM uses several names for the same error: go by
            the exception class or the status instead.
        param: The parameter that the server blames, if it names one.
        body: The decoded JSON body, its text if it is not JSON, or None if it is empty.
        request_id: The `X-Request-Id` of the response, else the one that was sent.
        response: Status and headers of the response.
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
    """400: the server rejected the request."""

    status = 400


class ContextWindowExceededError(BadRequestError):
    """400: the prompt, or the prompt plus the requested reply, does not fit into the model's context."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing or wrong."""

    status = 401


class PermissionDeniedError(APIStatusError):
    """403: not allowed, or the server was started without this route."""

    status = 403


class NotFoundError(APIStatusError):
    """404: no such model or no such route."""

    status = 404


class ConflictError(APIStatusError):
    """409: it conflicts with an operation in progress."""

    status = 409


class UnprocessableEntityError(APIStatusError):
    """422: a media URL could not be fetched, or an upload could not be read."""

    status = 422


class RateLimitError(APIStatusError):
    """429: too many requests; usually from a proxy in front of the server."""

    status = 429


class InternalServerError(APIStatusError):
    """5xx: the server failed."""


class ServiceUnavailableError(InternalServerError):
    """503: the server is full, scaling or shutting down; try again later."""

    status = 503


class StreamError(VLLMChatError):
    """A stream did not end properly; `partial` holds what had arrived.

    Attributes:
        request_id: The `X-Request-Id` of the response, else the one that was sent.
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
    """The stream ended before the response was complete."""


class ResponseError(VLLMChatError):
    """The response does not follow the protocol.

    Attributes:
        status_code: HTTP status of the response.
        body: The start of the body as text, at most 2,000 characters.
        request_id: The `X-Request-Id` of the response, else the one that was sent.
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
    """The reply does not match the requested type.

    If its text does not validate, `__cause__` is pydantic's `ValidationError`.

    Attributes:
        reason: `"truncated"` if generation ended too early, `"refused"` if the model declined, `"mismatch"` if the text
            does not match the type.
        completion: The reply.
    """

    def __init__(
        self, message: str, *, reason: Literal["truncated", "refused", "mismatch"], completion: ChatCompletion
    ) -> None:
        super().__init__(message, partial=completion)
        self.reason = reason
        self.completion = completion


class MaxTurnsError(VLLMChatError):
    """`max_turns` was reached and the model still calls tools.

    Attributes:
        max_turns: The maximum number of turns.
        messages: The whole history. The tool calls in its last message have not been executed; a new run with this
            history begins with them.
        completions: The replies, one per turn.
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


class JobStoppedError(VLLMChatError):
    """A job stopped before its end: the server did not come back in time, or an error concerns all inputs.

    The error of the last input or of the server is its `__cause__`. Whether an input is done or not, it is in exactly
    one place: its result was handed out, is in `results`, or the input is in `pending` or has not been read.

    Attributes:
        done: How many inputs have a result, errors included.
        failed: How many of them have an error.
        results: Results that were not handed out, because an earlier input was not done.
        pending: The inputs that were read and have no result, with their positions. A pickle of the error has neither
            these nor `results` if one of them does not pickle.
    """

    def __init__(
        self,
        message: str,
        *,
        done: int = 0,
        failed: int = 0,
        results: Sequence[Result[object, object]] = (),
        pending: Sequence[tuple[int, object]] = (),
    ) -> None:
        super().__init__(message)
        self.done = done
        self.failed = failed
        self.results = tuple(results)
        self.pending = tuple(pending)

    def __reduce__(self) -> tuple[object, ...]:
        import pickle

        try:
            pickle.dumps((self.results, self.pending))
        except Exception:
            # Inputs may be anything. The error itself must always pickle.
            bare = JobStoppedError(self.message, done=self.done, failed=self.failed)
            bare.__cause__ = self.__cause__
            return VLLMChatError.__reduce__(bare)
        return super().__reduce__()


class RecordedError(VLLMChatError):
    """The error of an input in the output of a job, as `read_results` reads it.

    Attributes:
        type: The name of the error's class when it was raised, such as `"ContextWindowExceededError"`. In an output of
            `vllm run-batch`, the type that the server sent, or empty.
        status_code: HTTP status of the response, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "",  # noqa: A002 - the wire's own name
        status_code: int | None = None,
        partial: Partial | None = None,
    ) -> None:
        super().__init__(message, partial=partial)
        self.type = type
        self.status_code = status_code
