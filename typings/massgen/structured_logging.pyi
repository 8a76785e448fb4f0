from contextlib import AbstractContextManager
from typing import Any

def trace_llm_api_call(
    agent_id: str, provider: str, model: str, operation: str = "create", **extra_attributes: Any
) -> AbstractContextManager[Any]: ...
