from massgen.token_manager.token_manager import TokenCostCalculator as TokenCostCalculator

class ContextWindowMonitor:
    context_window: int
    def __init__(
        self,
        model_name: str,
        provider: str = "openai",
        trigger_threshold: float = 0.75,
        target_ratio: float = 0.20,
        enabled: bool = True,
    ) -> None: ...
