"""How long to wait, and for what."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, Self

Limit = Literal["connect", "first_token", "idle", "total"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Timeouts, in seconds. `None` disables one. They are given by name.

    Attributes:
        connect: For opening a connection, including the TLS handshake. Applies to each attempt.
        first_token: From the request to the first event of a stream, or until a whole reply begins to arrive. A vLLM
            server sends nothing while a request is queued and its prompt is processed, and a reply that is not
            streamed begins only when it is finished, so keep this one generous.
        idle: Between two arrivals after that: of events of a stream, or of bytes of a whole reply. Comments and empty
            events, which proxies send to keep a connection alive, do not count.
        total: For the whole call: all attempts, the pauses between them, and the stream to its end.
    """

    connect: float | None = 5.0
    first_token: float | None = 600.0
    idle: float | None = 300.0
    total: float | None = None

    def __new__(cls, *args: object, **limits: object) -> Self:
        """Rejects limits without a name.

        Raises:
            TypeError: It is not said which limit is meant.
        """
        if args:
            raise TypeError(
                f"Timeout({args[0]!r}) does not say which limit: write Timeout(total={args[0]!r}) for the whole "
                "call, or Timeout(connect=..., first_token=..., idle=...)"
            )
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"Timeout.{field.name} must be a number of seconds or None, not {value!r}")
            if not value > 0 or math.isinf(value):
                raise ValueError(
                    f"Timeout.{field.name} must be a positive number of seconds or None, not {value!r}"
                )

    @classmethod
    def of(cls, value: float | Timeout | None, default: Timeout) -> Timeout:
        """Resolves `timeout=value`: a number sets `total` and keeps the rest of `default`; None means `default`."""
        if value is None:
            return default
        if isinstance(value, Timeout):
            return value
        if hasattr(value, "as_dict"):
            raise TypeError(
                "this is another library's Timeout: write vllmchat.Timeout(connect=..., first_token=..., idle=...), "
                "or a number of seconds for the whole call"
            )
        return cls(connect=default.connect, first_token=default.first_token, idle=default.idle, total=value)


DEFAULT_TIMEOUT = Timeout()
