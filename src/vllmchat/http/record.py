"""What happened during one call: the flow and the transports write it, replies and everything that observes read it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from vllmchat.http.clock import monotonic
from vllmchat.http.secrets import Mask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from vllmchat.http.call import ResponseHead
    from vllmchat.http.clock import Clock
    from vllmchat.http.observe import ObservedCall


@dataclass(frozen=True, slots=True)
class Timings:
    """How long a call took, in seconds. What is unknown is None.

    Attributes:
        queued: In the server's queue. Reported by vLLM 0.25 and newer with `--enable-per-request-metrics`.
        connect: To open the connection, including DNS, TLS and a proxy's tunnel; None if an open one was reused.
        first_token: From the start of the call to the first chunk of a stream; None without streaming.
        total: From the start of the call to its end, including retries and the pauses before them. For a stream, the
            end is when it was closed, and it includes the time that the reading program took. None while a stream runs.
        tokens_per_second: Generated tokens per second, as reported by the server; otherwise, those of a stream after
            its first chunk, or those of a whole reply since its request was sent.
    """

    queued: float | None = None
    connect: float | None = None
    first_token: float | None = None
    total: float | None = None
    tokens_per_second: float | None = None


class CallRecord:
    """What happened during one call. All times are monotonic seconds.

    Attributes:
        began: When the call began.
        first: When the first chunk of a stream arrived; None before and without streaming.
        ended: When the call ended; None before.
        attempts: How many requests were sent.
        observed: The call while it is being observed; None if nobody does, and after its end.
    """

    # Each call makes one, so it has few attributes.
    __slots__ = ("_response", "attempts", "began", "ended", "first", "observed")

    def __init__(self, began: float) -> None:
        self.began = began
        self.first: float | None = None
        self.ended: float | None = None
        self.attempts = 0
        self.observed: ObservedCall | None = None
        self._response: _Response = _NO_RESPONSE

    @classmethod
    def of(cls, head: ResponseHead) -> Self:
        """A record of a response that is all that is known of its call."""
        record = cls(0.0)
        record.ended = 0.0
        record._response = (head.status, head.request_id, head.headers, {}, 0.0, None)
        return record

    def note_response(self, head: ResponseHead, headers: Mapping[str, str], clock: Clock) -> None:
        """Notes that the head of a response has arrived.

        Args:
            head: The head.
            headers: The headers of the request.
            clock: The clock of the call.
        """
        self._response = (
            head.status, head.request_id, head.headers, headers, clock.attempt_began, clock.connect_time
        )  # fmt: skip

    def note_end(self) -> None:
        """Notes that the call has ended."""
        if self.ended is None:
            self.ended = monotonic()

    @property
    def status(self) -> int | None:
        """HTTP status of the last response; None before."""
        return self._response[0]

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the last response, else the one that was sent with its request; None before."""
        return self._response[1]

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the last response, names in lower case. Cookies and what repeats a key are masked."""
        return masked_headers(self._response[2], self._response[3])

    @property
    def connect(self) -> float | None:
        """How long opening the connection of the last response took; None if an open one was reused."""
        return self._response[5]

    def timings(
        self, *, tokens: int | None = None, queued: float | None = None, rate: float | None = None
    ) -> Timings:
        """The timings of the call.

        Args:
            tokens: How many tokens were generated.
            queued: How long the server says that the request was in its queue.
            rate: The tokens per second that the server reports.
        """
        if not self.attempts:
            return Timings()
        if rate is None and tokens and self.ended is not None:
            # The first chunk brings the first token.
            tokens, start = (tokens, self._response[4]) if self.first is None else (tokens - 1, self.first)
            rate = tokens / (self.ended - start) if tokens and self.ended > start else None
        return Timings(
            queued=queued,
            connect=self.connect,
            first_token=None if self.first is None else self.first - self.began,
            total=None if self.ended is None else self.ended - self.began,
            tokens_per_second=rate,
        )

    def settled(self) -> CallRecord:
        """This record if the call has ended, else a copy that does not change any more."""
        if self.ended is not None:
            return self
        copy = CallRecord.__new__(CallRecord)
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.observed = None
        return copy

    def __copy__(self) -> CallRecord:
        return self.settled()

    def __deepcopy__(self, memo: object) -> CallRecord:
        return self.settled()

    def __getstate__(self) -> dict[str, object]:
        # A pickle must not hold the key.
        status, request_id, _, _, sent, connect = self._response
        state = {name: getattr(self, name) for name in self.__slots__}
        return {**state, "_response": (status, request_id, self.headers, {}, sent, connect), "observed": None}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


_Response: TypeAlias = (
    "tuple[int | None, str | None, Mapping[str, str], Mapping[str, str], float, float | None]"
)
"""The status, request id and headers of a response, the headers of its request, when that was sent, and the time to
connect.
"""

_NO_RESPONSE: Final[_Response] = (None, None, {}, {}, math.inf, None)


def masked_headers(headers: Mapping[str, str], sent: Mapping[str, str]) -> Mapping[str, str]:
    """Headers as they may be shown: without cookies and keys, and without what repeats a key.

    Args:
        headers: The headers.
        sent: The headers of the request.
    """
    masked = Mask(sent.items()).headers(dict(headers))
    return {name: "***" if re.search(_HIDDEN, name) else value for name, value in masked.items()}


_HIDDEN = "cookie|authoriz|authentication|api-?key"
"""Headers that are not shown, whatever their value."""
