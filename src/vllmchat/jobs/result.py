"""The result of one input, and the state of a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from vllmchat.jobs.failures import Fault, fault_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.chat.completion import ChatCompletion

I = TypeVar("I")  # noqa: E741 - an input
T = TypeVar("T")


class Result(Generic[I, T]):
    """What became of one input: a value or an error.

    `value`, `completion` and `text` raise the error if there is one, so that a failure is never taken for a reply.

    Attributes:
        index: The position of the input, from 0.
        id: The `id` of the input, if it is a mapping that has one.
        input: The input.
        error: Why there is no value; None if there is one.
        attempts: How many times the input was sent.
        seconds: The time from the first attempt to the result.
    """

    __slots__ = ("_completion", "_value", "attempts", "error", "id", "index", "input", "seconds")

    def __init__(
        self,
        index: int,
        input: I,  # noqa: A002 - the name of the attribute
        id: str | None = None,  # noqa: A002
        value: T | None = None,
        completion: ChatCompletion | None = None,
        error: Exception | None = None,
        attempts: int = 1,
        seconds: float = 0.0,
    ) -> None:
        self.index = index
        self.id = id
        self.input = input
        self.error = error
        self.attempts = attempts
        self.seconds = seconds
        self._value = value
        self._completion = completion

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None

    @property
    def value(self) -> T:
        """What the call returned: the reply, or the parsed value.

        Raises:
            Exception: The `error`, if there is one.
        """
        if self.error is not None:
            raise self.error
        return cast("T", self._value)

    @property
    def completion(self) -> ChatCompletion:
        """The reply.

        Raises:
            Exception: The `error`, if there is one.
            TypeError: The call was not a chat; its `value` is all there is.
        """
        if self.error is not None:
            raise self.error
        if self._completion is not None:
            return self._completion
        if type(self._value).__name__ != "ChatCompletion":
            raise TypeError(f"a {type(self._value).__name__} has no completion: read result.value")
        return cast("ChatCompletion", self._value)

    @property
    def text(self) -> str:
        """The text of the reply.

        Raises:
            Exception: The `error`, if there is one.
            TypeError: The value has no text.
        """
        if self.error is not None:
            raise self.error
        text = getattr(self._value if self._completion is None else self._completion, "text", None)
        if not isinstance(text, str):
            raise TypeError(f"a {type(self._value).__name__} has no text: read result.value")
        return text

    @property
    def retryable(self) -> bool:
        """Whether there is an error that another attempt may not meet, such as a timeout or a 5xx."""
        return self.error is not None and fault_of(self.error) is not Fault.INPUT

    def __repr__(self) -> str:
        end = "ok" if self.error is None else f"error={self.error!r}"
        return f"<Result {self.index}: {end}>"


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The state of a job at one moment.

    Attributes:
        done: How many inputs have a result, errors included.
        failed: How many of them have an error.
        total: How many inputs there are; None if that is not known.
        in_flight: How many inputs are being worked on now.
        width: How many may be in flight at once.
        seconds: How long the job has been running.
        prompt_tokens: Tokens of the prompts, of the replies that report it.
        completion_tokens: Tokens generated, of the replies that report it.
        cached_tokens: Tokens of the prompts that came from the server's prefix cache, of the replies that report it.
        waiting_for: Why the job waits for the server; None while it runs.
        failures: How many results failed, by the name of the error's class.
        first_errors: The message of the first error of each class.
        ended: Whether this is the last state.
    """

    done: int = 0
    failed: int = 0
    total: int | None = None
    in_flight: int = 0
    width: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    waiting_for: str | None = None
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    first_errors: Mapping[str, str] = field(default_factory=dict[str, str])
    ended: bool = False

    @property
    def rate(self) -> float:
        """Inputs per second since the job began."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def prompt_tokens_per_second(self) -> float:
        """Tokens of prompts per second since the job began."""
        return self.prompt_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def completion_tokens_per_second(self) -> float:
        """Generated tokens per second since the job began."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def cache_hit_rate(self) -> float | None:
        """The share of the prompts' tokens that came from the server's prefix cache, from 0 to 1.

        None if the server does not report it: vLLM does with `--enable-prompt-tokens-details`.
        """
        return self.cached_tokens / self.prompt_tokens if self.cached_tokens and self.prompt_tokens else None

    @property
    def seconds_left(self) -> float | None:
        """The expected time to the end, in seconds; None if it cannot be known."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.done) / self.rate

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total is not None else ""
        parts = [f"{self.done:,}{of} done"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        parts.append(f"{self.rate:,.1f}/s")
        if self.completion_tokens and self.seconds > 0:
            parts.append(f"{self.completion_tokens_per_second:,.0f} tokens/s")
        if self.waiting_for is not None:
            parts.append(f"waiting for the server: {self.waiting_for}")
        elif not self.ended:
            parts.append(f"{self.in_flight} in flight")
            if (left := self.seconds_left) is not None:
                parts.append(f"{duration(left)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Returns a time for people, such as `2 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
