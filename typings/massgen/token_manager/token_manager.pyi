from dataclasses import dataclass
from typing import Any

@dataclass
class TokenUsage:
    input_tokens: int = 0
    output_tokens: int = 0
    estimated_cost: float = 0.0
    reasoning_tokens: int = 0
    cached_input_tokens: int = 0
    cache_creation_tokens: int = 0

class APICallMetric:
    time_to_first_token_ms: float
    success: bool
    error_message: str | None

class RoundTokenUsage:
    context_window_size: int

@dataclass
class ModelPricing:
    input_cost_per_1k: float
    output_cost_per_1k: float
    context_window: int | None = None
    max_output_tokens: int | None = None
    source: str = "unknown"

class TokenCostCalculator:
    def __init__(self) -> None: ...
    def extract_token_breakdown(self, usage: Any) -> dict[str, int]: ...
    def get_model_pricing(self, provider: str, model: str) -> ModelPricing | None: ...
