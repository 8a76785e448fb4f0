"""How many inputs are in flight at once.

A server generates for many requests together, so more in flight means more tokens per second, up to the point at which
further requests wait in its queue. `AutoWidth` looks for that point, by one of two signals:

- Where the server reports its queue (`saw_load`), the width is what makes the queue short but not empty. While it is
  empty, and what was sent has arrived, the width doubles, later it grows by an eighth. When more than an eighth
  waits, the width is cut by what is too much, which the report itself says. A queue counts only if two reports in a
  row have it: replies end in bursts, and the requests that follow them wait for a moment. A preemption cuts the width
  by a tenth, and from then on it grows by one at a time when it comes near to where that was.
- Elsewhere (`saw_rate`), the width is the smallest that gives the most results per second. It doubles as long as that
  brings 10 % more, then it tries a little more and a little less in turn, and keeps what is as fast with less.

Either way a 429 cuts the width to nine tenths of what the server had accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

START: Final = 32
MOST: Final = 1024
"""What vLLM runs at most by default, on the largest accelerators. More only wait."""

LOOK_SECONDS: Final = 0.5
"""Seconds between two looks at the results, or at the server while the width still climbs."""

_STEADY_SECONDS: Final = 2.0
_BUSY_CUT: Final = 0.9
_PREEMPTED_CUT: Final = 0.9
_FULL_CACHE: Final = 0.95
_ARRIVED: Final = 0.9
_LATE_LOOKS: Final = 3
"""How many looks to wait for what has not arrived. A report may be of one server of several."""

_GAIN: Final = 1.1
_NEARLY: Final = 0.97


class FixedWidth:
    """A width that stays.

    Attributes:
        limit: How many inputs may be in flight.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def saw_busy(self, accepted: int) -> None:
        """Does nothing: the width is the caller's wish. The inputs that were rejected wait."""


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What a server reports about its requests.

    Attributes:
        running: How many it generates for.
        waiting: How many wait in its queue.
        preemptions: How often, since it started, a running request lost its place in the KV cache.
        cache_usage: The share of the KV cache in use, from 0 to 1.
    """

    running: int
    waiting: int
    preemptions: int = 0
    cache_usage: float = 0.0


class AutoWidth:
    """A width that follows the server; see above.

    Args:
        start: The first width.
        most: The greatest.

    Attributes:
        limit: How many inputs may be in flight.
    """

    def __init__(self, start: int = START, most: int = MOST) -> None:
        self.limit = min(start, most)
        self._most = most
        self._steady = False
        self._queued = 0
        self._late = 0
        self._preemptions: int | None = None
        self._ceiling: int | None = None
        # For `saw_rate`
        self._best = 0.0
        self._step: Literal["hold", "up", "down"] = "hold"
        self._next_step: Literal["up", "down"] = "up"
        self._before = self.limit
        self._skip = 0

    @property
    def pause(self) -> float:
        """Seconds until the server is asked again. Its report costs it some milliseconds, so they become rare."""
        return _STEADY_SECONDS if self._steady else LOOK_SECONDS

    def saw_load(self, load: ServerLoad, *, in_flight: int, full: bool) -> None:
        """Follows a report of the server.

        Args:
            load: The report.
            in_flight: How many inputs are in flight.
            full: Whether the width was used since the last report.
        """
        queued, self._queued = min(self._queued, load.waiting), load.waiting
        preempted = self._preemptions is not None and load.preemptions > self._preemptions
        self._preemptions = load.preemptions
        slack = max(2, self.limit // 8)
        if preempted:
            self._ceiling = in_flight
            self._set(min(self.limit, in_flight * _PREEMPTED_CUT))
            self._steady = True
        elif queued > slack:
            # From what is in flight, not from the width: what was sent under an older width goes on waiting.
            self._set(min(self.limit, in_flight - (queued - slack // 2)))
            self._steady = True
        elif load.waiting == 0 and full and load.cache_usage < _FULL_CACHE:
            arrived = load.running + load.waiting >= in_flight * _ARRIVED
            if not arrived and self._late < _LATE_LOOKS:
                self._late += 1
                return
            self._late = 0
            near = self._ceiling is not None and self.limit >= self._ceiling * _PREEMPTED_CUT
            self._set(
                self.limit + (1 if near else max(1, self.limit // 8)) if self._steady else self.limit * 2
            )

    def saw_rate(self, done: int, seconds: float, *, full: bool) -> bool:
        """Follows the number of results, where the server does not report its queue.

        Args:
            done: How many results came since the last time that this returned True.
            seconds: The time since then.
            full: Whether the width was used.

        Returns:
            Whether this was enough to go by, so that the counting starts over.
        """
        if done < self._skip:
            return False
        if self._skip:
            # The first results after a change were sent before it.
            self._skip = 0
            return True
        if done < max(self.limit, 8) or seconds <= 0:
            return False
        rate = done / seconds
        if not full:
            return True
        if not self._steady:
            self._climb(rate)
        else:
            self._try(rate)
        return True

    def saw_busy(self, accepted: int) -> None:
        """The server rejected a request because it has too many.

        Args:
            accepted: How many it has of this job.
        """
        self._steady = True
        self._step = "hold"
        self._set(min(self.limit, accepted * _BUSY_CUT))

    def _climb(self, rate: float) -> None:
        if rate > self._best * _GAIN:
            self._best = rate
            self._before = self.limit
            self._set(self.limit * 2)
        else:
            self._steady = True
            self._set(self._before)
        if self.limit == self._before:
            self._steady = True

    def _try(self, rate: float) -> None:
        if self._step == "hold":
            self._best, self._before = rate, self.limit
            self._step = self._next_step
            self._next_step = "down" if self._step == "up" else "up"
            self._set(self.limit * 1.25 + 1 if self._step == "up" else self.limit * 0.8)
            return
        good = rate > self._best * (2 - _NEARLY) if self._step == "up" else rate >= self._best * _NEARLY
        if good:
            self._next_step = self._step  # there may be more of it
        else:
            self._set(self._before)
        self._step = "hold"

    def _set(self, limit: float) -> None:
        new = min(max(int(limit), 1), self._most)
        if new != self.limit:
            self.limit = new
            self._skip = new


Width = FixedWidth | AutoWidth
