from collections.abc import Callable
from typing import Any

from massgen.backend.base import LLMBackend
from massgen.cli.config_loading import ConfigurationError as ConfigurationError

# Upstream this is the class; it is a name that `create_backend` calls, and that we replace.
InferenceBackend: Callable[..., LLMBackend]

def create_backend(backend_type: str, **kwargs: Any) -> Any: ...
def create_agents_from_config(
    config: dict[str, Any],
    orchestrator_config: dict[str, Any] | None = None,
    enable_rate_limit: bool = False,
    config_path: str | None = None,
    memory_session_id: str | None = None,
    debug: bool = False,
    filesystem_session_id: str | None = None,
    session_storage_base: str | None = None,
    progress_callback: Callable[[str, str], None] | None = None,
) -> dict[str, Any]: ...
