"""How long a caller is willing to wait, and for what."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

Limit = Literal["connect", "first_token", "idle", "total"]


@dataclass(frozen=True, slots=True)
class Timeout:
    """Limits on waiting, in seconds, named for what a user waits for. `None` switches a limit off.

    Attributes:
        connect: To open a connection, TLS handshake included. For each attempt.
        first_token: From the request until the first event of a stream, or until a whole reply begins to
            arrive. A vLLM server is silent while a request is queued and while its prompt is processed, and a
            reply that is not streamed begins only when it is finished: keep this one generous.
        idle: Between two arrivals of bytes after that.
        total: For the whole call: every attempt, every pause between attempts, and the stream to its end.
    """

    connect: float | None = 5.0
    first_token: float | None = 600.0
    idle: float | None = 300.0
    total: float | None = None

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
        """What `timeout=value` means: a number sets `total` and keeps the rest of `default`, None is `default`."""
        if value is None:
            return default
        if isinstance(value, Timeout):
            return value
        return cls(default.connect, default.first_token, default.idle, value)


DEFAULT_TIMEOUT = Timeout()
