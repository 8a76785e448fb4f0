from abc import ABC
from typing import Any

class AgentState:
    answer: str | None
    error_reason: str | None

class Orchestrator(ABC):
    agents: dict[str, Any]
    agent_states: dict[str, AgentState]
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
