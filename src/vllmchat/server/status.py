"""The server itself: its version, health, readiness and load."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from dataclasses import dataclass
from typing import Final

from vllmchat.checking.call_params import checked_timeout
from vllmchat.checking.describe import format_value, suggest
from vllmchat.client.discovery import OUTSIDE_V1, models_request
from vllmchat.client.request import ServerRequest
from vllmchat.errors import APIConnectionError, APIStatusError, APITimeoutError, InvalidRequestError, Problem
from vllmchat.http.call import Response
from vllmchat.http.clock import Clock
from vllmchat.http.flow import Flow, Sleep, Target, reply_flow
from vllmchat.http.timeout import Timeout
from vllmchat.wire.decode import WireModel, decode, unexpected_body

_ILL: Final = frozenset({500, 503})
"""The statuses of a server whose engine has died: 500 before vLLM 0.11."""

_PASSING: Final = frozenset({429, 500, 502, 503, 504})
"""Errors of a server that is starting, or of the proxy in front of it."""

_NOT_FORWARDED: Final = frozenset({403, 404, 405})
"""Statuses of a gateway that does not forward `/health`."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_LONGEST_WAIT: Final = 10.0
"""Timeout of a single poll, in seconds. A ready server responds faster, and one that hangs is polled again."""


class _Health(WireModel):
    # Some gateways respond themselves, with the servers that are healthy. vLLM's own response is empty.
    healthy_endpoints: list[object] | None = None


class _Load(WireModel):
    server_load: int


def health_request(timeout: float | Timeout | None = None) -> ServerRequest[bool]:
    """The request for a server's health."""
    return ServerRequest(
        "/health", _read_health, checked_timeout(timeout), route_hint=OUTSIDE_V1, accepted_statuses=_ILL
    )


def load_request(timeout: float | Timeout | None = None) -> ServerRequest[int]:
    """The request for a server's load."""
    return ServerRequest("/load", _read_load, checked_timeout(timeout), route_hint=OUTSIDE_V1)


def _read_health(reply: Response) -> bool:
    if reply.head.status in _ILL:
        return False
    start = reply.body.lstrip()[:1]
    if start == b"<":
        raise unexpected_body("a health status", reply.body, "it is a web page: check base_url")
    return start != b"{" or decode(_Health, reply.body, "a health status").healthy_endpoints != []


def _read_load(reply: Response) -> int:
    return decode(_Load, reply.body, "a load").server_load


@dataclass(frozen=True, slots=True)
class Readiness:
    """Waits until a server is healthy and serves a model.

    Attributes:
        model: The model; None for any.
        seconds: How long to wait.
        limits: The provider's timeouts.
    """

    model: str | None
    seconds: float
    limits: Timeout

    @property
    def timeout(self) -> Timeout:
        """The timeouts: `total` for the whole wait, the others for each poll."""
        return Timeout(
            connect=self.limits.connect,
            first_token=min(self.limits.first_token or _LONGEST_WAIT, _LONGEST_WAIT),
            idle=min(self.limits.idle or _LONGEST_WAIT, _LONGEST_WAIT),
            total=self.seconds,
        )

    def flow(self, target: Target, clock: Clock) -> Flow[None]:
        """Polls the server until it is ready, with growing pauses.

        Raises:
            APITimeoutError: It was not ready in time. The message gives its last state.
            APIStatusError: An error that waiting will not fix, such as a wrong key.
            InvalidRequestError: The server is healthy and serves other models.
        """
        state = "it has not responded"
        cause: Exception | None = None
        pause = _FIRST_PAUSE
        while True:
            try:
                missing = yield from self._missing(target, clock)
            except APITimeoutError as error:
                # The previous state says more than "time is up".
                if error.limit != "total":
                    state, cause = error.message, error
            except APIConnectionError as error:
                state, cause = error.message, error
            except APIStatusError as error:
                if error.status_code not in _PASSING:
                    raise
                state, cause = error.message, error
            else:
                if missing is None:
                    return
                state, cause = missing, None
            left = clock.total_seconds()
            if left > 0:
                yield Sleep(min(pause, left))
                left = clock.total_seconds()
            if left <= 0:
                raise APITimeoutError(
                    f"{target.base} was not ready within {self.seconds:g} s. Last state: {state}",
                    limit="total",
                    seconds=self.seconds,
                    url=str(target.base),
                ) from cause
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _missing(self, target: Target, clock: Clock) -> Flow[str | None]:
        """What the server lacks, in words, or None if it is ready."""
        timeout = self.timeout
        # The polling loop does the retries.
        health = health_request().call(timeout).without_retries()
        healthy = True
        try:
            if not (yield from reply_flow(target, health, clock)):
                return "/health reports that the engine is not running"
        except APIStatusError as error:
            if error.status_code not in _NOT_FORWARDED:
                raise
            healthy = False
        models = yield from reply_flow(target, models_request().call(timeout).without_retries(), clock)
        names = [card.id for card in models.data]
        if self.model in names or (self.model is None and names):
            return None
        if healthy and names and self.model is not None:
            # A server that is starting serves nothing yet: this one will not serve another model.
            raise InvalidRequestError([_not_served(self.model, names)])
        state = "healthy and serving" if healthy else "serving"
        missing = f", but not {self.model}" if self.model is not None else ""
        return f"it was {state} {', '.join(names) or 'no model'}{missing}"


def _not_served(model: str, names: list[str]) -> Problem:
    meant = suggest(model, names)
    hint = f"Did you mean {meant!r}?" if meant else None
    return Problem(
        "model", format_value(model), f"is not served by this server, which serves {', '.join(names)}.", hint
    )
