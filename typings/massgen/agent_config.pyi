from typing import Any

class AgentConfig:
    @classmethod
    def create_vllm_config(cls, model: str | None = None, **kwargs: Any) -> AgentConfig: ...
