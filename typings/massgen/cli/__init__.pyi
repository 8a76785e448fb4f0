from collections.abc import Callable

from massgen.cli.backends import (
    create_agents_from_config as create_agents_from_config,
    create_backend as create_backend,
)

EXIT_CONFIG_ERROR: int
EXIT_EXECUTION_ERROR: int
EXIT_INTERRUPTED: int

# Upstream this is a function; it is a name that the command line calls, and that we replace.
cli_main: Callable[[], None]
