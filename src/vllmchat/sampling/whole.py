"""When a reply is complete: each choice has ended, and there are as many as requested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from vllmchat.errors import ResponseError
from vllmchat.http.excerpt import beginning, start_of
from vllmchat.wire.decode import find_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence, Set as AbstractSet

    from vllmchat.errors import Partial


class WholeChoice(Protocol):
    """A choice of a reply that was not streamed."""

    index: int

    @property
    def finish_reason(self) -> str | None:
        """Why it ended."""
        ...

    @property
    def model_fields_set(self) -> AbstractSet[str]:
        """The fields that the server sent."""
        ...


C = TypeVar("C", bound=WholeChoice)


def shortfall(choices: Iterable[tuple[int, bool]], expected: int) -> str | None:
    """Returns what a reply lacks; None if it is complete.

    Args:
        choices: The index of each choice, and whether it has ended.
        expected: How many choices were requested.
    """
    count = 0
    for index, ended in choices:
        if not ended:
            return f"choice {index} has no finish reason"
        count += 1
    if count == 0:
        return "it has no choices"
    return None if count >= expected else f"it has {count} of {expected} choices"


def has_ended(choice: WholeChoice) -> bool:
    """Whether a choice of a reply that was not streamed has ended: its finish reason may be absent, but not null."""
    return choice.finish_reason is not None or "finish_reason" not in choice.model_fields_set


def check_whole(
    choices: Sequence[C], expected: int, reply: Partial, body: bytes, ended: Callable[[C], bool] = has_ended
) -> None:
    """Checks that a reply that was not streamed is complete; see `shortfall`.

    Args:
        choices: Its choices.
        expected: How many choices were requested.
        reply: The reply.
        body: The body of the response.
        ended: Whether a choice has ended.

    Raises:
        ResponseError: It is not, or it reports an error.
    """
    error = find_error(body)
    if error is None:
        lacking = shortfall([(choice.index, ended(choice)) for choice in choices], expected)
    else:
        lacking = f"it reports the error {error['error']}"
    if lacking is not None:
        raise incomplete(lacking, reply, body)


def incomplete(lacking: str, reply: Partial, body: bytes) -> ResponseError:
    """The error for a reply that was not streamed and is not complete."""
    text = start_of(body)
    return ResponseError(f"the reply is not complete: {lacking}; {beginning(text)}", body=text, partial=reply)
