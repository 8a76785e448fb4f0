from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

class LLMCircuitBreakerConfig:
    # It is a dataclass. Only that is used, to learn the names of its options.
    __dataclass_fields__: ClassVar[dict[str, Any]]

class LLMCircuitBreaker:
    async def call_with_retry(
        self,
        coro_factory: Callable[[], Awaitable[Any]],
        *,
        max_retries: int = 3,
        agent_id: str | None = None,
    ) -> Any: ...
