from abc import ABCMeta
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from massgen.backend.base import LLMBackend, StreamChunk

@dataclass
class ToolExecutionConfig:
    tool_type: str
    chunk_type: str
    emoji_prefix: str
    success_emoji: str
    error_emoji: str
    source_prefix: str
    status_called: str
    status_response: str
    status_error: str
    execution_callback: Callable[..., Any]

class UploadFileError(Exception): ...

class CustomToolAndMCPBackend(LLMBackend, metaclass=ABCMeta):
    agent_id: str | None
    backend_name: str
    mcp_servers: Any
    _custom_tool_names: set[str]
    _mcp_functions: dict[str, Any]
    _nlip_enabled: bool
    _nlip_router: Any
    def _categorize_tool_calls(
        self, captured_calls: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]: ...
    async def _check_circuit_breaker_before_execution(self) -> bool: ...
    async def _compress_messages_for_context_recovery(
        self, messages: list[dict[str, Any]], buffer_content: str | None = None
    ) -> list[dict[str, Any]]: ...
    async def _execute_mcp_function_with_retry(
        self, function_name: str, arguments_json: str, max_retries: int = 3
    ) -> tuple[str, Any]: ...
    def _deduplicate_standard_tool_calls(
        self, tool_calls: list[dict[str, Any]], *, source: str
    ) -> list[dict[str, Any]]: ...
    def _execute_tool_calls(
        self,
        all_calls: list[dict[str, Any]],
        tool_config_for_call: Callable[[dict[str, Any]], ToolExecutionConfig],
        all_params: dict[str, Any],
        updated_messages: list[dict[str, Any]],
        processed_call_ids: set[str],
        log_prefix: str,
        chunk_adapter: Callable[[StreamChunk], Any],
    ) -> AsyncGenerator[Any]: ...
    def is_custom_tool_call(self, tool_name: str) -> bool: ...
    def is_mcp_tool_call(self, tool_name: str) -> bool: ...
    async def _process_upload_files(
        self, messages: list[dict[str, Any]], all_params: dict[str, Any]
    ) -> list[dict[str, Any]]: ...
    def _stream_tool_execution_via_nlip(
        self,
        call: dict[str, Any],
        config: ToolExecutionConfig,
        updated_messages: list[dict[str, Any]],
        processed_call_ids: set[str],
    ) -> AsyncGenerator[StreamChunk]: ...
    def _trim_message_history(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]: ...
    def stream_with_tools(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **kwargs: Any
    ) -> AsyncGenerator[StreamChunk]: ...
