"""How many inputs are in flight at once.

A server generates for many requests together, so more in flight means more tokens per second, up to the point at which
further requests wait in its queue. `AutoWidth` looks for that point, by one of two signals.

Where the server reports its queue (`saw_load`), the width is what keeps the queue short but never empty. Replies end in
bursts, those of equal length even all at once, and the next requests take a while to arrive. Meanwhile the server goes
on with its queue. So the queue may be as long as what finishes in two seconds, or an eighth of what runs if that is
more: this is what `reserve` is below. It is never longer than what runs, because no burst is.

- When less than a quarter of the reserve waits, the width grows: at once to what a server runs by default, then
  twofold as soon as half of what was sent runs. Once there has been a queue, it grows by an eighth, and by twice as
  much with each further such look, up to a half.
- When more than the reserve waits at three looks in a row, or more than what runs at two, the width is cut so that half
  of the reserve is left. The cut is a share, because the report may be of one server of several, and the queue may be
  that of others. While a tenth more runs from look to look, the server is still taking in what was sent.
- But it is at least half of what runs. Others who always have a queue would otherwise take the whole server.
- It does not grow beyond what would fill the KV cache, and no longer doubles when that would: what has just begun needs
  more of it later. A preempted request is computed again, which costs less than a smaller batch as long as it is rare:
  when one of twelve is preempted, the width is cut by a twentieth.

Elsewhere (`saw_rate`), the width is the smallest that gives the most results per second. It doubles as long as that
brings 10 % more, at one of two looks. Then it tries a little more and a little less in turn, and keeps what is 1 %
faster, or as fast with less. The speed of a server varies, so what was tried is judged by the mean of before and after.
When a little more brings 10 %, the width doubles again.

Either way a 429 cuts the width to nine tenths of what the server had accepted. From then on the reserve is as small as
it can be: this server wants a short queue.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

START: Final = 32
_DEFAULT_SLOTS: Final = 128
"""What vLLM runs at least by default, on a CPU."""

MOST: Final = 1024
"""What vLLM runs at most by default, on the largest accelerators. More only wait."""

LOOK_SECONDS: Final = 0.5
"""Seconds between two looks at the results, where the server does not report its queue."""

_FIRST_LOOK_SECONDS: Final = 0.1
_STEADY_LOOK_SECONDS: Final = 1.0
"""A report costs the server some 3 ms and this process 6."""

_LOOKS: Final = 3
"""A queue counts if it is there at so many looks in a row."""

_LATE_LOOKS: Final = 3
"""How many looks to wait for what has not arrived. A report may be of one server of several."""

_RESERVE_SECONDS: Final = 2.0
_RATE_SECONDS: Final = 3.0
"""The rate at which requests finish is a mean over so long."""

_ARRIVED: Final = 0.5
_ARRIVING: Final = 0.9
_BUSY_CUT: Final = 0.9
_PREEMPTED_CUT: Final = 0.95
_PREEMPTED_SHARE: Final = 0.08
_FULL_CACHE: Final = 0.95

_GAIN: Final = 1.1
_NEARLY: Final = 0.99
_SAMPLE: Final = 2
"""So many times the width are the results by which a step is judged. Replies may come in cohorts of the width."""


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
        finished: How many requests it has finished since it started.
    """

    running: int
    waiting: int
    preemptions: int = 0
    cache_usage: float = 0.0
    finished: int = 0


class AutoWidth:
    """A width that follows the server; see above.

    Args:
        start: The first width.
        most: The greatest.

    Attributes:
        limit: How many inputs may be in flight.
        pause: Seconds until the server is asked again.
    """

    def __init__(self, start: int = START, most: int = MOST) -> None:
        self.limit = min(start, most)
        self._most = most
        self._steady = False
        # For `saw_load`
        self.pause = _FIRST_LOOK_SECONDS
        self._waiting: deque[int] = deque(maxlen=_LOOKS)
        self._late = 0
        self._empty = 0
        self._counted: ServerLoad | None = None
        self._last: ServerLoad | None = None
        self._finish_rate = 0.0
        self._rejects = False
        # For `saw_rate`
        self._best = 0.0
        self._before = self.limit
        self._trying = False
        self._up = True
        self._tried = 0
        self._tried_rate = 0.0
        self._skip = 0

    def saw_load(self, load: ServerLoad, *, in_flight: int, full: bool, seconds: float) -> None:
        """Follows a report of the server.

        Args:
            load: The report.
            in_flight: How many inputs are in flight.
            full: Whether the width was used since the last report.
            seconds: The time since the last report.
        """
        if self._last is not None and load.running * _ARRIVING > self._last.running:
            self._waiting.clear()  # it is still taking them in
        reserve = self._reserve(load, seconds)
        self._waiting.append(load.waiting)
        self.pause = min(self.pause * 2, _STEADY_LOOK_SECONDS)
        if self._preempts(load):
            # What waits now, and did at the last look, does not fit either.
            fits = in_flight - min(list(self._waiting)[-2:])
            self._cut(min(self.limit, fits * _PREEMPTED_CUT))
        elif (excess := self._excess(load, reserve)) > 0:
            # From what is in flight, not from the width: what was sent under an older width goes on waiting.
            ours = in_flight * (1 - excess / (load.running + load.waiting))
            self._cut(max(min(self.limit, ours), load.running // 2))
            self._waiting.clear()
        elif load.waiting <= reserve // 4 and full and load.cache_usage < _FULL_CACHE:
            self._grow(load, in_flight)
        else:
            self._empty = 0

    def _reserve(self, load: ServerLoad, seconds: float) -> int:
        """How many may wait."""
        if seconds > 0 and self._last is not None:
            rate = max(load.finished - self._last.finished, 0) / seconds
            self._finish_rate += (rate - self._finish_rate) * min(seconds / _RATE_SECONDS, 1)
        self._last = load
        if self._rejects:
            return 2
        wanted = max(load.running // 8, int(self._finish_rate * _RESERVE_SECONDS))
        return max(min(wanted, load.running), 2)

    def _excess(self, load: ServerLoad, reserve: int) -> int:
        """How many of those that wait are too many."""
        if len(self._waiting) < _LOOKS:
            return 0
        least = min(self._waiting)
        if least > reserve:
            return least - reserve // 2
        return min(load.waiting, self._waiting[-2]) - max(load.running, reserve)

    def _cut(self, limit: float) -> None:
        self._steady = True
        self._empty = 0
        self._set(limit)

    def _preempts(self, load: ServerLoad) -> bool:
        """Whether too many requests were preempted since that was last judged."""
        counted = self._counted or load
        preempted, finished = load.preemptions - counted.preemptions, load.finished - counted.finished
        judged = max(finished, load.running)
        storm = preempted > judged * _PREEMPTED_SHARE
        if self._counted is None or storm or finished > 2 * load.running or finished < 0:
            self._counted = load
        return storm

    def _grow(self, load: ServerLoad, in_flight: int) -> None:
        room = self.limit * (_FULL_CACHE / max(load.cache_usage, 0.01) - 1)
        if room < self.limit or min(list(self._waiting)[-2:]) > 0:
            # What has just begun needs more of the cache later. And a queue is there.
            self._steady = True
        if self._steady:
            step = self.limit * min(2**self._empty, 4) // 8
            self._empty += 1
            self._set(self.limit + max(min(step, room), 1))
        elif load.waiting == 0 and (
            self.limit < _DEFAULT_SLOTS or load.running >= in_flight * _ARRIVED or self._late >= _LATE_LOOKS
        ):
            self._late = 0
            self.pause = _FIRST_LOOK_SECONDS
            self._set(min(max(self.limit * 2, _DEFAULT_SLOTS), self.limit + room))
        else:
            self._late += 1

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
        if done < max(self.limit * (_SAMPLE if self._steady else 1), 8) or seconds <= 0:
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
        self._rejects = True
        self._steady = True
        self._trying, self._tried = False, 0
        self._set(min(self.limit, accepted * _BUSY_CUT))

    def _climb(self, rate: float) -> None:
        rate = max(rate, self._tried_rate)
        if rate > self._best * _GAIN and self.limit < self._most:
            self._best, self._before, self._tried_rate = rate, self.limit, 0.0
            self._set(self.limit * 2)
        elif not self._tried_rate:
            self._tried_rate = rate  # the machine may have been busy: once more
        else:
            self._steady = True
            if rate < self._best * (2 - _NEARLY):
                self._set(self._before)

    def _try(self, rate: float) -> None:
        if self._trying:
            self._tried, self._tried_rate = self.limit, rate
            self._trying = False
            self._set(self._before)
            return
        tried, up = self._tried, self._tried > self.limit
        self._tried = 0
        if tried:
            # Judged by the mean of before and after, so that a server whose speed varies does not mislead.
            gain = self._tried_rate / ((self._best + rate) / 2)
            if gain > (2 - _NEARLY if up else _NEARLY):
                self._up = up  # there may be more of it
                self._steady = gain < _GAIN
                self._best, self._before, self._tried_rate = self._tried_rate, self.limit, 0.0
                self._set(tried)
                return
            self._up = not up
        self._best, self._before = rate, self.limit
        self._trying = True
        self._set(self.limit * 1.25 + 1 if self._up else self.limit * 0.8)

    def _set(self, limit: float) -> None:
        new = min(max(int(limit), 1), self._most)
        if new != self.limit:
            self.limit = new
            self._skip = new


Width = FixedWidth | AutoWidth
