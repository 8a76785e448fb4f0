from typing import Any

class ChatCompletionsFormatter:
    def format_tools(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]: ...
