from abc import ABC
from typing import Any

class ChatCompletionsFormatter(ABC):
    def format_tools(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]: ...
