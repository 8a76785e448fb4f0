from massgen.cli.backends import (
    create_agents_from_config as create_agents_from_config,
    create_backend as create_backend,
)

EXIT_CONFIG_ERROR: int
EXIT_EXECUTION_ERROR: int
EXIT_INTERRUPTED: int

def cli_main() -> None: ...
