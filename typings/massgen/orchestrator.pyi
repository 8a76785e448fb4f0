from dataclasses import dataclass
from typing import Any

@dataclass
class AgentState:
    answer: str | None = None
    error_reason: str | None = None

class Orchestrator:
    agent_states: dict[str, AgentState]
    def __init__(self, agents: dict[str, Any], *args: Any, **kwargs: Any) -> None: ...
