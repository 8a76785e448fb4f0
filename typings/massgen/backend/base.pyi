from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from massgen.token_manager.token_manager import (
    APICallMetric,
    RoundTokenUsage,
    TokenCostCalculator,
    TokenUsage,
)

@dataclass
class StreamChunk:
    type: str
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    complete_message: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None
    source: str | None = None
    status: str | None = None
    detail: str | None = None
    reasoning_delta: str | None = None
    reasoning_text: str | None = None
    reasoning_summary_delta: str | None = None
    reasoning_summary_text: str | None = None
    item_id: str | None = None
    content_index: int | None = None
    summary_index: int | None = None
    hook_info: dict[str, Any] | None = None
    tool_call_id: str | None = None
    checkpoint_participants: dict[str, Any] | None = None
    checkpoint_number: int | None = None
    main_agent_id: str | None = None
    display: bool = True

class LLMBackend(ABC):
    api_key: str | None
    config: dict[str, Any]
    token_usage: TokenUsage
    token_calculator: TokenCostCalculator
    filesystem_manager: Any
    _last_call_input_tokens: int
    def __init__(self, api_key: str | None = None, **kwargs: Any) -> None: ...
    @abstractmethod
    def get_provider_name(self) -> str: ...
    def start_api_call_timing(self, model: str) -> None: ...
    def record_first_token(self) -> None: ...
    def end_api_call_timing(self, success: bool = True, error: str | None = None) -> None: ...
    def get_api_call_history(self) -> list[APICallMetric]: ...
    def start_round_tracking(self, round_number: int, round_type: str, agent_id: str = "") -> None: ...
    def end_round_tracking(self, outcome: str) -> RoundTokenUsage | None: ...
    def is_planning_mode_enabled(self) -> bool: ...
    def get_planning_mode_blocked_tools(self) -> set[str]: ...
    def get_supported_builtin_tools(self) -> list[str]: ...
    def _estimate_token_usage(
        self, messages: list[dict[str, Any]], response_content: str, model: str
    ) -> None: ...
    def _update_token_usage_from_api_response(self, usage: Any, model: str) -> None: ...
    @abstractmethod
    def stream_with_tools(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **kwargs: Any
    ) -> AsyncGenerator[StreamChunk]: ...
