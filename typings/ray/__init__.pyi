"""The parts of Ray that are used here."""

from typing import Any

from ray import data as data

def init(
    *,
    num_cpus: int | None = ...,
    include_dashboard: bool | None = ...,
    object_store_memory: int | None = ...,
    log_to_driver: bool | None = ...,
    configure_logging: bool = ...,
    runtime_env: dict[str, Any] | None = ...,
    _temp_dir: str | None = ...,
) -> object: ...
def shutdown() -> None: ...
def is_initialized() -> bool: ...
