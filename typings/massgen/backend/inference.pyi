from typing import Any

from massgen.backend.chat_completions import ChatCompletionsBackend

class InferenceBackend(ChatCompletionsBackend):
    def __init__(self, backend_type: str = "vllm", api_key: str | None = None, **kwargs: Any) -> None: ...
