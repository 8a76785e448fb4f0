"""The entry point of the command line, which works without the extra `cli` too: it says what to install."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C: the shell's."""

_NEEDED: Final = ("click", "rich")


def main() -> None:
    """Runs the command line with the arguments of this process, and exits."""
    if any(find_spec(name) is None for name in _NEEDED):
        sys.exit("vllmchat: the command line is not installed. Install it with: pip install 'vllmchat[cli]'")
    try:
        run = cast("Callable[[Sequence[str]], int]", import_module("vllmchat.cli.run").run)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # While modules are imported.
        code = INTERRUPTED
    sys.exit(code)
