from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

class CircuitBreakerOpenError(Exception): ...

@dataclass
class LLMCircuitBreakerConfig:
    enabled: bool = False
    max_failures: int = 5
    reset_time_seconds: int = 60
    backoff_multiplier: float = 2.0
    max_backoff_seconds: float = 300.0
    retry_after_threshold_seconds: float = 120.0
    retryable_status_codes: list[int] = field(default_factory=list)

class LLMCircuitBreaker:
    async def call_with_retry(
        self,
        coro_factory: Callable[[], Awaitable[Any]],
        *,
        max_retries: int = 3,
        agent_id: str | None = None,
    ) -> Any: ...
