"""A call that is being observed: by the log, by hooks, or by traces. A call that nobody observes has no such object."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllmchat.http.call import Call
    from vllmchat.http.flow import Send
    from vllmchat.http.record import CallRecord


class Observer(Protocol):
    """What observes calls."""

    def sending(self, call: ObservedCall) -> Mapping[str, str] | None:
        """An attempt begins. Returns headers to add to its request. What it raises ends the call."""
        ...

    def connected(self, call: ObservedCall, *, reused: bool) -> None:
        """The head of a response has arrived, on a new connection or on a reused one."""
        ...

    def retrying(self, call: ObservedCall, error: Exception, seconds: float) -> None:
        """An attempt has failed, and another one follows after so many seconds."""
        ...

    def ended(self, call: ObservedCall) -> None:
        """The call has ended: with a reply, with an error, or with a stream that was closed early."""
        ...


class ObservedCall:
    """A call, as its observers see it.

    Attributes:
        call: The call.
        record: What happened.
        request: The request of the current attempt, or of the last one.
        state: What observers keep for the time of the call.
        error: What the call raised, if it did.
        reply: What it returned; of a stream, what has arrived. None before the end, and without a response.
        complete: Whether all of the response has arrived.
    """

    __slots__ = ("_observers", "call", "complete", "error", "record", "reply", "request", "state")

    def __init__(self, observers: tuple[Observer, ...], call: Call[Any], record: CallRecord) -> None:
        self._observers = observers
        self.call = call
        self.record = record
        self.request: Send | None = None
        self.state: dict[str, object] = {}
        self.error: BaseException | None = None
        self.reply: object = None
        self.complete = False
        record.observed = self

    def sending(self, send: Send) -> Send:
        """An attempt begins; returns its request, to which observers may have added headers."""
        self.request = send
        for observer in self._observers:
            added = observer.sending(self)
            if added:
                lower = {name.lower(): value for name, value in added.items()}
                send = self.request = send.with_headers(lower)
        return send

    def connected(self, *, reused: bool) -> None:
        """The head of a response has arrived."""
        for observer in self._observers:
            observe(observer.connected, self, reused=reused)

    def retrying(self, error: Exception, seconds: float) -> None:
        """An attempt has failed, and another one follows."""
        for observer in self._observers:
            observe(observer.retrying, self, error, seconds)

    def end(
        self, error: BaseException | None = None, reply: object = None, *, complete: bool = False
    ) -> None:
        """The call has ended; only the first time counts."""
        record = self.record
        if record.observed is None:
            return
        # The record is kept with the reply, which must not keep the request.
        record.observed = None
        record.note_end()
        self.error, self.reply, self.complete = error, reply, complete
        for observer in self._observers:
            observe(observer.ended, self)


def observe(notify: Callable[..., None], *arguments: object, **options: object) -> None:
    """Tells an observer of something that it cannot change. What it raises is reported, but does not end the call."""
    try:
        notify(*arguments, **options)
    except Exception as error:
        report = SimpleNamespace(
            exc_type=type(error),
            exc_value=error,
            exc_traceback=error.__traceback__,
            err_msg="Exception ignored in a hook of vllmchat",
            object=notify,
        )
        # It has the attributes of Python's own arguments, which cannot be made.
        sys.unraisablehook(cast("sys.UnraisableHookArgs", report))


def token_counts(reply: object) -> tuple[int | None, int | None]:
    """The tokens of a reply's prompt and those generated; None where unknown."""
    usage = getattr(reply, "usage", None)
    counts: list[int | None] = []
    for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        found = (getattr(usage, name, None) for name in names)
        counts.append(next((count for count in found if isinstance(count, int)), None))
    return counts[0], counts[1]
