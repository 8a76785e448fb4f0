"""The names of MassGen that the adapter uses, most of them private. Does not depend on the MassGen package itself."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NEWEST_MASSGEN: Final = "0.1.97"
"""The newest version that is known to have all of them."""

_BACKEND = "massgen.backend.chat_completions:ChatCompletionsBackend"

FOR_THE_BACKEND: Final = (
    "massgen.agent_config:AgentConfig.create_vllm_config",
    "massgen.api_params_handler:ChatCompletionsAPIParamsHandler.get_custom_tools",
    "massgen.api_params_handler:ChatCompletionsAPIParamsHandler.get_excluded_params",
    "massgen.api_params_handler:ChatCompletionsAPIParamsHandler.get_mcp_tools",
    "massgen.backend._compression_utils:_get_token_calculator",
    "massgen.backend.base:StreamChunk",
    "massgen.backend.base_with_custom_tool_and_mcp:ToolExecutionConfig",
    "massgen.backend.base_with_custom_tool_and_mcp:UploadFileError",
    *(
        f"{_BACKEND}.{method}"
        for method in (
            "_append_reasoning_to_buffer",
            "_append_to_streaming_buffer",
            "_append_tool_call_to_buffer",
            "_categorize_tool_calls",
            "_check_circuit_breaker_before_execution",
            "_cleanup_client",
            "_compress_messages_for_context_recovery",
            "_create_client",
            "_deduplicate_standard_tool_calls",
            "_estimate_token_usage",
            "_execute_custom_tool",
            "_execute_mcp_function_with_retry",
            "_execute_tool_calls",
            "_get_streaming_buffer",
            "_process_upload_files",
            "_stream_tool_execution_via_nlip",
            "_stream_with_custom_and_mcp_tools",
            "_stream_without_custom_and_mcp_tools",
            "_trim_message_history",
            "_update_token_usage_from_api_response",
            "end_api_call_timing",
            "get_planning_mode_blocked_tools",
            "get_provider_name",
            "get_supported_builtin_tools",
            "is_custom_tool_call",
            "is_mcp_tool_call",
            "is_planning_mode_enabled",
            "record_first_token",
            "start_api_call_timing",
            "stream_with_tools",
        )
    ),
    "massgen.backend.llm_circuit_breaker:LLMCircuitBreaker.call_with_retry",
    "massgen.backend.llm_circuit_breaker:LLMCircuitBreakerConfig",
    "massgen.cli.backends:ConfigurationError",
    "massgen.cli.backends:InferenceBackend",
    "massgen.config_validator:ConfigValidator._validate_backend",
    "massgen.formatter:ChatCompletionsFormatter.format_tools",
    "massgen.logger_config:logger",
    "massgen.memory._context_monitor:TokenCostCalculator",
    "massgen.structured_logging:trace_llm_api_call",
    "massgen.token_manager.token_manager:ModelPricing",
    "massgen.token_manager.token_manager:TokenCostCalculator.extract_token_breakdown",
    "massgen.token_manager.token_manager:TokenCostCalculator.get_model_pricing",
    "massgen.utils.tool_argument_normalization:normalize_json_object_argument",
)
"""What the backend and its installation use, as `module:name` or `module:class.name`."""

FOR_THE_COMMAND: Final = (
    "massgen.cancellation:CancellationRequested",
    "massgen.cli.entrypoint:main",
    "massgen.cli:EXIT_EXECUTION_ERROR",
    "massgen.cli:EXIT_INTERRUPTED",
    "massgen.cli:cli_main",
    "massgen.frontend.interactive_controller:InteractiveSessionController.stop",
    "massgen.orchestrator:Orchestrator",
)
"""What the command line uses besides."""


def missing(names: Iterable[str]) -> Iterator[str]:
    """Those of the names that the installed MassGen does not have.

    Raises:
        Exception: Whatever MassGen raises if it cannot be imported.
    """
    for name in names:
        module, _, path = name.partition(":")
        try:
            found: object = import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except ModuleNotFoundError as error:
            if not module.startswith(str(error.name)) or error.name == "massgen":
                raise
            yield name
        except AttributeError as error:
            if getattr(error, "name", None) not in path.split("."):
                raise
            yield name
