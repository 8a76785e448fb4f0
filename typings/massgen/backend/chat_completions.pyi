from collections.abc import AsyncGenerator
from typing import Any

from massgen.api_params_handler import ChatCompletionsAPIParamsHandler
from massgen.backend._streaming_buffer_mixin import StreamingBufferMixin
from massgen.backend.base import StreamChunk
from massgen.backend.base_with_custom_tool_and_mcp import CustomToolAndMCPBackend
from massgen.backend.llm_circuit_breaker import LLMCircuitBreaker
from massgen.formatter import ChatCompletionsFormatter

class ChatCompletionsBackend(StreamingBufferMixin, CustomToolAndMCPBackend):
    api_params_handler: ChatCompletionsAPIParamsHandler
    circuit_breaker: LLMCircuitBreaker
    formatter: ChatCompletionsFormatter
    _interrupted_stream_content: str
    _interrupted_stream_model: str
    _interrupted_stream_messages: list[dict[str, Any]]
    _stream_usage_received: bool
    def __init__(self, api_key: str | None = None, **kwargs: Any) -> None: ...
    def get_provider_name(self) -> str: ...
    def _create_client(self, **kwargs: Any) -> Any: ...
    def _execute_custom_tool(self, call: dict[str, Any]) -> AsyncGenerator[Any]: ...
    def _stream_with_custom_and_mcp_tools(
        self,
        current_messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        client: Any,
        _compression_retry: bool = False,
        **kwargs: Any,
    ) -> AsyncGenerator[StreamChunk]: ...
    def _stream_without_custom_and_mcp_tools(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], client: Any, **kwargs: Any
    ) -> AsyncGenerator[StreamChunk]: ...
    def stream_with_tools(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **kwargs: Any
    ) -> AsyncGenerator[StreamChunk]: ...
