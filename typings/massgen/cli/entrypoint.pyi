from collections.abc import Callable, Coroutine
from typing import Any

# Upstream this is a function; it is a name that `cli_main` calls, and that we replace.
main: Callable[[Any], Coroutine[Any, Any, None]]
