"""What a double answers: a list of answers, a function, or one answer for all calls."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias, cast

from vllmchat.chat.completion import ChatCompletion, ToolCall
from vllmchat.testing.delivery import Delivery
from vllmchat.testing.errors import ErrorReply
from vllmchat.testing.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vllmchat.testing.call import Call

OneAnswer: TypeAlias = "str | Reply | ToolCall | ChatCompletion | ErrorReply | Delivery | Exception"
Answer: TypeAlias = "OneAnswer | tuple[str | Reply | ToolCall, ...]"
"""What answers one call.

- A `str`: a reply with this text. `reply` makes any other, and `tool_call` a reply that calls a tool.
- A tuple of these: the choices of one reply, for `n=2` and more.
- A `ChatCompletion`: a whole reply, such as a recorded one.
- `error(...)`: an error of the server.
- `slow`, `drip`, `drop`, `stall`, `garbage`, `fail`, `hang_up`: an answer that is delivered badly.
- An exception, which is raised.
"""

AnswerFunction: TypeAlias = "Callable[[Call], Answer]"
"""A function that answers calls."""

ScriptLike: TypeAlias = (
    "Iterable[OneAnswer | tuple[str | Reply | ToolCall, ...]] | OneAnswer | AnswerFunction"
)
"""What can be given as a script: a list of answers, each for one call, a function, or one answer for all calls."""

_ONE = (str, Reply, ToolCall, ChatCompletion, ErrorReply, Delivery, Exception)


class ScriptError(AssertionError):
    """A double was called differently than its script expects.

    It is an `AssertionError`, so that code that handles the errors of a provider does not handle it.
    """


class Script:
    """The answers of a double. Thread-safe.

    Args:
        script: A list of answers, each for one call; a function of the call; or one answer for all calls. None for an
            empty script.

    Raises:
        TypeError: An answer has the wrong type.
    """

    def __init__(self, script: ScriptLike | None = None) -> None:
        self._lock = threading.Lock()
        self._next: deque[Answer] = deque()
        self._always: AnswerFunction | None = None
        self._given = 0
        self._taken = 0
        self._unanswered: list[str] = []
        if script is None:
            return
        if isinstance(script, _ONE):
            answer = _checked(script)
            self._always = lambda _: answer
        elif callable(script):
            self._always = script
        else:
            self.add(*script)

    def add(self, *answers: Answer) -> None:
        """Adds answers, each for one call. They are used before a function, or an answer for all calls."""
        checked = [_checked(answer) for answer in answers]
        with self._lock:
            self._next.extend(checked)
            self._given += len(checked)

    def take(self, call: Call) -> Answer:
        """The answer to a call.

        Raises:
            ScriptError: There are no answers left.
            TypeError: The function returned something that is not an answer.
        """
        with self._lock:
            self._taken += 1
            if self._next:
                return self._next.popleft()
            if self._always is None:
                question = repr(call.text[:80])
                self._unanswered.append(question)
                raise ScriptError(
                    f"the script has {_count(self._given, 'answer')}, and this is call {self._taken}: {question}. "
                    "Add an answer for it; a function, or one answer that is not in a list, answers all calls"
                )
            always = self._always
        return _checked(always(call))

    @property
    def left(self) -> int:
        """How many answers of the list are left."""
        return len(self._next)

    def assert_done(self) -> None:
        """Checks that each answer of the list was used, and that each call had one.

        Raises:
            ScriptError: That is not the case.
        """
        with self._lock:
            left, unanswered = list(self._next), list(self._unanswered)
        if unanswered:
            raise ScriptError(f"{_count(len(unanswered), 'call')} had no answer: {', '.join(unanswered)}")
        if left:
            raise ScriptError(
                f"{len(left)} of {self._given} scripted answers are left; the next one is {left[0]!r:.200}"
            )


def _checked(answer: object) -> Answer:
    if isinstance(answer, Delivery):
        _checked(answer.answer)
        return answer
    if isinstance(answer, _ONE):
        return answer
    if isinstance(answer, tuple):
        choices = cast("tuple[object, ...]", answer)
        if choices and all(isinstance(choice, str | Reply | ToolCall) for choice in choices):
            return cast("tuple[str | Reply | ToolCall, ...]", choices)
    raise TypeError(
        f"an answer must be a str, a reply(), a tool_call(), an error() or an exception, not {answer!r:.80}. For any "
        "other value, write reply(value), which sends its JSON"
    )


def choices_of(answer: str | Reply | ToolCall | tuple[str | Reply | ToolCall, ...]) -> list[Reply]:
    """The choices of a reply."""
    several: Sequence[str | Reply | ToolCall] = answer if isinstance(answer, tuple) else (answer,)
    return [_reply(choice) for choice in several]


def _reply(choice: str | Reply | ToolCall) -> Reply:
    if isinstance(choice, ToolCall):
        return Reply(tool_calls=(choice,))
    return Reply(choice) if isinstance(choice, str) else choice


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
