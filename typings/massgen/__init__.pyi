# What vllmchat.adapters.massgen uses of MassGen, public or not. MassGen has no types of its own.
# tests/massgen compares these files with the installed package.
from typing import Any

async def run(
    query: str,
    config: str | None = None,
    config_dict: dict[str, Any] | None = None,
    model: str | None = None,
    models: list[str] | None = None,
    num_agents: int | None = None,
    use_docker: bool = False,
    enable_filesystem: bool = True,
    enable_logging: bool = False,
    output_file: str | None = None,
    verbose: bool = False,
    conversation_history: list[Any] | None = None,
    parse_at_references: bool = False,
    **kwargs: Any,
) -> dict[str, Any]: ...
